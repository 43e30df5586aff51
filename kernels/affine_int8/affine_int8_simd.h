// SPDX-License-Identifier: Apache-2.0
// The algorithm of every SIMD variant; included once by each of them.
#pragma once

#include "kernels/affine_int8/affine_int8.h"
#include "kernels/simd/loops.h"

namespace nestling::kernels {
namespace {

void WidenRangeSimd(const float* x, size_t n, ValueRange* range) {
  // Lanes that do not exist load as 0, which is always in the range. Four pairs, so that the
  // comparisons do not wait for each other.
  F32 highest[4], fallen[4];  // fallen: the highest of -x
  for (size_t a = 0; a < 4; ++a) {
    highest[a] = Set(range->highest);
    fallen[a] = Set(-range->lowest);
  }
  const F32 zero = Set(0.0f);
  size_t i = 0;
  for (; i + 4 * kLanes <= n; i += 4 * kLanes) {
#pragma GCC unroll 4
    for (size_t a = 0; a < 4; ++a) {
      const F32 v = Load(x + i + a * kLanes);
      highest[a] = Max(v, highest[a]);
      fallen[a] = Max(zero - v, fallen[a]);
    }
  }
  ForVectors(n - i, [&](size_t j, auto lanes) {
    const F32 v = Load(x + i + j, lanes);
    highest[0] = Max(v, highest[0]);
    fallen[0] = Max(zero - v, fallen[0]);
  });
  range->highest = MaxLane(Max(Max(highest[0], highest[1]), Max(highest[2], highest[3])));
  range->lowest = -MaxLane(Max(Max(fallen[0], fallen[1]), Max(fallen[2], fallen[3])));
}

void QuantizeSimd(const float* x, size_t n, const AffineInt8& affine, int8_t* codes) {
  const F32 inverse = Set(1.0f / affine.scale);
  const F32 zero_point = Set(static_cast<float>(affine.zero_point));
  const F32 lowest = Set(-128.0f), highest = Set(127.0f);
  ForVectors(n, [=](size_t i, auto lanes) {
    const F32 code = RoundToEven(Load(x + i, lanes) * inverse) + zero_point;
    Store(codes + i, Max(Min(code, highest), lowest), lanes);
  });
}

}  // namespace
}  // namespace nestling::kernels
