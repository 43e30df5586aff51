// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "nestling/nestling.hpp"

namespace nestling::cli {

// How likely a model finds a sequence: sums over the tokens after the first of each sequence.
struct Score {
  uint64_t num_tokens = 0;  // that were predicted
  double nll = 0;           // sum of -ln p(token | the ones before)

  double MeanNll() const { return num_tokens == 0 ? 0 : nll / static_cast<double>(num_tokens); }
  double Perplexity() const;
};

// Of a model against a reference on the same sequences.
struct Divergence {
  Score model;
  Score reference;
  double kl = 0;  // sum of KL(reference || model) over the predicted positions, in nats
  double max_kl = 0;
  uint64_t top1 = 0;  // positions at which both find the same token most likely

  double MeanKl() const;
  double Top1Agreement() const;
};

// -ln of the probability that soft-capped logits give to `token`. Sums in double. ToolError if
// there is no such token.
double NegativeLogLikelihood(std::span<const float> logits, int32_t token);

// Adds one sequence, which is run in a session that is reset first.
void AddScore(Session& session, std::span<const int32_t> tokens, Score* score);

// The same for two models of one vocabulary, a few tokens at a time.
void AddDivergence(Session& model, Session& reference, std::span<const int32_t> tokens,
                   Divergence* divergence);

}  // namespace nestling::cli
