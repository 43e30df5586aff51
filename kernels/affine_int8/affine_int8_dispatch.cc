// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cfloat>
#include <cmath>

#include "kernels/affine_int8/affine_int8.h"
#include "kernels/dispatch.h"

namespace nestling::kernels {
namespace {

constexpr const AffineInt8Kernel* kTable[] = {
// best first
#if defined(__x86_64__)
    &kAffineInt8Avx512, &kAffineInt8Avx2,
#elif defined(__aarch64__)
    &kAffineInt8Neon,
#endif
    &kAffineInt8Scalar,  // the definition of correct; always last
};

const AffineInt8Kernel& Best() {
  static const AffineInt8Kernel& best = SelectKernel<AffineInt8Kernel>(kTable, AvailableIsa());
  return best;
}

}  // namespace

std::span<const AffineInt8Kernel* const> AffineInt8Kernels() { return kTable; }

AffineInt8 AffineOf(const ValueRange& range) {
  const float width = range.highest - range.lowest;
  // Written so that a NaN and an overflow take the first branch, as 0 does.
  if (!(width > 0.0f && width <= FLT_MAX)) return {};
  AffineInt8 affine;
  affine.scale = std::max(width / 255.0f, FLT_MIN);
  const float zero_point = std::nearbyint(-128.0f - range.lowest / affine.scale);
  affine.zero_point = static_cast<int32_t>(std::clamp(zero_point, -128.0f, 127.0f));
  return affine;
}

void WidenRange(const float* x, size_t n, ValueRange* range) { Best().widen_range(x, n, range); }

void QuantizeAffine(const float* x, size_t n, const AffineInt8& affine, int8_t* codes) {
  Best().quantize(x, n, affine, codes);
}

}  // namespace nestling::kernels
