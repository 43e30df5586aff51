// SPDX-License-Identifier: Apache-2.0
#include "runtime/lm_head.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "base/math.h"
#include "kernels/at_least/at_least.h"
#include "kernels/softcap/softcap.h"
#include "sampling/sampler.h"

namespace nestling {
namespace {

// Threads that an estimate of the candidates' memory counts.
constexpr uint64_t kUsualThreads = 16;
// A multiple of every vector's lanes: the last bits of a soft-capped logit do not depend on where
// it stood.
constexpr size_t kLanes = 16;

}  // namespace

Result<std::unique_ptr<LmHead>> LmHead::Create(LinearBlock& block, const ThreadPool& pool,
                                               const TextConfig& config) {
  std::unique_ptr<LmHead> head(new LmHead(block, pool, config));
  ASSIGN_OR_RETURN(head->workspace_,
                   LazyMemory::Create(LinearWorkspaceBytes(kMaxRows, config.hidden_size, 1)));
  ASSIGN_OR_RETURN(head->logits_,
                   LazyMemory::Create(kMaxRows * uint64_t{config.vocab_size} * sizeof(float)));
  return head;
}

uint64_t LmHead::Bytes(const TextConfig& config) {
  return LinearWorkspaceBytes(kMaxRows, config.hidden_size, 1) +
         kMaxRows * uint64_t{config.vocab_size} * sizeof(float) +
         (kUsualThreads + 1) * BestLogits::Bytes(kMaxCandidates);
}

void LmHead::VisitMemory(FunctionRef<void(std::span<const std::byte>)> visit) const {
  visit({workspace_.data(), workspace_.size()});
  visit({logits_.data(), logits_.size()});
}

Result<std::span<const float>> LmHead::Logits(const float* x, size_t rows) {
  NESTLING_DCHECK(rows >= 1 && rows <= kMaxRows);
  const float* inputs[] = {x};
  float* outputs[] = {reinterpret_cast<float*>(logits_.data())};
  const std::span<float> logits(outputs[0], rows * config_.vocab_size);
  RETURN_IF_ERROR(block_.Run(rows, inputs, outputs, {workspace_.data(), workspace_.size()}));
  if (config_.final_logit_softcap > 0) {
    constexpr size_t kTask = 16384;  // logits of one task
    pool_.ParallelFor(DivUp(logits.size(), kTask), [&](size_t task) {
      const size_t begin = task * kTask;
      SoftCap(logits.subspan(begin, std::min(kTask, logits.size() - begin)));
    });
  }
  return std::span<const float>(logits);
}

void LmHead::SoftCap(std::span<float> logits) const {
  if (config_.final_logit_softcap > 0) {
    kernels::SoftCap(logits.data(), logits.size(), config_.final_logit_softcap);
  }
}

// Soft-capping keeps the order but for its rounding, which also makes different logits equal, all
// of the high ones in the end. So thresholds are compared with a margin, and what passes is capped,
// as all logits would be, and compared then.
float LmHead::RawThreshold(float capped) const {
  const double cap = config_.final_logit_softcap;
  if (!(cap > 0)) return capped;
  constexpr double kError = 4e-7;  // twice what SoftCap promises, relative to the cap
  constexpr double kRounding = 1e-6;
  const double least = capped / cap - kError;
  if (least <= -1.0) return -std::numeric_limits<float>::infinity();  // which becomes -cap
  // Of numbers above the cap, which SoftCap does not give, all logits may be.
  const double raw = cap * std::atanh(std::min(least, 1.0 - kError));
  return static_cast<float>(raw - kRounding * (1.0 + std::abs(raw)));
}

void LmHead::Begin(List& list, size_t num_best) {
  list.best.Reset(num_best);
  list.raw_threshold = RawThreshold(list.best.threshold());
  list.num_pending = 0;
}

// Memory waits while this computes, so it does as little as it can: most parts have nothing.
void LmHead::Collect(List& list, size_t first, std::span<float> values, const CandidateQuery& query,
                     size_t limit) {
  if (first >= limit) return;
  values = values.first(std::min(values.size(), limit - first));
  auto wanted = std::lower_bound(query.ids.begin(), query.ids.end(), static_cast<int32_t>(first));
  for (; wanted != query.ids.end() && static_cast<size_t>(*wanted) < first + values.size();
       ++wanted) {
    wanted_[static_cast<size_t>(wanted - query.ids.begin())] =
        values[static_cast<size_t>(*wanted) - first];
  }
  std::array<uint32_t, kPart> found;
  for (size_t begin = 0; begin < values.size(); begin += kPart) {
    const std::span<float> part = values.subspan(begin, std::min(kPart, values.size() - begin));
    const size_t count =
        kernels::FindAtLeast(part.data(), part.size(), list.raw_threshold, found.data());
    for (size_t i = 0; i < count; ++i) {
      list.ids[list.num_pending] = static_cast<int32_t>(first + begin + found[i]);
      list.raw[list.num_pending++] = part[found[i]];
    }
    if (list.num_pending >= kPending) TakePending(list);
  }
}

void LmHead::TakePending(List& list) {
  const size_t padded = RoundUp(list.num_pending, kLanes);
  std::fill(list.raw + list.num_pending, list.raw + padded, 0.0f);
  SoftCap({list.raw, padded});
  const float threshold = list.best.threshold();
  for (size_t i = 0; i < list.num_pending; ++i) list.best.Offer({list.ids[i], list.raw[i]});
  list.num_pending = 0;
  if (list.best.threshold() != threshold) {
    list.raw_threshold = RawThreshold(list.best.threshold());
  }
}

Candidates LmHead::FindCandidates(const float* x, const CandidateQuery& query, size_t limit) {
  NESTLING_DCHECK(has_candidates() && limit <= config_.vocab_size);
  for (List& list : lists_) Begin(list, query.num_best);
  // A query's ids are no more than its best, but more from token to token.
  wanted_.reserve(RoundUp(query.num_best, kLanes));
  wanted_.assign(RoundUp(query.ids.size(), kLanes), 0.0f);
  block_.VisitBlocks(x, {workspace_.data(), workspace_.size()},
                     [&](size_t thread, size_t first, std::span<float> values) {
                       Collect(lists_[thread], first, values, query, limit);
                     });
  SoftCap(wanted_);
  best_.Reset(query.num_best);
  for (List& list : lists_) {
    TakePending(list);
    for (const TokenLogit& token : list.best.Best()) best_.Offer(token);
  }
  return {best_.Best(), std::span<const float>(wanted_).first(query.ids.size())};
}

}  // namespace nestling
