// SPDX-License-Identifier: Apache-2.0
#include "kernels/channel_norm/channel_norm.h"
#include "kernels/dispatch.h"

namespace nestling::kernels {
namespace {

constexpr const ChannelNormKernel* kTable[] = {
// best first
#if defined(__x86_64__)
    &kChannelNormAvx512, &kChannelNormAvx2,
#elif defined(__aarch64__)
    &kChannelNormNeon,
#endif
    &kChannelNormScalar,  // the definition of correct; always last
};

const ChannelNormKernel& Best() {
  static const ChannelNormKernel& best = SelectKernel<ChannelNormKernel>(kTable, AvailableIsa());
  return best;
}

}  // namespace

std::span<const ChannelNormKernel* const> ChannelNormKernels() { return kTable; }

void RmsNormGelu(const float* x, const float* w, float* y, size_t n, float eps) {
  Best().rms_norm_gelu(x, w, y, n, eps);
}

void RmsNormResidual(const float* x, const float* w, const float* residual, float* y, size_t n,
                     float eps) {
  Best().rms_norm_residual(x, w, residual, y, n, eps);
}

void ScaleResidual(const float* x, const float* w, const float* residual, float* y, size_t n) {
  Best().scale_residual(x, w, residual, y, n);
}

}  // namespace nestling::kernels
