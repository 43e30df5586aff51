// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/status.h"

namespace nestling {

// Numbers of cores as the operating system counts them, ascending.
using CoreSet = std::vector<uint32_t>;

struct Core {
  uint32_t number;
  // Larger is faster. 0 when unknown.
  uint64_t speed;
};

struct Topology {
  std::vector<Core> cores;  // that this process may use, ascending; at least one
  // Processor time that the process may use at once, in cores, rounded up; 0: no limit.
  size_t quota = 0;
};

// Of this machine, within the process's affinity and the quota of its control group.
Topology ReadTopology();

struct CoreChoice {
  size_t num_threads;  // the caller included
  CoreSet workers;     // where the workers may run; empty: wherever the process may
};

// Without a mask, 0 threads means one for each performance core: a core of a cluster slower than
// the fastest one makes the others wait. On cores of several speeds, workers then stay on the fast
// ones while there are enough of those. A mask says where the workers may run, and 0 threads then
// means one for each of its cores.
Result<CoreChoice> ChooseCores(const Topology& topology, size_t num_threads, uint64_t cpu_mask);

// Lets this thread run on `cores` only; does nothing for none of them, or if the system refuses.
void PinThisThread(const CoreSet& cores);

// Asks the scheduler to give this thread its fair share in short slices, so that it runs soon after
// it is woken even where another process is busy. Linux 6.12 and later; without effect elsewhere.
void AskForShortSlices();

}  // namespace nestling
