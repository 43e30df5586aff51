// SPDX-License-Identifier: Apache-2.0
// The algorithm of every SIMD variant; included once by each of them.
#pragma once

#include "kernels/gelu_gate/gelu_gate.h"
#include "kernels/simd/loops.h"
#include "kernels/simd/math.h"

namespace nestling::kernels {
namespace {

void GeluGateSimd(const float* gate, const float* up, float* out, size_t n) {
  ForVectors(n, [=](size_t i, auto lanes) {
    Store(out + i, GeluTanh(Load(gate + i, lanes)) * Load(up + i, lanes), lanes);
  });
}

void SparseGeluGateSimd(const float* gate, const float* up, float* out, size_t n, float cut) {
  const F32 by = Set(cut);
  ForVectors(n, [=](size_t i, auto lanes) {
    const F32 kept = Max(Load(gate + i, lanes) - by, Set(0.0f));
    Store(out + i, GeluTanh(kept) * Load(up + i, lanes), lanes);
  });
}

float SumSimd(const float* x, size_t n) {
  return SumVectors(n, [x](size_t i, auto lanes, F32 sum) { return sum + Load(x + i, lanes); });
}

float SumSquaredDeviationSimd(const float* x, size_t n, float mean) {
  const F32 center = Set(mean);
  return SumVectors(n, [=](size_t i, auto lanes, F32 sum) {
    const F32 deviation = Keep(Load(x + i, lanes) - center, lanes);
    return MulAdd(deviation, deviation, sum);
  });
}

}  // namespace
}  // namespace nestling::kernels
