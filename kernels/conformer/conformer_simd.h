// SPDX-License-Identifier: Apache-2.0
// The algorithm of every SIMD variant; included once by each of them.
#pragma once

#include "kernels/conformer/conformer.h"
#include "kernels/simd/loops.h"
#include "kernels/simd/math.h"

namespace nestling::kernels {
namespace {

inline F32 Gated(F32 x, F32 gate) { return x / (Set(1.0f) + Exp(Set(0.0f) - gate)); }

void SiluSimd(float* x, size_t n) {
  ForVectors(n, [=](size_t i, auto lanes) {
    const F32 value = Load(x + i, lanes);
    Store(x + i, Gated(value, value), lanes);
  });
}

void GluSimd(const float* x, float* y, size_t n) {
  ForVectors(n, [=](size_t i, auto lanes) {
    Store(y + i, Gated(Load(x + i, lanes), Load(x + n + i, lanes)), lanes);
  });
}

void DepthwiseStepSimd(const float* x, size_t stride, const float* taps, size_t num_taps, float* y,
                       size_t n) {
  ForVectors(n, [=](size_t i, auto lanes) {
    F32 sum = Set(0.0f);
    for (size_t t = 0; t < num_taps; ++t) {
      sum = MulAdd(Load(taps + t * n + i, lanes), Load(x + t * stride + i, lanes), sum);
    }
    Store(y + i, sum, lanes);
  });
}

void LocalAttentionSimd(const LocalAttentionArgs& args) {
  float weights[kMaxLocalKeys];
  const float* const q = args.q;
  for (size_t d = 0; d < args.num_keys; ++d) {
    const float* const k = args.k - d * args.stride;
    const float* const p = args.positions + d * args.position_stride;
    weights[d] = SumVectors(args.head_dim, [=](size_t i, auto lanes, F32 sum) {
      return MulAdd(Load(q + i, lanes), Load(k + i, lanes) + Load(p + i, lanes), sum);
    });
  }
  // No score exceeds the cap, and exp() of scores that differ by more than 87 is 0 in every
  // variant.
  const F32 cap = Set(args.cap), inverse_cap = Set(1.0f / args.cap);
  float* const w = weights;
  ForVectors(args.num_keys, [=](size_t i, auto lanes) {
    Store(w + i, cap * Tanh(Load(w + i, lanes) * inverse_cap), lanes);
  });
  float highest = -__builtin_inff();
  for (size_t d = 0; d < args.num_keys; ++d) highest = weights[d] > highest ? weights[d] : highest;
  const F32 offset = Set(highest);
  ForVectors(args.num_keys,
             [=](size_t i, auto lanes) { Store(w + i, Exp(Load(w + i, lanes) - offset), lanes); });
  float total = 0.0f;
  for (size_t d = 0; d < args.num_keys; ++d) total += weights[d];
  const F32 scale = Set(1.0f / total);
  const float* const v = args.v;
  float* const out = args.out;
  const size_t num_keys = args.num_keys, stride = args.stride;
  ForVectors(args.head_dim, [=](size_t i, auto lanes) {
    F32 sum = Set(0.0f);
    for (size_t d = 0; d < num_keys; ++d) {
      sum = MulAdd(Set(w[d]), Load(v - d * stride + i, lanes), sum);
    }
    Store(out + i, sum * scale, lanes);
  });
}

}  // namespace
}  // namespace nestling::kernels
