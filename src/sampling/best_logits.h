// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "sampling/candidates.h"

namespace nestling {

// The best of all logits that it was offered, whatever their order. Ids must differ. NaN and
// -infinity are not kept.
class BestLogits {
 public:
  // Most that Reset(count) allocates.
  static constexpr size_t Bytes(size_t count) { return 2 * count * sizeof(TokenLogit); }

  // Begins again with none. Allocates if `count` is more than ever before.
  void Reset(size_t count);

  // Logits below it are not taken, those at least as high may be. Only rises, until Reset.
  float threshold() const { return threshold_; }
  void Offer(const TokenLogit& token);

  // At most `count`, in no order. Valid until the next offer.
  std::span<const TokenLogit> Best();

 private:
  void DropWorst();

  size_t count_ = 0;
  float threshold_ = 0.0f;
  // Up to twice as many as wanted: sorting out half of them at a time costs less than keeping them
  // in order.
  std::vector<TokenLogit> tokens_;
};

}  // namespace nestling
