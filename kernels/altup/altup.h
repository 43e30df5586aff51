// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace nestling::kernels {

// AltUp (arXiv:2301.13310) as Gemma 3n uses it: n residual streams of d floats per token, of which
// one, `active`, passes through the layer. One token per call; 2 <= n <= kMaxAltupStreams, n = 4 is
// the fast path. No alignment needed; touches only the stated ranges.
inline constexpr size_t kMaxAltupStreams = 8;

// modalities[k] = tanh(sum_i router[k][i] * t[i] / d), t = x * norm_w / sqrt(mean(x^2) + eps).
// x, norm_w: [d]; router: [n, d]; modalities: [n].
void AltupRouter(const float* x, const float* norm_w, const float* router, float* modalities,
                 size_t n, size_t d, float eps);

// In place: streams[i] += sum_k coefs[i * n + k] * streams[k], from the old values of every stream.
// streams: n pointers to [d], no overlap; coefs: [n, n], the output stream is the slow index.
void AltupPredict(float* const* streams, const float* coefs, size_t n, size_t d);

// In place: streams[i] += coefs[i] * (activated - streams[active]), from the old active stream;
// then gate_input = streams[active] (new) * scale.
// activated, gate_input: [d]; coefs: [n], the + 1 of the model already added; scale: [d] or null
// (1). gate_input may equal activated; no other overlap.
void AltupCorrect(float* const* streams, const float* activated, const float* coefs, size_t n,
                  size_t active, const float* scale, float* gate_input, size_t d);

struct AltupKernel {
  const char* name;
  uint32_t needs_isa;
  void (*router)(const float* x, const float* norm_w, const float* router, float* modalities,
                 size_t n, size_t d, float eps);
  void (*predict)(float* const* streams, const float* coefs, size_t n, size_t d);
  void (*correct)(float* const* streams, const float* activated, const float* coefs, size_t n,
                  size_t active, const float* scale, float* gate_input, size_t d);
};

// Every variant that is compiled in, best first; the last is scalar, the definition of correct.
std::span<const AltupKernel* const> AltupKernels();

extern const AltupKernel kAltupScalar;
extern const AltupKernel kAltupAvx2;
extern const AltupKernel kAltupAvx512;
extern const AltupKernel kAltupNeon;

}  // namespace nestling::kernels
