// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/status.h"
#include "container/reader.h"
#include "runtime/memory_estimate.h"

namespace nestling {

// The slice that an engine starts with, and why.
struct SliceChoice {
  SliceConfig slice;
  std::string reason;      // one line for people
  MemoryEstimate memory;   // of the engine and one session
  double decode_rate = 0;  // estimated tokens per second; 0: nobody asked
};

// The rule: of the candidates that fit `memory_budget_bytes` and reach `target_decode_rate` (0: no
// limit), the one with the highest published accuracy; of equal ones the one with the most
// effective parameters; then the first. Memory is EstimateMemory's; the rate is that of reading
// WeightBytesPerToken at `weight_bytes_per_second`, which an engine measures on its own output
// head; attention over a long context is not part of it.
struct SliceLimits {
  uint64_t memory_budget_bytes = 0;
  double target_decode_rate = 0;
};

// Every slice of the container and the whole model.
std::vector<SliceConfig> CandidateSlices(const HeaderFields& header);

// The candidates within the budget, and what they fit with.
struct FittingSlices {
  std::vector<SliceChoice> slices;  // not empty
  // As asked for, or if no slice fits with that: without a PLE cache, and then with the largest
  // chunk, halved again and again, with which one does.
  MemoryQuery query;
};
// kOutOfMemory names the smallest number that would do.
Result<FittingSlices> FindFittingSlices(const ContainerReader& container,
                                        std::span<const SliceConfig> candidates,
                                        const SliceLimits& limits, const MemoryQuery& query);

// The best of `fitting`, which is not empty; `weight_bytes_per_second` matters with a target only.
// kOutOfMemory names the rate of the fastest when none reaches the target.
Result<SliceChoice> BestSlice(const ContainerReader& container, std::vector<SliceChoice> fitting,
                              const SliceLimits& limits, double weight_bytes_per_second);

}  // namespace nestling
