// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "base/status.h"
#include "sampling/candidates.h"
#include "sampling/random.h"

namespace nestling {

// How the next token is chosen from the logits. The steps are applied in this order.
struct SamplingOptions {
  float repetition_penalty = 1.0f;  // > 0. Logits of recent tokens: l > 0 ? l / p : l * p. 1: off
  uint32_t repetition_window = 64;  // recent tokens that the penalty looks at
  float temperature = 1.0f;         // >= 0; 0: always the most probable token (greedy)
  uint32_t top_k = 0;               // keep the k most probable; 0: all
  float top_p = 1.0f;               // in [0, 1]: keep the smallest set of that mass; 1: all
  float min_p = 0.0f;               // in [0, 1]: of the most probable one's probability; 0: all
  uint64_t seed = 0;
};

// kInvalidArgument with the name of the option, what was found and what is wanted.
Status ValidateSamplingOptions(const SamplingOptions& options);

struct TokenProbability {
  int32_t id = 0;
  float probability = 0.0f;
};

// Most candidates of a query. (Measured with benchmarks/lm_head_bench: more are not worth it.)
inline constexpr size_t kMaxCandidates = 1024;

// Draws tokens. The same options, logits and calls give the same tokens on every platform. For one
// sequence and one thread at a time. No call but SetOptions and Reserve allocates, as long as the
// vocabulary is not larger than reserved.
class Sampler {
 public:
  static Result<std::unique_ptr<Sampler>> Create(const SamplingOptions& options, size_t vocab_size);

  // Starts again with other options: the seed's sequence from its beginning, no recent tokens. The
  // sampler is unchanged on error.
  Status SetOptions(const SamplingOptions& options);
  const SamplingOptions& options() const { return options_; }

  // Room for logits of this many tokens.
  void Reserve(size_t vocab_size);

  // The next token: an id below `limit` (and below logits.size()). `logits` are soft-capped
  // already. NaN is never chosen. kInternal when no token has a logit above -infinity;
  // kInvalidArgument when there are no tokens at all.
  Result<int32_t> Sample(std::span<const float> logits, size_t limit);

  // What Sample draws from: the tokens that pass all filters, with probabilities that add up to 1.
  // Most probable first, equal ones by id; without top-k, top-p and min-p all by id. One token when
  // greedy. Valid until the next call. Uses no random numbers. Errors as Sample.
  Result<std::span<const TokenProbability>> Distribution(std::span<const float> logits,
                                                         size_t limit);

  // The same without a row of logits, where the options allow it: greedy or top-k (smaller than
  // `limit` and, with the window of a repetition penalty, not beyond kMaxCandidates). What is to be
  // asked for next; nullopt: all logits. `limit` is at most the vocabulary's size. Valid until the
  // next call.
  std::optional<CandidateQuery> Query(size_t limit);
  // From the answer to the last query, with its limit: the token that Sample would choose from all
  // logits, with as many random numbers. Errors as Sample.
  Result<int32_t> SampleCandidates(const Candidates& candidates, size_t limit);
  Result<std::span<const TokenProbability>> CandidateDistribution(const Candidates& candidates,
                                                                  size_t limit);

  // One random number's choice from a distribution, which must not be empty.
  int32_t Draw(std::span<const TokenProbability> distribution);

  // Uniform in [0, 1): for whoever accepts or rejects a drafted token.
  double NextUniform() { return random_.NextUniform(); }

  // Remembers a token of the sequence for the repetition penalty: prompt and answer alike.
  void Accept(int32_t id);
  // Takes over the recent tokens of a sampler with the same options: a draft begins where the
  // sequence is.
  void CopyRecent(const Sampler& other);

 private:
  explicit Sampler(const SamplingOptions& options) : options_(options), random_(options.seed) {}

  bool greedy() const { return options_.temperature == 0.0f; }
  // A query's num_best; 0: the options need all logits.
  size_t NumBest() const;
  float Penalized(float logit) const;
  int32_t Choose(std::span<const TokenProbability> distribution);

  // Steps of Distribution. They leave weights in `probability`, 1 for the most probable token, and
  // return their sum, 0 when there is no token to choose.
  std::span<const float> Penalize(std::span<const float> logits);
  double WeighMaximum(std::span<const float> logits);
  double WeighTopK(std::span<const float> logits);
  double WeighAll(std::span<const float> logits);
  double WeighCandidates(const Candidates& candidates);
  // Of candidates by rank, with logits in `probability`.
  double WeighSorted();
  // From weights to the distribution; of `num_logits` to choose from. `sorted`: they are by rank.
  Result<std::span<const TokenProbability>> Filter(double total, bool sorted, size_t num_logits);
  void KeepMass(double total, bool sorted);
  void KeepMinP(bool sorted);

  SamplingOptions options_;
  Random random_;
  size_t vocab_size_ = 0;        // reserved
  std::vector<int32_t> recent_;  // ring of at most repetition_window tokens
  size_t next_recent_ = 0;
  std::vector<float> penalized_;     // logits after the penalty
  std::vector<int32_t> recent_ids_;  // of a query: the recent tokens below its limit, each once
  std::vector<TokenProbability> candidates_;
};

}  // namespace nestling
