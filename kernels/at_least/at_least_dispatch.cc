// SPDX-License-Identifier: Apache-2.0
#include "kernels/at_least/at_least.h"
#include "kernels/dispatch.h"

namespace nestling::kernels {
namespace {

constexpr const AtLeastKernel* kTable[] = {
// best first
#if defined(__x86_64__)
    &kAtLeastAvx512, &kAtLeastAvx2,
#elif defined(__aarch64__)
    &kAtLeastNeon,
#endif
    &kAtLeastScalar,  // the definition of correct; always last
};

const AtLeastKernel& Best() {
  static const AtLeastKernel& best = SelectKernel<AtLeastKernel>(kTable, AvailableIsa());
  return best;
}

}  // namespace

std::span<const AtLeastKernel* const> AtLeastKernels() { return kTable; }

size_t FindAtLeast(const float* x, size_t n, float threshold, uint32_t* indices) {
  return Best().find(x, n, threshold, indices);
}

}  // namespace nestling::kernels
