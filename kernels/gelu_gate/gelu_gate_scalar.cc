// SPDX-License-Identifier: Apache-2.0
#include <cmath>

#include "kernels/gelu_gate/gelu_gate.h"
#include "kernels/isa.h"

namespace nestling::kernels {
namespace {

// 0.5 * (1 + tanh(u)) = 1 / (1 + exp(-2u)): no cancellation for negative x, where 1 + tanh would
// lose every digit. exp may overflow to infinity; the quotient is then -0, as it should be.
float Gelu(float x) {
  constexpr float kTwiceSqrt2OverPi = 1.59576912f;
  const float twice_u = kTwiceSqrt2OverPi * (x + 0.044715f * x * x * x);
  return x / (1.0f + std::exp(-twice_u));
}

void GeluGateScalar(const float* gate, const float* up, float* out, size_t n) {
  for (size_t i = 0; i < n; ++i) out[i] = Gelu(gate[i]) * up[i];
}

void SparseGeluGateScalar(const float* gate, const float* up, float* out, size_t n, float cut) {
  for (size_t i = 0; i < n; ++i) {
    const float kept = gate[i] > cut ? gate[i] - cut : 0.0f;
    out[i] = Gelu(kept) * up[i];
  }
}

float SumScalar(const float* x, size_t n) {
  float sum = 0.0f;
  for (size_t i = 0; i < n; ++i) sum += x[i];
  return sum;
}

float SumSquaredDeviationScalar(const float* x, size_t n, float mean) {
  float sum = 0.0f;
  for (size_t i = 0; i < n; ++i) sum += (x[i] - mean) * (x[i] - mean);
  return sum;
}

}  // namespace

const GeluGateKernel kGeluGateScalar = {"scalar",        kIsaNone,
                                        &GeluGateScalar, &SparseGeluGateScalar,
                                        &SumScalar,      &SumSquaredDeviationScalar};

}  // namespace nestling::kernels
