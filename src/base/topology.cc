// SPDX-License-Identifier: Apache-2.0
#include "base/topology.h"

#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <string>

namespace nestling {
namespace {

constexpr size_t kMaskCores = 64;

// The kernel's struct sched_attr in its first version; C libraries do not all have it.
struct SchedulingAttributes {
  uint32_t size;
  uint32_t policy;
  uint64_t flags;
  int32_t nice;
  uint32_t priority;
  uint64_t runtime;  // nanoseconds; a slice's length for the default policy
  uint64_t deadline;
  uint64_t period;
};
static_assert(sizeof(SchedulingAttributes) == 48);

// The kernel's figure for a core: its relative capacity where it has one (arm64), else its highest
// frequency. Frequencies of equal cores differ a little on some PCs, so they are compared coarsely.
uint64_t ReadSpeed(uint32_t core) {
  const std::string folder = "/sys/devices/system/cpu/cpu" + std::to_string(core) + "/";
  uint64_t speed = 0;
  if (std::ifstream(folder + "cpu_capacity") >> speed) return speed;
  if (std::ifstream(folder + "cpufreq/cpuinfo_max_freq") >> speed) return speed;
  return 0;
}

// Version 2 of control groups: "max 100000" or "150000 100000", microseconds of each period.
size_t ReadQuota() {
  std::ifstream file("/sys/fs/cgroup/cpu.max");
  uint64_t quota = 0, period = 0;
  if (!(file >> quota >> period) || quota == 0 || period == 0) return 0;
  return static_cast<size_t>((quota - 1) / period + 1);
}

CoreSet PerformanceCores(const std::vector<Core>& cores) {
  uint64_t fastest = 0;
  for (const Core& core : cores) fastest = std::max(fastest, core.speed);
  CoreSet result;
  for (const Core& core : cores) {
    // The middle cores of a phone reach 75 to 90 % of its one or two prime cores and are worth
    // having; its efficiency cores reach half or less.
    if (core.speed >= fastest / 10 * 7) result.push_back(core.number);
  }
  return result;
}

}  // namespace

Topology ReadTopology() {
  Topology topology;
  cpu_set_t usable;
  if (sched_getaffinity(0, sizeof usable, &usable) == 0) {
    for (uint32_t core = 0; core < CPU_SETSIZE; ++core) {
      if (CPU_ISSET(core, &usable)) topology.cores.push_back({core, ReadSpeed(core)});
    }
  }
  if (topology.cores.empty()) topology.cores.push_back({0, 0});
  topology.quota = ReadQuota();
  return topology;
}

Result<CoreChoice> ChooseCores(const Topology& topology, size_t num_threads, uint64_t cpu_mask) {
  CoreChoice choice;
  CoreSet chosen;
  if (cpu_mask != 0) {
    for (const Core& core : topology.cores) {
      if (core.number < kMaskCores && (cpu_mask >> core.number & 1) != 0) {
        chosen.push_back(core.number);
      }
    }
    if (chosen.empty()) {
      char mask[32];
      std::snprintf(mask, sizeof mask, "0x%llx", static_cast<unsigned long long>(cpu_mask));
      std::string usable;
      for (const Core& core : topology.cores) {
        usable += ' ';
        usable += std::to_string(core.number);
      }
      return InvalidArgument("cpu mask: ", mask,
                             " has none of the cores that this process may use:", usable);
    }
  } else {
    chosen = PerformanceCores(topology.cores);
  }
  choice.num_threads = chosen.size();
  if (topology.quota != 0) choice.num_threads = std::min(choice.num_threads, topology.quota);
  if (num_threads != 0) choice.num_threads = num_threads;
  const bool some = chosen.size() < topology.cores.size();
  if (cpu_mask != 0 || (some && choice.num_threads <= chosen.size())) {
    choice.workers = std::move(chosen);
  }
  return choice;
}

void PinThisThread(const CoreSet& cores) {
  if (cores.empty()) return;
  cpu_set_t set;
  CPU_ZERO(&set);
  for (const uint32_t core : cores) CPU_SET(core, &set);
  sched_setaffinity(0, sizeof set, &set);
}

void AskForShortSlices() {
  constexpr uint64_t kSlice = 100'000;  // the shortest that Linux grants
  SchedulingAttributes attributes = {};
  // Niceness and policy stay what they are.
  if (syscall(SYS_sched_getattr, 0, &attributes, sizeof attributes, 0) != 0) return;
  if (attributes.policy != SCHED_OTHER) return;
  attributes.runtime = kSlice;
  syscall(SYS_sched_setattr, 0, &attributes, 0);
}

}  // namespace nestling
