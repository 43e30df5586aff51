// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace nestling::kernels {

// gelu(x) = 0.5 * x * (1 + tanh(sqrt(2/pi) * (x + 0.044715 * x^3))), the tanh form of GELU. Its
// error is at most 4e-7 * (1 + |x|) for finite x, and gelu(0) is exactly 0.
// Rows of n floats. No alignment needed; touches only [0, n); sums in f32.

// out[i] = gelu(gate[i]) * up[i]. out may equal gate or up, else no overlap.
void GeluGate(const float* gate, const float* up, float* out, size_t n);

// out[i] = gelu(max(gate[i] - cut, 0)) * up[i]: the gaussian top-k of the sparse layers. Survivors
// are shifted by the cut, not only kept. Exactly 0 (either sign) where gate[i] <= cut and up[i] is
// finite. out may equal gate or up, else no overlap.
void SparseGeluGate(const float* gate, const float* up, float* out, size_t n, float cut);

// For the cut, mean + z * sqrt(SumSquaredDeviation / n): the two passes.
float Sum(const float* x, size_t n);                              // sum(x)
float SumSquaredDeviation(const float* x, size_t n, float mean);  // sum((x - mean)^2)

struct GeluGateKernel {
  const char* name;
  uint32_t needs_isa;
  void (*gelu_gate)(const float* gate, const float* up, float* out, size_t n);
  void (*sparse_gelu_gate)(const float* gate, const float* up, float* out, size_t n, float cut);
  float (*sum)(const float* x, size_t n);
  float (*sum_squared_deviation)(const float* x, size_t n, float mean);
};

// Every variant that is compiled in, best first; the last is scalar, the definition of correct.
std::span<const GeluGateKernel* const> GeluGateKernels();

extern const GeluGateKernel kGeluGateScalar;
extern const GeluGateKernel kGeluGateAvx2;
extern const GeluGateKernel kGeluGateAvx512;
extern const GeluGateKernel kGeluGateNeon;

}  // namespace nestling::kernels
