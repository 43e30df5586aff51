// SPDX-License-Identifier: Apache-2.0
// The algorithm of every SIMD variant; included once by each of them.
#pragma once

#include "kernels/simd/loops.h"
#include "kernels/simd/math.h"
#include "kernels/softcap/softcap.h"

namespace nestling::kernels {
namespace {

void SoftCapSimd(float* x, size_t n, float cap) {
  const F32 limit = Set(cap);
  ForVectors(n, [=](size_t i, auto lanes) {
    Store(x + i, limit * Tanh(Load(x + i, lanes) / limit), lanes);
  });
}

}  // namespace
}  // namespace nestling::kernels
