// SPDX-License-Identifier: Apache-2.0
#include "kernels/altup/altup.h"
#include "kernels/dispatch.h"

namespace nestling::kernels {
namespace {

constexpr const AltupKernel* kTable[] = {
// best first
#if defined(__x86_64__)
    &kAltupAvx512, &kAltupAvx2,
#elif defined(__aarch64__)
    &kAltupNeon,
#endif
    &kAltupScalar,  // the definition of correct; always last
};

const AltupKernel& Best() {
  static const AltupKernel& best = SelectKernel<AltupKernel>(kTable, AvailableIsa());
  return best;
}

}  // namespace

std::span<const AltupKernel* const> AltupKernels() { return kTable; }

void AltupRouter(const float* x, const float* norm_w, const float* router, float* modalities,
                 size_t n, size_t d, float eps) {
  Best().router(x, norm_w, router, modalities, n, d, eps);
}

void AltupPredict(float* const* streams, const float* coefs, size_t n, size_t d) {
  Best().predict(streams, coefs, n, d);
}

void AltupCorrect(float* const* streams, const float* activated, const float* coefs, size_t n,
                  size_t active, const float* scale, float* gate_input, size_t d) {
  Best().correct(streams, activated, coefs, n, active, scale, gate_input, d);
}

}  // namespace nestling::kernels
