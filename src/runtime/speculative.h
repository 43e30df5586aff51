// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/status.h"
#include "sampling/sampler.h"

namespace nestling {

// Most drafts of a round. Batches of up to one more token give to the bit what decode gives them
// one by one (kExactTokens), so that greedy output is that of plain decoding.
inline constexpr uint32_t kMaxDraftTokens = 15;
inline constexpr uint32_t kDefaultDraftTokens = 4;

// Speculative sampling (Leviathan, Kalman, Matias 2023; Chen et al. 2023): a cheap model drafts
// tokens, the wanted model judges all of them in one batch, and what comes out is distributed as if
// the wanted model had drawn every token itself. Knows logits only; a session runs the models:
//
//   Begin, then Draft with the cheap model's logits after batch().back() while wants_draft(), then
//   Judge with the wanted model's logits after batch()[0], [1], ... until done(): tokens().
//
// Both models are filtered alike (temperature, top-k, ...). Allocates in Create only.
class Speculation {
 public:
  // The wanted model's sampler has the same options. `limit` as in Sampler::Sample; at most
  // `max_drafts` drafts a round, 1 .. kMaxDraftTokens.
  static Result<std::unique_ptr<Speculation>> Create(const SamplingOptions& options,
                                                     size_t vocab_size, size_t limit,
                                                     uint32_t max_drafts);

  // A round after `last`, the last token of the sequence that `sampler` has accepted, with at most
  // `most` >= 1 drafts. The number follows the success so far: one more after a round whose drafts
  // were all accepted, else one fewer.
  void Begin(int32_t last, uint32_t most, const Sampler& sampler);

  bool wants_draft() const { return num_drafts() < wanted_; }
  // Draws the next draft.
  Status Draft(std::span<const float> logits);
  // The round's `last`, then the drafts. Not moved by Draft.
  std::span<const int32_t> batch() const { return batch_; }

  // Accepts or rejects the next draft; after a rejection, or when all drafts were accepted, draws
  // one more token. `sampler` accepts what becomes of the sequence.
  Status Judge(std::span<const float> logits, Sampler& sampler);
  bool done() const { return done_; }
  // The round's outcome: accepted drafts and one more token.
  std::span<const int32_t> tokens() const { return tokens_; }

  uint64_t num_drafted() const { return num_drafted_; }
  uint64_t num_accepted() const { return num_accepted_; }

 private:
  explicit Speculation(size_t limit, uint32_t max_drafts)
      : limit_(limit), max_drafts_(max_drafts), next_drafts_(max_drafts) {}

  size_t num_drafts() const { return batch_.size() - 1; }
  void Finish(int32_t token, Sampler& sampler);
  // max(p - q, 0) with q the distribution of draft `index`.
  std::span<const TokenProbability> Residual(std::span<const TokenProbability> p, size_t index);

  const size_t limit_;
  const uint32_t max_drafts_;
  uint32_t next_drafts_;  // of the next round
  std::unique_ptr<Sampler> draft_sampler_;
  uint32_t wanted_ = 0;
  bool done_ = false;
  std::vector<int32_t> batch_;
  std::vector<int32_t> tokens_;
  // What each draft was drawn from.
  std::vector<std::vector<TokenProbability>> draft_distributions_;
  std::vector<TokenProbability> residual_;
  std::vector<float> subtracted_;  // by token; all 0 between calls
  uint64_t num_drafted_ = 0;
  uint64_t num_accepted_ = 0;
};

}  // namespace nestling
