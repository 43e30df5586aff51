// SPDX-License-Identifier: Apache-2.0
// Half floats without hardware: for the scalar variants, and for nothing that is compiled for a
// newer CPU (everything here is in an anonymous namespace all the same).
#pragma once

#include <cstdint>
#include <cstring>

namespace nestling::kernels {
namespace {

inline float FloatOfBits(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

inline uint32_t BitsOfFloat(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return bits;
}

inline float HalfToFloat(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000u) << 16;
  const uint32_t exponent = (half >> 10) & 0x1Fu;
  const uint32_t mantissa = half & 0x3FFu;
  if (exponent == 31) {  // infinity; a NaN is made quiet, as hardware does
    return FloatOfBits(sign | 0x7F800000u | (mantissa != 0 ? 0x400000u : 0u) | (mantissa << 13));
  }
  if (exponent == 0) {  // zero or subnormal: mantissa * 2^-24, exact in f32
    const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;
    return FloatOfBits(sign | BitsOfFloat(magnitude));
  }
  return FloatOfBits(sign | ((exponent + 112) << 23) | (mantissa << 13));
}

// Nearest even, saturating; see NarrowHalf.
inline uint16_t FloatToHalf(float x) {
  const uint32_t bits = BitsOfFloat(x);
  const uint32_t sign = (bits >> 16) & 0x8000u;
  const uint32_t magnitude = bits & 0x7FFFFFFFu;
  if (magnitude > 0x7F800000u) return static_cast<uint16_t>(sign | 0x7E00u);   // NaN
  if (magnitude >= 0x477FE000u) return static_cast<uint16_t>(sign | 0x7BFFu);  // >= 65504
  if (magnitude < 0x38800000u) {  // below 2^-14: subnormal, a multiple of 2^-24
    // Adding 0.5 puts the last kept bit at 2^-24 of the sum's mantissa: the addition rounds.
    const float shifted = FloatOfBits(magnitude) + 0.5f;
    return static_cast<uint16_t>(sign | (BitsOfFloat(shifted) - 0x3F000000u));
  }
  const uint32_t odd = (magnitude >> 13) & 1u;
  const uint32_t rounded = magnitude + 0xFFFu + odd;  // carries into the exponent when it must
  return static_cast<uint16_t>(sign | ((rounded - 0x38000000u) >> 13));
}

}  // namespace
}  // namespace nestling::kernels
