// SPDX-License-Identifier: Apache-2.0
// The algorithm of every SIMD variant; included once by each of them.
#pragma once

#include "kernels/channel_norm/channel_norm.h"
#include "kernels/simd/loops.h"
#include "kernels/simd/math.h"

namespace nestling::kernels {
namespace {

void RmsNormGeluSimd(const float* x, const float* w, float* y, size_t n, float eps) {
  const F32 scale = Set(InverseRms(SumSquares(x, n), n, eps));
  ForVectors(n, [=](size_t i, auto lanes) {
    Store(y + i, GeluTanh(Load(x + i, lanes) * scale * Load(w + i, lanes)), lanes);
  });
}

void RmsNormResidualSimd(const float* x, const float* w, const float* residual, float* y, size_t n,
                         float eps) {
  const F32 scale = Set(InverseRms(SumSquares(x, n), n, eps));
  ForVectors(n, [=](size_t i, auto lanes) {
    const F32 normed = Load(x + i, lanes) * scale * Load(w + i, lanes);
    Store(y + i, Load(residual + i, lanes) + normed, lanes);
  });
}

void ScaleResidualSimd(const float* x, const float* w, const float* residual, float* y, size_t n) {
  ForVectors(n, [=](size_t i, auto lanes) {
    Store(y + i, MulAdd(Load(x + i, lanes), Load(w + i, lanes), Load(residual + i, lanes)), lanes);
  });
}

}  // namespace
}  // namespace nestling::kernels
