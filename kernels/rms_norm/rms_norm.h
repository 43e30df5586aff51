// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace nestling::kernels {

// One row of n >= 1 floats each. No alignment needed; touches only [0, n); sums in f32.

// y[i] = x[i] * w[i] / sqrt(mean(x^2) + eps). `w` may be null: no scale (w = 1).
// Gemma 3n scales by w, not by 1 + w as Gemma 1-3 do. y may equal x, else no overlap.
void RmsNorm(const float* x, const float* w, float* y, size_t n, float eps);

// y[i] += x[i] * w[i] / sqrt(mean(x^2) + eps). `w` may be null. No overlap of x and y.
void RmsNormAdd(const float* x, const float* w, float* y, size_t n, float eps);

// mean(x^2).
float MeanSquare(const float* x, size_t n);

// x[i] *= factor.
void Scale(float* x, float factor, size_t n);

struct RmsNormKernel {
  const char* name;
  uint32_t needs_isa;
  void (*rms_norm)(const float* x, const float* w, float* y, size_t n, float eps);
  void (*rms_norm_add)(const float* x, const float* w, float* y, size_t n, float eps);
  float (*mean_square)(const float* x, size_t n);
  void (*scale)(float* x, float factor, size_t n);
};

// Every variant that is compiled in, best first; the last is scalar, the definition of correct.
std::span<const RmsNormKernel* const> RmsNormKernels();

extern const RmsNormKernel kRmsNormScalar;
extern const RmsNormKernel kRmsNormAvx2;
extern const RmsNormKernel kRmsNormAvx512;
extern const RmsNormKernel kRmsNormNeon;

}  // namespace nestling::kernels
