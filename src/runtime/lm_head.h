// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/function_ref.h"
#include "base/lazy_memory.h"
#include "base/status.h"
#include "base/thread_pool.h"
#include "container/header_fields.h"
#include "graph/linear_block.h"
#include "sampling/best_logits.h"
#include "sampling/candidates.h"

namespace nestling {

// From final activations to soft-capped logits (gemma3n.md 2.10): all of them, or the few that a
// sampler asks for. One per decoder; one thread at a time.
class LmHead {
 public:
  // Rows of one call of Logits: bounds its memory.
  static constexpr size_t kMaxRows = 8;

  // `block` [hidden] -> [vocab], `pool` and `config` are borrowed.
  static Result<std::unique_ptr<LmHead>> Create(LinearBlock& block, const ThreadPool& pool,
                                                const TextConfig& config);

  // x [rows, hidden], 1 <= rows <= kMaxRows -> [rows, vocab]. Valid until the next call.
  Result<std::span<const float>> Logits(const float* x, size_t rows);

  // Weights lie in tiles. Others are XNNPACK's, which writes all logits.
  bool has_candidates() const { return block_.has_blocks(); }
  // The query's logits of x [hidden] among those of tokens below `limit` <= vocab. Each is what
  // Logits says, to the bit; they are looked at where they are computed, and never all written.
  // Allocates only for more than ever before. Valid until the next call.
  Candidates FindCandidates(const float* x, const CandidateQuery& query, size_t limit);

  // Most that Logits and FindCandidates make resident, with as many threads as most machines have.
  static uint64_t Bytes(const TextConfig& config);
  // What takes memory, as far as it was used.
  void VisitMemory(FunctionRef<void(std::span<const std::byte>)> visit) const;

 private:
  LmHead(LinearBlock& block, const ThreadPool& pool, const TextConfig& config)
      : block_(block), pool_(pool), config_(config), lists_(pool.num_threads()) {}

  // Logits that are looked through together.
  static constexpr size_t kPart = 256;
  // Candidates that are worth soft-capping together.
  static constexpr size_t kPending = 64;

  // One thread's candidates. Apart, so that threads do not write to one cache line.
  struct alignas(64) List {
    BestLogits best;
    float raw_threshold = 0.0f;  // logits below it are below best's threshold when soft-capped
    // What has passed that threshold and is not soft-capped yet.
    size_t num_pending = 0;
    int32_t ids[kPending + kPart];
    float raw[kPending + kPart];
  };
  void Begin(List& list, size_t num_best);
  // Of a block of outputs that one thread has.
  void Collect(List& list, size_t first, std::span<float> values, const CandidateQuery& query,
               size_t limit);
  // Soft-caps what is pending and keeps the best.
  void TakePending(List& list);
  void SoftCap(std::span<float> logits) const;
  // The lowest logit that may be at least `capped` when soft-capped.
  float RawThreshold(float capped) const;

  LinearBlock& block_;
  const ThreadPool& pool_;
  const TextConfig& config_;
  LazyMemory workspace_;       // of quantised inputs
  LazyMemory logits_;          // [kMaxRows, vocab]; one row at a time leaves the others untouched
  std::vector<List> lists_;    // by thread
  BestLogits best_;            // of all of them
  std::vector<float> wanted_;  // logits of the query's ids
};

}  // namespace nestling
