// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace nestling::cli {

// What this machine can do at most, measured now: what decode and prefill are held against.
struct MachineLimits {
  double read_bytes_per_second = 0;
  // int8 multiplications and additions, both counted, with all operands in registers and the best
  // instruction that our kernels use; 0 where there is no such loop for the CPU.
  double int8_operations_per_second = 0;
};

// Medians of several runs with `num_threads` threads at once. Takes about a tenth of a second, and
// 128 MB of memory while it runs.
MachineLimits MeasureMachineLimits(uint32_t num_threads);

}  // namespace nestling::cli
