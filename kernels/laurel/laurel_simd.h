// SPDX-License-Identifier: Apache-2.0
// The algorithm of every SIMD variant; included once by each of them.
#pragma once

#include "kernels/laurel/laurel.h"
#include "kernels/simd/loops.h"

namespace nestling::kernels {
namespace {

void CombineSimd(const float* pred, const float* attn, const float* attn_norm_w, const float* x,
                 const float* laurel, const float* laurel_norm_w, float* u, size_t d, float eps) {
  const F32 attn_scale = Set(InverseRms(SumSquares(attn, d), d, eps));
  const F32 laurel_scale = Set(InverseRms(SumSquares(laurel, d), d, eps));
  const F32 inverse_sqrt2 = Set(0.70710678f);
  ForVectors(d, [=](size_t i, auto lanes) {
    const F32 attn_scaled = Load(attn + i, lanes) * attn_scale;
    const F32 laurel_scaled = Load(laurel + i, lanes) * laurel_scale;
    const F32 left = MulAdd(attn_scaled, Load(attn_norm_w + i, lanes), Load(pred + i, lanes));
    const F32 right = MulAdd(laurel_scaled, Load(laurel_norm_w + i, lanes), Load(x + i, lanes));
    Store(u + i, (left + right) * inverse_sqrt2, lanes);
  });
}

}  // namespace
}  // namespace nestling::kernels
