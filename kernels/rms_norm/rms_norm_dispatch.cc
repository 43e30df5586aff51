// SPDX-License-Identifier: Apache-2.0
#include "kernels/dispatch.h"
#include "kernels/rms_norm/rms_norm.h"

namespace nestling::kernels {
namespace {

constexpr const RmsNormKernel* kTable[] = {
// best first
#if defined(__x86_64__)
    &kRmsNormAvx512, &kRmsNormAvx2,
#elif defined(__aarch64__)
    &kRmsNormNeon,
#endif
    &kRmsNormScalar,  // the definition of correct; always last
};

const RmsNormKernel& Best() {
  static const RmsNormKernel& best = SelectKernel<RmsNormKernel>(kTable, AvailableIsa());
  return best;
}

}  // namespace

std::span<const RmsNormKernel* const> RmsNormKernels() { return kTable; }

void RmsNorm(const float* x, const float* w, float* y, size_t n, float eps) {
  Best().rms_norm(x, w, y, n, eps);
}

void RmsNormAdd(const float* x, const float* w, float* y, size_t n, float eps) {
  Best().rms_norm_add(x, w, y, n, eps);
}

float MeanSquare(const float* x, size_t n) { return Best().mean_square(x, n); }

void Scale(float* x, float factor, size_t n) { Best().scale(x, factor, n); }

}  // namespace nestling::kernels
