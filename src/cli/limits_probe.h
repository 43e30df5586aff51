// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <vector>

#include "cli/machine_limits.h"

namespace nestling::cli {

// Measures the machine's limits between the runs that are held against them, because a shared
// machine's limits change from second to second; and keeps what that takes out of the peak of
// resident memory.
class LimitsProbe {
 public:
  explicit LimitsProbe(uint32_t num_threads);

  // False: the system cannot forget a peak. Then the limits may only be measured at the end.
  bool CanMeasureBetween() const { return can_forget_peak_; }
  MachineLimits Measure();

  // The median of all measurements, of which there must be one.
  MachineLimits Median() const;
  // Of this process since its start, without the memory of Measure.
  uint64_t PeakResident() const;

 private:
  uint32_t num_threads_;
  bool can_forget_peak_;
  uint64_t peak_resident_ = 0;  // before the last Measure
  std::vector<MachineLimits> measured_;
};

}  // namespace nestling::cli
