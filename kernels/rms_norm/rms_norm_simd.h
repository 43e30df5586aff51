// SPDX-License-Identifier: Apache-2.0
// The algorithm of every SIMD variant; included once by each of them.
#pragma once

#include "kernels/rms_norm/rms_norm.h"
#include "kernels/simd/loops.h"

namespace nestling::kernels {
namespace {

float MeanSquareSimd(const float* x, size_t n) { return SumSquares(x, n) / static_cast<float>(n); }

void RmsNormSimd(const float* x, const float* w, float* y, size_t n, float eps) {
  const F32 scale = Set(InverseRms(SumSquares(x, n), n, eps));
  ForVectors(n, [=](size_t i, auto lanes) {
    F32 normed = Load(x + i, lanes) * scale;
    if (w != nullptr) normed = normed * Load(w + i, lanes);
    Store(y + i, normed, lanes);
  });
}

void RmsNormAddSimd(const float* x, const float* w, float* y, size_t n, float eps) {
  const F32 scale = Set(InverseRms(SumSquares(x, n), n, eps));
  ForVectors(n, [=](size_t i, auto lanes) {
    F32 normed = Load(x + i, lanes) * scale;
    if (w != nullptr) normed = normed * Load(w + i, lanes);
    Store(y + i, Load(y + i, lanes) + normed, lanes);
  });
}

void ScaleSimd(float* x, float factor, size_t n) {
  const F32 by = Set(factor);
  ForVectors(n, [=](size_t i, auto lanes) { Store(x + i, Load(x + i, lanes) * by, lanes); });
}

}  // namespace
}  // namespace nestling::kernels
