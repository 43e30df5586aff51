// SPDX-License-Identifier: Apache-2.0
#include "kernels/dispatch.h"
#include "kernels/norm_rope/norm_rope.h"

namespace nestling::kernels {
namespace {

constexpr const NormRopeKernel* kTable[] = {
// best first
#if defined(__x86_64__)
    &kNormRopeAvx512, &kNormRopeAvx2,
#elif defined(__aarch64__)
    &kNormRopeNeon,
#endif
    &kNormRopeScalar,  // the definition of correct; always last
};

const NormRopeKernel& Best() {
  static const NormRopeKernel& best = SelectKernel<NormRopeKernel>(kTable, AvailableIsa());
  return best;
}

}  // namespace

std::span<const NormRopeKernel* const> NormRopeKernels() { return kTable; }

void NormRope(const float* x, const float* w, const float* cos, const float* sin, float* y,
              size_t head_dim, float eps) {
  Best().norm_rope(x, w, cos, sin, y, head_dim, eps);
}

}  // namespace nestling::kernels
