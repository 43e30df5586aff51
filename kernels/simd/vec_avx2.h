// SPDX-License-Identifier: Apache-2.0
// A vector of f32 and what the *_simd.h algorithms do with it, here for AVX2 + FMA + F16C. Every
// vec_<isa>.h has the same interface. For the variant files only; all names are private to each.
//
// The N forms read or write the first n lanes only, 0 <= n <= kLanes; other lanes load as 0.
// Min and Max return the second operand when either is a NaN.
#pragma once

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

namespace nestling::kernels {
namespace {

constexpr size_t kLanes = 8;

// Blocking of attention_simd.h, for 16 registers: score tiles of rows x keys, output tiles of rows
// x vectors.
constexpr size_t kScoreKeys = 3;
constexpr size_t kOutputVectors = 3;

struct F32 {
  __m256 v;
};

inline F32 Set(float value) { return {_mm256_set1_ps(value)}; }

// ---- f32 in memory ----

inline __m256i LaneMask(size_t n) {
  alignas(32) static constexpr int32_t kMasks[16] = {-1, -1, -1, -1, -1, -1, -1, -1,
                                                     0,  0,  0,  0,  0,  0,  0,  0};
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(kMasks + kLanes - n));
}

inline F32 Load(const float* p) { return {_mm256_loadu_ps(p)}; }
inline F32 LoadN(const float* p, size_t n) { return {_mm256_maskload_ps(p, LaneMask(n))}; }
inline void Store(float* p, F32 a) { _mm256_storeu_ps(p, a.v); }
inline void StoreN(float* p, F32 a, size_t n) { _mm256_maskstore_ps(p, LaneMask(n), a.v); }

// The first n lanes of a, the others of b.
inline F32 FirstN(F32 a, F32 b, size_t n) {
  return {_mm256_blendv_ps(b.v, a.v, _mm256_castsi256_ps(LaneMask(n)))};
}

// ---- Arithmetic ----

inline F32 operator+(F32 a, F32 b) { return {_mm256_add_ps(a.v, b.v)}; }
inline F32 operator-(F32 a, F32 b) { return {_mm256_sub_ps(a.v, b.v)}; }
inline F32 operator*(F32 a, F32 b) { return {_mm256_mul_ps(a.v, b.v)}; }
inline F32 operator/(F32 a, F32 b) { return {_mm256_div_ps(a.v, b.v)}; }
inline F32 MulAdd(F32 a, F32 b, F32 c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }      // ab + c
inline F32 NegMulAdd(F32 a, F32 b, F32 c) { return {_mm256_fnmadd_ps(a.v, b.v, c.v)}; }  // c - ab
inline F32 Min(F32 a, F32 b) { return {_mm256_min_ps(a.v, b.v)}; }
inline F32 Max(F32 a, F32 b) { return {_mm256_max_ps(a.v, b.v)}; }
inline F32 Abs(F32 a) { return {_mm256_andnot_ps(_mm256_set1_ps(-0.0f), a.v)}; }
inline F32 CopySign(F32 magnitude, F32 sign) {
  const __m256 mask = _mm256_set1_ps(-0.0f);
  return {_mm256_or_ps(_mm256_andnot_ps(mask, magnitude.v), _mm256_and_ps(mask, sign.v))};
}
inline F32 RoundToEven(F32 a) {
  return {_mm256_round_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}
// a < b ? yes : no, per lane.
inline F32 SelectLess(F32 a, F32 b, F32 yes, F32 no) {
  return {_mm256_blendv_ps(no.v, yes.v, _mm256_cmp_ps(a.v, b.v, _CMP_LT_OQ))};
}
// Bit i: a[i] >= b[i], which a NaN never is.
inline uint32_t MaskAtLeast(F32 a, F32 b) {
  return static_cast<uint32_t>(_mm256_movemask_ps(_mm256_cmp_ps(a.v, b.v, _CMP_GE_OQ)));
}
// a * 2^n for whole n in [-126, 127].
inline F32 ScaleByPow2(F32 a, F32 n) {
  const __m256i exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n.v), _mm256_set1_epi32(127));
  return {_mm256_mul_ps(a.v, _mm256_castsi256_ps(_mm256_slli_epi32(exponent, 23)))};
}

