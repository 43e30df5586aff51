// SPDX-License-Identifier: Apache-2.0
#include "sampling/best_logits.h"

#include <algorithm>
#include <limits>

namespace nestling {

void BestLogits::Reset(size_t count) {
  count_ = count;
  tokens_.clear();
  tokens_.reserve(2 * count);
  threshold_ = std::numeric_limits<float>::lowest();
}

void BestLogits::Offer(const TokenLogit& token) {
  if (!(token.logit >= threshold_) || count_ == 0) return;
  tokens_.push_back(token);
  if (tokens_.size() == 2 * count_) DropWorst();
}

std::span<const TokenLogit> BestLogits::Best() {
  if (tokens_.size() > count_) DropWorst();
  return tokens_;
}

void BestLogits::DropWorst() {
  const auto worst_kept = tokens_.begin() + static_cast<ptrdiff_t>(count_ - 1);
  std::nth_element(tokens_.begin(), worst_kept, tokens_.end(), BetterLogit);
  threshold_ = worst_kept->logit;
  tokens_.resize(count_);
}

}  // namespace nestling
