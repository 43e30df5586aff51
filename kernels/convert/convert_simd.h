// SPDX-License-Identifier: Apache-2.0
// The algorithm of every SIMD variant; included once by each of them.
#pragma once

#include "kernels/convert/convert.h"
#include "kernels/simd/loops.h"

namespace nestling::kernels {
namespace {

void WidenHalfSimd(const uint16_t* half, float* out, size_t n) {
  ForVectors(n, [=](size_t i, auto lanes) { Store(out + i, Load(half + i, lanes), lanes); });
}

void NarrowHalfSimd(const float* x, uint16_t* half, size_t n) {
  const F32 largest = Set(65504.0f), smallest = Set(-65504.0f);
  ForVectors(n, [=](size_t i, auto lanes) {
    // x is the second operand: a NaN goes through.
    Store(half + i, Max(smallest, Min(largest, Load(x + i, lanes))), lanes);
  });
}

void WidenBf16Simd(const uint16_t* bf16, float* out, size_t n) {
  ForVectors(n, [=](size_t i, auto lanes) { Store(out + i, LoadBf16(bf16 + i, lanes), lanes); });
}

void DequantizeInt8Simd(const int8_t* codes, float scale, float* out, size_t n) {
  const F32 by = Set(scale);
  ForVectors(n, [=](size_t i, auto lanes) { Store(out + i, Load(codes + i, lanes) * by, lanes); });
}

void QuantizeInt8Simd(const float* x, int8_t* codes, float* scale, size_t n) {
  F32 magnitudes = Set(0.0f);
  ForVectors(n,
             [&](size_t i, auto lanes) { magnitudes = Max(magnitudes, Abs(Load(x + i, lanes))); });
  const float largest = MaxLane(magnitudes);
  if (!(largest > kSmallestQuantizedMagnitude)) {
    *scale = 0.0f;
    memset(codes, 0, n);
    return;
  }
  *scale = largest / 127.0f;
  const F32 inverse = Set(127.0f / largest);
  ForVectors(n,
             [=](size_t i, auto lanes) { Store(codes + i, Load(x + i, lanes) * inverse, lanes); });
}

// Codes [first, last) one by one: what does not fill a vector.
void DequantizeInt4Tail(const uint8_t* nibbles, float scale, float* out, size_t first,
                        size_t last) {
  for (size_t i = first; i < last; ++i) {
    const int code = i % 2 == 0 ? nibbles[i / 2] & 0xF : nibbles[i / 2] >> 4;
    out[i] = static_cast<float>(code - 8) * scale;
  }
}

void DequantizeInt4Simd(const uint8_t* nibbles, float scale, float* out, size_t n) {
  const F32 by = Set(scale), zero_point = Set(8.0f);
  size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    Store(out + i, (LoadNibbles(nibbles + i / 2) - zero_point) * by);
  }
  DequantizeInt4Tail(nibbles, scale, out, i, n);
}

void DequantizeInt4BlocksSimd(const uint8_t* nibbles, const uint16_t* bf16_scales, float factor,
                              float* out, size_t n) {
  for (size_t first = 0; first < n; first += kInt4BlockSize, ++bf16_scales) {
    const uint32_t bits = static_cast<uint32_t>(*bf16_scales) << 16;
    float scale;
    memcpy(&scale, &bits, sizeof(scale));
    const size_t length = n - first < kInt4BlockSize ? n - first : kInt4BlockSize;
    DequantizeInt4Simd(nibbles + first / 2, scale * factor, out + first, length);
  }
}

}  // namespace
}  // namespace nestling::kernels
