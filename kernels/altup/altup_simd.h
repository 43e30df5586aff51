// SPDX-License-Identifier: Apache-2.0
// The algorithm of every SIMD variant; included once by each of them.
#pragma once

#include "kernels/altup/altup.h"
#include "kernels/simd/loops.h"
#include "kernels/simd/math.h"

namespace nestling::kernels {
namespace {

// The functions below take the number of streams as a template argument, so that the loops over
// streams unroll for the model's 4; kAnyStreams means the run-time n.
constexpr size_t kAnyStreams = 0;
constexpr size_t kFastStreams = 4;

// One pass: the norm's factor is the same for every element, so it is taken out of the dots.
template <size_t kStreams>
void RouterPass(const float* x, const float* norm_w, const float* router, float* modalities,
                size_t runtime_n, size_t d, float eps) {
  const size_t n = kStreams != kAnyStreams ? kStreams : runtime_n;
  constexpr size_t kMax = kStreams != kAnyStreams ? kStreams : kMaxAltupStreams;
  F32 squares = Set(0.0f);
  F32 dots[kMax];
  for (size_t k = 0; k < n; ++k) dots[k] = Set(0.0f);
  ForVectors(d, [&](size_t i, auto lanes) {
    const F32 v = Load(x + i, lanes);
    const F32 weighted = v * Load(norm_w + i, lanes);
    squares = MulAdd(v, v, squares);
    for (size_t k = 0; k < n; ++k) {
      dots[k] = MulAdd(weighted, Load(router + k * d + i, lanes), dots[k]);
    }
  });
  const float scale = InverseRms(SumLanes(squares), d, eps) / static_cast<float>(d);
  float sums[kMax > kLanes ? kMax : kLanes] = {};
  for (size_t k = 0; k < n; ++k) sums[k] = SumLanes(dots[k]) * scale;
  ForVectors(
      n, [&](size_t k, auto lanes) { Store(modalities + k, Tanh(Load(sums + k, lanes)), lanes); });
}

template <size_t kStreams>
void PredictPass(float* const* streams, const float* coefs, size_t runtime_n, size_t d) {
  const size_t n = kStreams != kAnyStreams ? kStreams : runtime_n;
  constexpr size_t kMax = kStreams != kAnyStreams ? kStreams : kMaxAltupStreams;
  float* s[kMax];
  for (size_t k = 0; k < n; ++k) s[k] = streams[k];
  ForVectors(d, [&](size_t j, auto lanes) {
    F32 old[kMax];
    for (size_t k = 0; k < n; ++k) old[k] = Load(s[k] + j, lanes);
    for (size_t i = 0; i < n; ++i) {
      F32 sum = old[i];
      for (size_t k = 0; k < n; ++k) sum = MulAdd(Set(coefs[i * n + k]), old[k], sum);
      Store(s[i] + j, sum, lanes);
    }
  });
}

template <size_t kStreams>
void CorrectPass(float* const* streams, const float* activated, const float* coefs,
                 size_t runtime_n, size_t active, const float* scale, float* gate_input, size_t d) {
  const size_t n = kStreams != kAnyStreams ? kStreams : runtime_n;
  constexpr size_t kMax = kStreams != kAnyStreams ? kStreams : kMaxAltupStreams;
  float* s[kMax];
  F32 c[kMax];
  for (size_t k = 0; k < n; ++k) {
    s[k] = streams[k];
    c[k] = Set(coefs[k]);
  }
  const float* active_stream = streams[active];
  const F32 active_c = Set(coefs[active]);
  ForVectors(d, [&](size_t j, auto lanes) {
    const F32 old_active = Load(active_stream + j, lanes);
    const F32 innovation = Load(activated + j, lanes) - old_active;
    // All loads come first: streams are often a multiple of 4 KiB apart, where a load waits for an
    // earlier store to what the CPU takes for the same address.
    F32 next[kMax];
    for (size_t k = 0; k < n; ++k) next[k] = MulAdd(c[k], innovation, Load(s[k] + j, lanes));
    F32 gate = MulAdd(active_c, innovation, old_active);  // the same as next[active]
    if (scale != nullptr) gate = gate * Load(scale + j, lanes);
    for (size_t k = 0; k < n; ++k) Store(s[k] + j, next[k], lanes);
    Store(gate_input + j, gate, lanes);
  });
}

void AltupRouterSimd(const float* x, const float* norm_w, const float* router, float* modalities,
                     size_t n, size_t d, float eps) {
  auto* pass = n == kFastStreams ? &RouterPass<kFastStreams> : &RouterPass<kAnyStreams>;
  pass(x, norm_w, router, modalities, n, d, eps);
}

void AltupPredictSimd(float* const* streams, const float* coefs, size_t n, size_t d) {
  auto* pass = n == kFastStreams ? &PredictPass<kFastStreams> : &PredictPass<kAnyStreams>;
  pass(streams, coefs, n, d);
}

void AltupCorrectSimd(float* const* streams, const float* activated, const float* coefs, size_t n,
                      size_t active, const float* scale, float* gate_input, size_t d) {
  auto* pass = n == kFastStreams ? &CorrectPass<kFastStreams> : &CorrectPass<kAnyStreams>;
  pass(streams, activated, coefs, n, active, scale, gate_input, d);
}

}  // namespace
}  // namespace nestling::kernels
