// SPDX-License-Identifier: Apache-2.0
#include <cmath>

#include "kernels/convert/convert.h"
#include "kernels/isa.h"
#include "kernels/simd/scalar_half.h"

namespace nestling::kernels {
namespace {

void WidenHalfScalar(const uint16_t* half, float* out, size_t n) {
  for (size_t i = 0; i < n; ++i) out[i] = HalfToFloat(half[i]);
}

void NarrowHalfScalar(const float* x, uint16_t* half, size_t n) {
  for (size_t i = 0; i < n; ++i) half[i] = FloatToHalf(x[i]);
}

float Bf16ToFloat(uint16_t bf16) { return FloatOfBits(static_cast<uint32_t>(bf16) << 16); }

void WidenBf16Scalar(const uint16_t* bf16, float* out, size_t n) {
  for (size_t i = 0; i < n; ++i) out[i] = Bf16ToFloat(bf16[i]);
}

void DequantizeInt8Scalar(const int8_t* codes, float scale, float* out, size_t n) {
  for (size_t i = 0; i < n; ++i) out[i] = static_cast<float>(codes[i]) * scale;
}

void QuantizeInt8Scalar(const float* x, int8_t* codes, float* scale, size_t n) {
  float largest = 0.0f;
  for (size_t i = 0; i < n; ++i) largest = std::fmax(largest, std::fabs(x[i]));
  if (!(largest > kSmallestQuantizedMagnitude)) {
    *scale = 0.0f;
    for (size_t i = 0; i < n; ++i) codes[i] = 0;
    return;
  }
  *scale = largest / 127.0f;
  const float inverse = 127.0f / largest;
  // Not above 127: |x| * (127 / largest) exceeds 127 by a rounding at most.
  for (size_t i = 0; i < n; ++i) codes[i] = static_cast<int8_t>(std::nearbyint(x[i] * inverse));
}

int CodeAt(const uint8_t* nibbles, size_t i) {
  return (i % 2 == 0 ? nibbles[i / 2] & 0xF : nibbles[i / 2] >> 4) - 8;
}

void DequantizeInt4Scalar(const uint8_t* nibbles, float scale, float* out, size_t n) {
  for (size_t i = 0; i < n; ++i) out[i] = static_cast<float>(CodeAt(nibbles, i)) * scale;
}

void DequantizeInt4BlocksScalar(const uint8_t* nibbles, const uint16_t* bf16_scales, float factor,
                                float* out, size_t n) {
  for (size_t i = 0; i < n; ++i) {
    const float scale = Bf16ToFloat(bf16_scales[i / kInt4BlockSize]) * factor;
    out[i] = static_cast<float>(CodeAt(nibbles, i)) * scale;
  }
}

}  // namespace

const ConvertKernel kConvertScalar = {"scalar",
                                      kIsaNone,
                                      &WidenHalfScalar,
                                      &NarrowHalfScalar,
                                      &WidenBf16Scalar,
                                      &DequantizeInt8Scalar,
                                      &QuantizeInt8Scalar,
                                      &DequantizeInt4Scalar,
                                      &DequantizeInt4BlocksScalar};

}  // namespace nestling::kernels
