// SPDX-License-Identifier: Apache-2.0
// The algorithm of every SIMD variant; included once by each of them.
#pragma once

#include "kernels/norm_rope/norm_rope.h"
#include "kernels/simd/loops.h"

namespace nestling::kernels {
namespace {

void NormRopeSimd(const float* x, const float* w, const float* cos, const float* sin, float* y,
                  size_t head_dim, float eps) {
  const F32 scale = Set(InverseRms(SumSquares(x, head_dim), head_dim, eps));
  const size_t half = head_dim / 2;
  ForVectors(half, [=](size_t i, auto lanes) {
    const F32 low = Load(x + i, lanes) * scale * Load(w + i, lanes);
    const F32 high = Load(x + half + i, lanes) * scale * Load(w + half + i, lanes);
    const F32 c = Load(cos + i, lanes);
    const F32 s = Load(sin + i, lanes);
    Store(y + i, NegMulAdd(high, s, low * c), lanes);
    Store(y + half + i, MulAdd(low, s, high * c), lanes);
  });
}

}  // namespace
}  // namespace nestling::kernels
