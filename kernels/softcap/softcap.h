// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace nestling::kernels {

// In place: x[i] = cap * tanh(x[i] / cap), cap > 0 (30 for Gemma 3n's logits). The error is at most
// 1.8e-7 * cap. Rows of n floats. No alignment needed; touches only [0, n).
void SoftCap(float* x, size_t n, float cap);

struct SoftCapKernel {
  const char* name;
  uint32_t needs_isa;
  void (*soft_cap)(float* x, size_t n, float cap);
};

// Every variant that is compiled in, best first; the last is scalar, the definition of correct.
std::span<const SoftCapKernel* const> SoftCapKernels();

extern const SoftCapKernel kSoftCapScalar;
extern const SoftCapKernel kSoftCapAvx2;
extern const SoftCapKernel kSoftCapAvx512;
extern const SoftCapKernel kSoftCapNeon;

}  // namespace nestling::kernels
