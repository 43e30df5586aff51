// SPDX-License-Identifier: Apache-2.0
#include "kernels/dispatch.h"
#include "kernels/softcap/softcap.h"

namespace nestling::kernels {
namespace {

constexpr const SoftCapKernel* kTable[] = {
// best first
#if defined(__x86_64__)
    &kSoftCapAvx512, &kSoftCapAvx2,
#elif defined(__aarch64__)
    &kSoftCapNeon,
#endif
    &kSoftCapScalar,  // the definition of correct; always last
};

const SoftCapKernel& Best() {
  static const SoftCapKernel& best = SelectKernel<SoftCapKernel>(kTable, AvailableIsa());
  return best;
}

}  // namespace

std::span<const SoftCapKernel* const> SoftCapKernels() { return kTable; }

void SoftCap(float* x, size_t n, float cap) { Best().soft_cap(x, n, cap); }

}  // namespace nestling::kernels
