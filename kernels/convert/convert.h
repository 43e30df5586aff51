// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace nestling::kernels {

// Rows of n numbers from one type to another. No overlap, no alignment needed; touches only [0, n).
// Every variant gives the same bits as the scalar one.

// IEEE binary16 to f32: exact.
void WidenHalf(const uint16_t* half, float* out, size_t n);

// f32 to IEEE binary16, to nearest, ties to even. Saturates: beyond +-65504, infinities too,
// becomes +-65504. NaN stays NaN (its payload is not specified).
void NarrowHalf(const float* x, uint16_t* half, size_t n);

// bfloat16 (the upper half of an f32) to f32: exact.
void WidenBf16(const uint16_t* bf16, float* out, size_t n);

// out[i] = codes[i] * scale.
void DequantizeInt8(const int8_t* codes, float scale, float* out, size_t n);

// Symmetric quantisation of one row: *scale = max|x| / 127, codes[i] = x[i] / *scale to nearest, in
// [-127, 127]. A row without a magnitude above 1e-30 is a row of zeros with *scale = 0. x is
// finite.
void QuantizeInt8(const float* x, int8_t* codes, float* scale, size_t n);

// 4-bit codes with zero point 8, two per byte, the even index in the low nibble:
// out[i] = (code[i] - 8) * scale. nibbles: (n + 1) / 2 bytes.
void DequantizeInt4(const uint8_t* nibbles, float scale, float* out, size_t n);

// As above, with one bf16 scale per block of 32: out[i] = (code[i] - 8) * (scales[i / 32] *
// factor). bf16_scales: (n + 31) / 32.
void DequantizeInt4Blocks(const uint8_t* nibbles, const uint16_t* bf16_scales, float factor,
                          float* out, size_t n);

inline constexpr size_t kInt4BlockSize = 32;
// Rows of smaller magnitude are stored as zeros: 127 / max|x| must not overflow.
inline constexpr float kSmallestQuantizedMagnitude = 1e-30f;

struct ConvertKernel {
  const char* name;
  uint32_t needs_isa;
  void (*widen_half)(const uint16_t* half, float* out, size_t n);
  void (*narrow_half)(const float* x, uint16_t* half, size_t n);
  void (*widen_bf16)(const uint16_t* bf16, float* out, size_t n);
  void (*dequantize_int8)(const int8_t* codes, float scale, float* out, size_t n);
  void (*quantize_int8)(const float* x, int8_t* codes, float* scale, size_t n);
  void (*dequantize_int4)(const uint8_t* nibbles, float scale, float* out, size_t n);
  void (*dequantize_int4_blocks)(const uint8_t* nibbles, const uint16_t* bf16_scales, float factor,
                                 float* out, size_t n);
};

// Every variant that is compiled in, best first; the last is scalar, the definition of correct.
std::span<const ConvertKernel* const> ConvertKernels();

extern const ConvertKernel kConvertScalar;
extern const ConvertKernel kConvertAvx2;
extern const ConvertKernel kConvertAvx512;
extern const ConvertKernel kConvertNeon;

}  // namespace nestling::kernels
