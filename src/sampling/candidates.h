// SPDX-License-Identifier: Apache-2.0
// Choosing a token without all logits: what a Sampler asks for, and what it is answered.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace nestling {

struct TokenLogit {
  int32_t id = 0;
  float logit = 0.0f;
};

// The order of candidates: higher logits first, equal ones by id.
inline bool BetterLogit(const TokenLogit& a, const TokenLogit& b) {
  return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
}

// Of the logits below some limit, enough for the next token.
struct CandidateQuery {
  size_t num_best = 0;           // so many of the best ones,
  std::span<const int32_t> ids;  // and these, ascending
};

// Logits are soft-capped, and it is then that they are compared: of tokens whose logits become
// equal by it, the lowest ids are the best, as for who sees all logits.
struct Candidates {
  // The query's num_best, in any order; fewer only if no more are above -infinity. No NaN.
  std::span<const TokenLogit> best;
  std::span<const float> logits;  // of the query's ids
};

}  // namespace nestling
