// SPDX-License-Identifier: Apache-2.0
#include "kernels/dispatch.h"
#include "kernels/sparse_ffn/sparse_ffn.h"

namespace nestling::kernels {
namespace {

constexpr const SparseFfnKernel* kTable[] = {
// best first
#if defined(__x86_64__)
    &kSparseFfnAvx512vnni, &kSparseFfnAvx2,
#elif defined(__aarch64__)
    &kSparseFfnNeondot,
#endif
    &kSparseFfnScalar,  // the definition of correct; always last
};

const SparseFfnKernel& Best() {
  static const SparseFfnKernel& best = SelectKernel<SparseFfnKernel>(kTable, AvailableIsa());
  return best;
}

}  // namespace

std::span<const SparseFfnKernel* const> SparseFfnKernels() { return kTable; }

size_t SelectNeurons(const float* gate, size_t n, float cut, uint32_t first, uint32_t* neurons,
                     float* values) {
  return Best().select(gate, n, cut, first, neurons, values);
}

void NeuronDots(const NeuronRows& rows, const NeuronInputs& x, const NeuronUse* uses, size_t count,
                float* out) {
  Best().dots(rows, x, uses, count, out);
}

void SumNeurons(const NeuronRows& rows, const uint32_t* neurons, const float* factors, size_t count,
                size_t begin, size_t end, float* out) {
  Best().sum(rows, neurons, factors, count, begin, end, out);
}

void SumNeuronsOfTokens(const NeuronSums& sums) { Best().sum_of_tokens(sums); }

}  // namespace nestling::kernels
