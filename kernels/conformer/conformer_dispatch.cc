// SPDX-License-Identifier: Apache-2.0
#include "kernels/conformer/conformer.h"
#include "kernels/dispatch.h"

namespace nestling::kernels {
namespace {

constexpr const ConformerKernel* kTable[] = {
// best first
#if defined(__x86_64__)
    &kConformerAvx512, &kConformerAvx2,
#elif defined(__aarch64__)
    &kConformerNeon,
#endif
    &kConformerScalar,  // the definition of correct; always last
};

const ConformerKernel& Best() {
  static const ConformerKernel& best = SelectKernel<ConformerKernel>(kTable, AvailableIsa());
  return best;
}

}  // namespace

std::span<const ConformerKernel* const> ConformerKernels() { return kTable; }

void Silu(float* x, size_t n) { Best().silu(x, n); }

void Glu(const float* x, float* y, size_t n) { Best().glu(x, y, n); }

void DepthwiseStep(const float* x, size_t stride, const float* taps, size_t num_taps, float* y,
                   size_t n) {
  Best().depthwise_step(x, stride, taps, num_taps, y, n);
}

void LocalAttention(const LocalAttentionArgs& args) { Best().local_attention(args); }

}  // namespace nestling::kernels
