// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>

#include "kernels/affine_int8/affine_int8.h"
#include "kernels/isa.h"

namespace nestling::kernels {
namespace {

void WidenRangeScalar(const float* x, size_t n, ValueRange* range) {
  for (size_t i = 0; i < n; ++i) {
    range->lowest = std::min(range->lowest, x[i]);
    range->highest = std::max(range->highest, x[i]);
  }
}

void QuantizeScalar(const float* x, size_t n, const AffineInt8& affine, int8_t* codes) {
  const float inverse = 1.0f / affine.scale;
  const float zero_point = static_cast<float>(affine.zero_point);
  for (size_t i = 0; i < n; ++i) {
    const float code = std::nearbyint(x[i] * inverse) + zero_point;
    // A NaN compares false and becomes the lowest code.
    codes[i] = static_cast<int8_t>(code > -128.0f ? std::min(code, 127.0f) : -128.0f);
  }
}

}  // namespace

const AffineInt8Kernel kAffineInt8Scalar = {"scalar", kIsaNone, &WidenRangeScalar,
                                            &QuantizeScalar};

}  // namespace nestling::kernels
