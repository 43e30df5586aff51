// SPDX-License-Identifier: Apache-2.0
#include "cli/limits_probe.h"

#include <algorithm>

#include "cli/bench_report.h"
#include "cli/system_info.h"
#include "nestling/nestling.hpp"

namespace nestling::cli {

LimitsProbe::LimitsProbe(uint32_t num_threads)
    : num_threads_(num_threads), peak_resident_(ProcessMemory().peak_resident_bytes) {
  can_forget_peak_ = ForgetPeakResident();
}

MachineLimits LimitsProbe::Measure() {
  peak_resident_ = PeakResident();
  measured_.push_back(MeasureMachineLimits(num_threads_));
  if (can_forget_peak_) ForgetPeakResident();
  return measured_.back();
}

MachineLimits LimitsProbe::Median() const {
  std::vector<double> reading, int8;
  for (const MachineLimits& limits : measured_) {
    reading.push_back(limits.read_bytes_per_second);
    int8.push_back(limits.int8_operations_per_second);
  }
  return {Percentile(reading, 50), Percentile(int8, 50)};
}

uint64_t LimitsProbe::PeakResident() const {
  if (!can_forget_peak_ && !measured_.empty()) return peak_resident_;
  return std::max<uint64_t>(peak_resident_, ProcessMemory().peak_resident_bytes);
}

}  // namespace nestling::cli
