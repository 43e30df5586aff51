// SPDX-License-Identifier: Apache-2.0
#include "kernels/dispatch.h"
#include "kernels/gelu_gate/gelu_gate.h"

namespace nestling::kernels {
namespace {

constexpr const GeluGateKernel* kTable[] = {
// best first
#if defined(__x86_64__)
    &kGeluGateAvx512, &kGeluGateAvx2,
#elif defined(__aarch64__)
    &kGeluGateNeon,
#endif
    &kGeluGateScalar,  // the definition of correct; always last
};

const GeluGateKernel& Best() {
  static const GeluGateKernel& best = SelectKernel<GeluGateKernel>(kTable, AvailableIsa());
  return best;
}

}  // namespace

std::span<const GeluGateKernel* const> GeluGateKernels() { return kTable; }

void GeluGate(const float* gate, const float* up, float* out, size_t n) {
  Best().gelu_gate(gate, up, out, n);
}

void SparseGeluGate(const float* gate, const float* up, float* out, size_t n, float cut) {
  Best().sparse_gelu_gate(gate, up, out, n, cut);
}

float Sum(const float* x, size_t n) { return Best().sum(x, n); }

float SumSquaredDeviation(const float* x, size_t n, float mean) {
  return Best().sum_squared_deviation(x, n, mean);
}

}  // namespace nestling::kernels