// ---- Across lanes ----

inline float SumLanes(F32 a) {
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(a.v), _mm256_extractf128_ps(a.v, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}
inline float MaxLane(F32 a) {
  const __m128 four = _mm_max_ps(_mm256_castps256_ps128(a.v), _mm256_extractf128_ps(a.v, 1));
  const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}
// sums[i] = the sum of the lanes of the i-th argument.
inline void SumLanes4(F32 a, F32 b, F32 c, F32 d, float* sums) {
  const __m256 ab = _mm256_hadd_ps(a.v, b.v);
  const __m256 cd = _mm256_hadd_ps(c.v, d.v);
  const __m256 abcd = _mm256_hadd_ps(ab, cd);
  _mm_storeu_ps(sums, _mm_add_ps(_mm256_castps256_ps128(abcd), _mm256_extractf128_ps(abcd, 1)));
}

// ---- f16 (as uint16_t), bf16, int8 and int4 in memory ----

template <typename T>
inline __m128i LoadBytesN(const T* p, size_t n) {
  T lanes[16 / sizeof(T)] = {};
  for (size_t i = 0; i < n; ++i) lanes[i] = p[i];
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(lanes));
}

inline F32 Load(const uint16_t* half) {
  return {_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(half)))};
}
inline F32 LoadN(const uint16_t* half, size_t n) { return {_mm256_cvtph_ps(LoadBytesN(half, n))}; }
inline __m128i HalfOf(F32 a) { return _mm256_cvtps_ph(a.v, _MM_FROUND_TO_NEAREST_INT); }
inline void Store(uint16_t* half, F32 a) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(half), HalfOf(a));
}
inline void StoreN(uint16_t* half, F32 a, size_t n) {
  uint16_t lanes[kLanes];
  Store(lanes, a);
  for (size_t i = 0; i < n; ++i) half[i] = lanes[i];
}

inline F32 Bf16Of(__m128i bits) {
  return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16))};
}
inline F32 LoadBf16(const uint16_t* p) {
  return Bf16Of(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
inline F32 LoadBf16N(const uint16_t* p, size_t n) { return Bf16Of(LoadBytesN(p, n)); }

inline F32 IntOf(__m128i bytes) { return {_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes))}; }
inline F32 Load(const int8_t* p) {
  return IntOf(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
}
inline F32 LoadN(const int8_t* p, size_t n) { return IntOf(LoadBytesN(p, n)); }
// Rounds to nearest even; the result must be in [-128, 127].
inline void StoreN(int8_t* p, F32 a, size_t n) {
  const __m256i words = _mm256_cvtps_epi32(a.v);
  const __m128i shorts =
      _mm_packs_epi32(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
  int8_t lanes[16];
  _mm_storeu_si128(reinterpret_cast<__m128i*>(lanes), _mm_packs_epi16(shorts, shorts));
  memcpy(p, lanes, n);
}
inline void Store(int8_t* p, F32 a) { StoreN(p, a, kLanes); }

// kLanes unsigned codes from kLanes / 2 bytes, the even lane in the low nibble.
inline F32 LoadNibbles(const uint8_t* p) {
  int32_t bits;
  memcpy(&bits, p, sizeof(bits));
  const __m256i shifts = _mm256_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28);
  const __m256i codes =
      _mm256_and_si256(_mm256_srlv_epi32(_mm256_set1_epi32(bits), shifts), _mm256_set1_epi32(15));
  return {_mm256_cvtepi32_ps(codes)};
}

}  // namespace
}  // namespace nestling::kernels
