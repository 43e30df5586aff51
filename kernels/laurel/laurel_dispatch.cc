// SPDX-License-Identifier: Apache-2.0
#include "kernels/dispatch.h"
#include "kernels/laurel/laurel.h"

namespace nestling::kernels {
namespace {

constexpr const LaurelKernel* kTable[] = {
// best first
#if defined(__x86_64__)
    &kLaurelAvx512, &kLaurelAvx2,
#elif defined(__aarch64__)
    &kLaurelNeon,
#endif
    &kLaurelScalar,  // the definition of correct; always last
};

const LaurelKernel& Best() {
  static const LaurelKernel& best = SelectKernel<LaurelKernel>(kTable, AvailableIsa());
  return best;
}

}  // namespace

std::span<const LaurelKernel* const> LaurelKernels() { return kTable; }

void CombineAttentionLaurel(const float* pred, const float* attn, const float* attn_norm_w,
                            const float* x, const float* laurel, const float* laurel_norm_w,
                            float* u, size_t d, float eps) {
  Best().combine(pred, attn, attn_norm_w, x, laurel, laurel_norm_w, u, d, eps);
}

}  // namespace nestling::kernels
