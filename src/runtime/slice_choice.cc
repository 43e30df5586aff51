// SPDX-License-Identifier: Apache-2.0
#include "runtime/slice_choice.h"

#include <algorithm>
#include <cstdio>
#include <utility>

#include "model/slices.h"
#include "runtime/scratch.h"

namespace nestling {
namespace {

std::string OneDecimal(double value) {
  char text[32];
  std::snprintf(text, sizeof(text), "%.1f", value);
  return text;
}

// "weights 12, kv cache 3, ...": the groups that are not empty.
std::string Groups(const MemoryEstimate& memory) {
  const struct {
    const char* name;
    uint64_t bytes;
  } groups[] = {{"weights in place", memory.mapped_weights},
                {"packed weights", memory.packed_weights},
                {"kv cache", memory.kv_cache},
                {"scratch", memory.scratch},
                {"PLE", memory.ple},
                {"vision", memory.vision},
                {"audio", memory.audio},
                {"other", memory.other}};
  std::string text;
  for (const auto& group : groups) {
    if (group.bytes == 0) continue;
    if (!text.empty()) text += ", ";
    text += StrCat(group.name, " ", group.bytes);
  }
  return text;
}

bool Better(const SliceConfig& a, const SliceConfig& b) {
  if (a.published_accuracy != b.published_accuracy) {
    return a.published_accuracy > b.published_accuracy;
  }
  return a.effective_parameters > b.effective_parameters;
}

std::string Reason(const SliceChoice& choice, const SliceLimits& limits, size_t num_able,
                   double weight_bytes_per_second) {
  std::string reason = choice.slice.name;
  if (num_able == 1) {
    reason += ": the only slice";
  } else if (choice.slice.published_accuracy > 0) {
    reason += StrCat(": the highest published accuracy (",
                     OneDecimal(choice.slice.published_accuracy), " %) of ", num_able, " slices");
  } else {
    reason += StrCat(": the most parameters of ", num_able, " slices");
  }
  const char* link = " ";
  if (limits.memory_budget_bytes != 0) {
    reason +=
        StrCat(link, "within ", limits.memory_budget_bytes, " bytes (", choice.memory.total(), ")");
    link = " and ";
  }
  if (limits.target_decode_rate > 0) {
    reason += StrCat(link, "at ", OneDecimal(limits.target_decode_rate), " tokens/s or more (",
                     OneDecimal(choice.decode_rate), " at ",
                     OneDecimal(weight_bytes_per_second / 1e9), " GB/s)");
  }
  return reason;
}

}  // namespace

std::vector<SliceConfig> CandidateSlices(const HeaderFields& header) {
  std::vector<SliceConfig> candidates = header.slices;
  SliceConfig whole = WholeModelSlice(header.text);
  // E4B containers publish the whole model under its own name.
  const bool listed =
      std::any_of(candidates.begin(), candidates.end(), [&whole](const SliceConfig& slice) {
        return slice.skip_layers.empty() && slice.ffn == whole.ffn;
      });
  if (!listed) candidates.push_back(std::move(whole));
  return candidates;
}

Result<FittingSlices> FindFittingSlices(const ContainerReader& container,
                                        std::span<const SliceConfig> candidates,
                                        const SliceLimits& limits, const MemoryQuery& query) {
  const uint64_t budget = limits.memory_budget_bytes;
  FittingSlices fitting{{}, query};
  ASSIGN_OR_RETURN(fitting.query.chunk_tokens, ResolveChunkTokens(query.chunk_tokens));
  SliceChoice smallest;
  while (true) {
    for (const SliceConfig& slice : candidates) {
      SliceChoice choice;
      choice.slice = slice;
      ASSIGN_OR_RETURN(choice.memory, EstimateMemory(container, slice, fitting.query));
      const uint64_t needed = choice.memory.total();
      if (smallest.slice.name.empty() || needed < smallest.memory.total()) smallest = choice;
      if (budget == 0 || needed <= budget) fitting.slices.push_back(std::move(choice));
    }
    if (!fitting.slices.empty()) return fitting;
    if (query.ple_mode == PleMode::kStream && fitting.query.ple_cache_bytes != kNoPleCache) {
      fitting.query.ple_cache_bytes = kNoPleCache;
    } else if (fitting.query.chunk_tokens > kMinChunkTokens) {
      fitting.query.chunk_tokens =
          std::max<uint32_t>(kMinChunkTokens, fitting.query.chunk_tokens / 2);
    } else {
      break;
    }
  }
  return OutOfMemory("memory_budget_bytes: ", budget, ", slice ", smallest.slice.name, " needs ",
                     smallest.memory.total(), " (", Groups(smallest.memory), ")",
                     candidates.size() > 1 ? " and no other needs less" : "");
}

Result<SliceChoice> BestSlice(const ContainerReader& container, std::vector<SliceChoice> fitting,
                              const SliceLimits& limits, double weight_bytes_per_second) {
  if (limits.target_decode_rate > 0) {
    const SliceChoice* fastest = nullptr;
    for (SliceChoice& choice : fitting) {
      choice.decode_rate = weight_bytes_per_second /
                           static_cast<double>(WeightBytesPerToken(container, choice.slice));
      if (fastest == nullptr || choice.decode_rate > fastest->decode_rate) fastest = &choice;
    }
    if (fastest->decode_rate < limits.target_decode_rate) {
      return OutOfMemory("target_decode_rate: ", OneDecimal(limits.target_decode_rate),
                         " tokens/s, slice ", fastest->slice.name, " reaches ",
                         OneDecimal(fastest->decode_rate), " (",
                         OneDecimal(weight_bytes_per_second / 1e9), " GB/s of weights)",
                         fitting.size() > 1 ? " and no other within the budget more" : "");
    }
    std::erase_if(fitting, [&limits](const SliceChoice& choice) {
      return choice.decode_rate < limits.target_decode_rate;
    });
  }
  // The first of the best: min_element takes "better" for "less".
  SliceChoice best =
      *std::min_element(fitting.begin(), fitting.end(),
                        [](const auto& a, const auto& b) { return Better(a.slice, b.slice); });
  best.reason = Reason(best, limits, fitting.size(), weight_bytes_per_second);
  return best;
}

}  // namespace nestling
