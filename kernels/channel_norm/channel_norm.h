// SPDX-License-Identifier: Apache-2.0
// The steps of MobileNet-V5 between two convolutions: RMS norm over the channels of one pixel, with
// what follows it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace nestling::kernels {

// One pixel of n >= 1 channels each. No alignment needed; touches only [0, n); sums in f32.
// norm(x)[i] = x[i] * w[i] / sqrt(mean(x^2) + eps).

// y = gelu(norm(x)), GELU in its tanh form (gelu_gate.h states its error). y may equal x, else no
// overlap.
void RmsNormGelu(const float* x, const float* w, float* y, size_t n, float eps);

// y = residual + norm(x). y may equal x or residual, else no overlap.
void RmsNormResidual(const float* x, const float* w, const float* residual, float* y, size_t n,
                     float eps);

// y = residual + x * w. y may equal x or residual, else no overlap.
void ScaleResidual(const float* x, const float* w, const float* residual, float* y, size_t n);

struct ChannelNormKernel {
  const char* name;
  uint32_t needs_isa;
  void (*rms_norm_gelu)(const float* x, const float* w, float* y, size_t n, float eps);
  void (*rms_norm_residual)(const float* x, const float* w, const float* residual, float* y,
                            size_t n, float eps);
  void (*scale_residual)(const float* x, const float* w, const float* residual, float* y,
                         size_t n);
};

// Every variant that is compiled in, best first; the last is scalar, the definition of correct.
std::span<const ChannelNormKernel* const> ChannelNormKernels();

extern const ChannelNormKernel kChannelNormScalar;
extern const ChannelNormKernel kChannelNormAvx2;
extern const ChannelNormKernel kChannelNormAvx512;
extern const ChannelNormKernel kChannelNormNeon;

}  // namespace nestling::kernels
