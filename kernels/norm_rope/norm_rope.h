// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace nestling::kernels {

// RMSNorm of one head, then rotary position embedding in the "NeoX" half-split layout: with
// h = head_dim / 2 and t = x * w / sqrt(mean(x^2) + eps),
//   y[i]     = t[i] * cos[i] - t[i + h] * sin[i]
//   y[i + h] = t[i + h] * cos[i] + t[i] * sin[i]      for i in [0, h).
// x, w, y: [head_dim]; cos, sin: [head_dim / 2] of this position. head_dim is even, >= 2.
// y may equal x, else no overlap. No alignment needed; touches only the stated ranges.
void NormRope(const float* x, const float* w, const float* cos, const float* sin, float* y,
              size_t head_dim, float eps);

struct NormRopeKernel {
  const char* name;
  uint32_t needs_isa;
  void (*norm_rope)(const float* x, const float* w, const float* cos, const float* sin, float* y,
                    size_t head_dim, float eps);
};

// Every variant that is compiled in, best first; the last is scalar, the definition of correct.
std::span<const NormRopeKernel* const> NormRopeKernels();

extern const NormRopeKernel kNormRopeScalar;
extern const NormRopeKernel kNormRopeAvx2;
extern const NormRopeKernel kNormRopeAvx512;
extern const NormRopeKernel kNormRopeNeon;

}  // namespace nestling::kernels
