// SPDX-License-Identifier: Apache-2.0
// Dynamic quantisation of activations to int8 with a zero point: what XNNPACK's qd8 operators take.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace nestling::kernels {

// x is about (code - zero_point) * scale; 0 is exact, as zero padding needs.
struct AffineInt8 {
  int32_t zero_point = 0;  // -128 .. 127
  float scale = 1.0f;      // > 0
};

// Lowest and highest value of what was seen so far; always has 0 in it.
struct ValueRange {
  float lowest = 0.0f;
  float highest = 0.0f;
};

// Covers the range with 255 steps; scale 1 for a range of zero width. Finite for finite input.
AffineInt8 AffineOf(const ValueRange& range);

// Rows of n floats. No alignment needed; touches only [0, n).

// Widens the range by x. NaNs are passed over or kept, as it happens.
void WidenRange(const float* x, size_t n, ValueRange* range);

// codes[i] = round(x[i] / scale) + zero_point, saturating; ties to even. The division is done with
// the reciprocal, so that a value near the middle of two codes may become either.
void QuantizeAffine(const float* x, size_t n, const AffineInt8& affine, int8_t* codes);

struct AffineInt8Kernel {
  const char* name;
  uint32_t needs_isa;
  void (*widen_range)(const float* x, size_t n, ValueRange* range);
  void (*quantize)(const float* x, size_t n, const AffineInt8& affine, int8_t* codes);
};

// Every variant that is compiled in, best first; the last is scalar, the definition of correct.
std::span<const AffineInt8Kernel* const> AffineInt8Kernels();

extern const AffineInt8Kernel kAffineInt8Scalar;
extern const AffineInt8Kernel kAffineInt8Avx2;
extern const AffineInt8Kernel kAffineInt8Avx512;
extern const AffineInt8Kernel kAffineInt8Neon;

}  // namespace nestling::kernels
