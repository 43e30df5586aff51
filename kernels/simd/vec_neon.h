// SPDX-License-Identifier: Apache-2.0
// The interface of vec_avx2.h, where it is explained, for AArch64 Advanced SIMD. Min and Max give a
// NaN when either operand is one, which serves the same callers.
#pragma once

#include <arm_neon.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

namespace nestling::kernels {
namespace {

constexpr size_t kLanes = 4;

// Blocking of attention_simd.h, for 32 registers.
constexpr size_t kScoreKeys = 4;
constexpr size_t kOutputVectors = 4;

struct F32 {
  float32x4_t v;
};

inline F32 Set(float value) { return {vdupq_n_f32(value)}; }

// The first n lanes; n <= kLanes is in the loop for the compiler, which does not know the callers.
template <typename T>
inline void CopyN(T* to, const T* from, size_t n) {
  for (size_t i = 0; i < kLanes && i < n; ++i) to[i] = from[i];
}

// ---- f32 in memory ----

inline F32 Load(const float* p) { return {vld1q_f32(p)}; }
inline F32 LoadN(const float* p, size_t n) {
  float lanes[kLanes] = {};
  CopyN(lanes, p, n);
  return Load(lanes);
}
inline void Store(float* p, F32 a) { vst1q_f32(p, a.v); }
inline void StoreN(float* p, F32 a, size_t n) {
  float lanes[kLanes];
  Store(lanes, a);
  CopyN(p, lanes, n);
}

inline F32 FirstN(F32 a, F32 b, size_t n) {
  float lanes[kLanes];
  Store(lanes, b);
  StoreN(lanes, a, n);
  return Load(lanes);
}

// ---- Arithmetic ----

inline F32 operator+(F32 a, F32 b) { return {vaddq_f32(a.v, b.v)}; }
inline F32 operator-(F32 a, F32 b) { return {vsubq_f32(a.v, b.v)}; }
inline F32 operator*(F32 a, F32 b) { return {vmulq_f32(a.v, b.v)}; }
inline F32 operator/(F32 a, F32 b) { return {vdivq_f32(a.v, b.v)}; }
inline F32 MulAdd(F32 a, F32 b, F32 c) { return {vfmaq_f32(c.v, a.v, b.v)}; }     // ab + c
inline F32 NegMulAdd(F32 a, F32 b, F32 c) { return {vfmsq_f32(c.v, a.v, b.v)}; }  // c - ab
inline F32 Min(F32 a, F32 b) { return {vminq_f32(a.v, b.v)}; }
inline F32 Max(F32 a, F32 b) { return {vmaxq_f32(a.v, b.v)}; }
inline F32 Abs(F32 a) { return {vabsq_f32(a.v)}; }
inline F32 CopySign(F32 magnitude, F32 sign) {
  return {vbslq_f32(vdupq_n_u32(0x80000000u), sign.v, magnitude.v)};
}
inline F32 RoundToEven(F32 a) { return {vrndnq_f32(a.v)}; }
inline F32 SelectLess(F32 a, F32 b, F32 yes, F32 no) {
  return {vbslq_f32(vcltq_f32(a.v, b.v), yes.v, no.v)};
}
inline uint32_t MaskAtLeast(F32 a, F32 b) {
  static constexpr uint32_t kBits[kLanes] = {1, 2, 4, 8};
  return vaddvq_u32(vandq_u32(vcgeq_f32(a.v, b.v), vld1q_u32(kBits)));
}
inline F32 ScaleByPow2(F32 a, F32 n) {
  const int32x4_t exponent = vaddq_s32(vcvtnq_s32_f32(n.v), vdupq_n_s32(127));
  return {vmulq_f32(a.v, vreinterpretq_f32_s32(vshlq_n_s32(exponent, 23)))};
}

// ---- Across lanes ----

inline float SumLanes(F32 a) { return vaddvq_f32(a.v); }
inline float MaxLane(F32 a) { return vmaxvq_f32(a.v); }
inline void SumLanes4(F32 a, F32 b, F32 c, F32 d, float* sums) {
  vst1q_f32(sums, vpaddq_f32(vpaddq_f32(a.v, b.v), vpaddq_f32(c.v, d.v)));
}

// ---- f16 (as uint16_t), bf16, int8 and int4 in memory ----

inline F32 Load(const uint16_t* half) {
  return {vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(half)))};
}
inline F32 LoadN(const uint16_t* half, size_t n) {
  uint16_t lanes[kLanes] = {};
  CopyN(lanes, half, n);
  return Load(lanes);
}
inline void Store(uint16_t* half, F32 a) {
  vst1_u16(half, vreinterpret_u16_f16(vcvt_f16_f32(a.v)));
}
inline void StoreN(uint16_t* half, F32 a, size_t n) {
  uint16_t lanes[kLanes];
  Store(lanes, a);
  CopyN(half, lanes, n);
}

inline F32 LoadBf16(const uint16_t* p) {
  return {vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p), 16))};
}
inline F32 LoadBf16N(const uint16_t* p, size_t n) {
  uint16_t lanes[kLanes] = {};
  CopyN(lanes, p, n);
  return LoadBf16(lanes);
}

inline F32 Load(const int8_t* p) {
  int32_t bits;
  memcpy(&bits, p, sizeof(bits));
  const int8x8_t bytes = vreinterpret_s8_s32(vdup_n_s32(bits));
  return {vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(bytes))))};
}
inline F32 LoadN(const int8_t* p, size_t n) {
  int8_t lanes[kLanes] = {};
  CopyN(lanes, p, n);
  return Load(lanes);
}
inline void StoreN(int8_t* p, F32 a, size_t n) {
  const int16x4_t shorts = vqmovn_s32(vcvtnq_s32_f32(a.v));
  int8_t lanes[8];
  vst1_s8(lanes, vqmovn_s16(vcombine_s16(shorts, shorts)));
  CopyN(p, lanes, n);
}
inline void Store(int8_t* p, F32 a) { StoreN(p, a, kLanes); }

inline F32 LoadNibbles(const uint8_t* p) {
  uint16_t bits;
  memcpy(&bits, p, sizeof(bits));
  static constexpr int32_t kShifts[kLanes] = {0, -4, -8, -12};
  const uint32x4_t words = vshlq_u32(vdupq_n_u32(bits), vld1q_s32(kShifts));
  return {vcvtq_f32_u32(vandq_u32(words, vdupq_n_u32(15)))};
}

}  // namespace
}  // namespace nestling::kernels
