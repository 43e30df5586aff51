// SPDX-License-Identifier: Apache-2.0
// The interface of vec_avx2.h, where it is explained, for AVX-512 F + BW + VL + DQ.
#pragma once

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

namespace nestling::kernels {
namespace {

constexpr size_t kLanes = 16;

// Blocking of attention_simd.h, for 32 registers.
constexpr size_t kScoreKeys = 4;
constexpr size_t kOutputVectors = 4;

struct F32 {
  __m512 v;
};

inline F32 Set(float value) { return {_mm512_set1_ps(value)}; }

// ---- f32 in memory ----

inline __mmask16 LaneMask(size_t n) { return static_cast<__mmask16>((1u << n) - 1u); }

inline F32 Load(const float* p) { return {_mm512_loadu_ps(p)}; }
inline F32 LoadN(const float* p, size_t n) { return {_mm512_maskz_loadu_ps(LaneMask(n), p)}; }
inline void Store(float* p, F32 a) { _mm512_storeu_ps(p, a.v); }
inline void StoreN(float* p, F32 a, size_t n) { _mm512_mask_storeu_ps(p, LaneMask(n), a.v); }

inline F32 FirstN(F32 a, F32 b, size_t n) { return {_mm512_mask_blend_ps(LaneMask(n), b.v, a.v)}; }

// ---- Arithmetic ----

inline F32 operator+(F32 a, F32 b) { return {_mm512_add_ps(a.v, b.v)}; }
inline F32 operator-(F32 a, F32 b) { return {_mm512_sub_ps(a.v, b.v)}; }
inline F32 operator*(F32 a, F32 b) { return {_mm512_mul_ps(a.v, b.v)}; }
inline F32 operator/(F32 a, F32 b) { return {_mm512_div_ps(a.v, b.v)}; }
inline F32 MulAdd(F32 a, F32 b, F32 c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }      // ab + c
inline F32 NegMulAdd(F32 a, F32 b, F32 c) { return {_mm512_fnmadd_ps(a.v, b.v, c.v)}; }  // c - ab
inline F32 Min(F32 a, F32 b) { return {_mm512_min_ps(a.v, b.v)}; }
inline F32 Max(F32 a, F32 b) { return {_mm512_max_ps(a.v, b.v)}; }
inline F32 Abs(F32 a) { return {_mm512_andnot_ps(_mm512_set1_ps(-0.0f), a.v)}; }
inline F32 CopySign(F32 magnitude, F32 sign) {
  const __m512 mask = _mm512_set1_ps(-0.0f);
  return {_mm512_or_ps(_mm512_andnot_ps(mask, magnitude.v), _mm512_and_ps(mask, sign.v))};
}
inline F32 RoundToEven(F32 a) {
  return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}
inline F32 SelectLess(F32 a, F32 b, F32 yes, F32 no) {
  return {_mm512_mask_blend_ps(_mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ), no.v, yes.v)};
}
inline uint32_t MaskAtLeast(F32 a, F32 b) { return _mm512_cmp_ps_mask(a.v, b.v, _CMP_GE_OQ); }
inline F32 ScaleByPow2(F32 a, F32 n) { return {_mm512_scalef_ps(a.v, n.v)}; }

// ---- Across lanes ----

inline __m256 AddHalves(__m512 a) {
  return _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
}
inline __m128 AddHalves(__m256 a) {
  return _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
}
inline float SumLanes(F32 a) {
  const __m128 four = AddHalves(AddHalves(a.v));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}
inline float MaxLane(F32 a) {
  const __m256 eight = _mm256_max_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
  const __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}
inline void SumLanes4(F32 a, F32 b, F32 c, F32 d, float* sums) {
  const __m512 ab = _mm512_add_ps(_mm512_unpacklo_ps(a.v, b.v), _mm512_unpackhi_ps(a.v, b.v));
  const __m512 cd = _mm512_add_ps(_mm512_unpacklo_ps(c.v, d.v), _mm512_unpackhi_ps(c.v, d.v));
  const __m512 low =
      _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(ab), _mm512_castps_pd(cd)));
  const __m512 high =
      _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(ab), _mm512_castps_pd(cd)));
  _mm_storeu_ps(sums, AddHalves(AddHalves(_mm512_add_ps(low, high))));
}

// ---- f16 (as uint16_t), bf16, int8 and int4 in memory ----

inline F32 Load(const uint16_t* half) {
  return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(half)))};
}
inline F32 LoadN(const uint16_t* half, size_t n) {
  return {_mm512_cvtph_ps(_mm256_maskz_loadu_epi16(LaneMask(n), half))};
}
inline __m256i HalfOf(F32 a) { return _mm512_cvtps_ph(a.v, _MM_FROUND_TO_NEAREST_INT); }
inline void Store(uint16_t* half, F32 a) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(half), HalfOf(a));
}
inline void StoreN(uint16_t* half, F32 a, size_t n) {
  _mm256_mask_storeu_epi16(half, LaneMask(n), HalfOf(a));
}

inline F32 Bf16Of(__m256i bits) {
  return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16))};
}
inline F32 LoadBf16(const uint16_t* p) {
  return Bf16Of(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
inline F32 LoadBf16N(const uint16_t* p, size_t n) {
  return Bf16Of(_mm256_maskz_loadu_epi16(LaneMask(n), p));
}

inline F32 IntOf(__m128i bytes) { return {_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes))}; }
inline F32 Load(const int8_t* p) {
  return IntOf(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
inline F32 LoadN(const int8_t* p, size_t n) { return IntOf(_mm_maskz_loadu_epi8(LaneMask(n), p)); }
inline void StoreN(int8_t* p, F32 a, size_t n) {
  _mm512_mask_cvtepi32_storeu_epi8(p, LaneMask(n), _mm512_cvtps_epi32(a.v));
}
inline void Store(int8_t* p, F32 a) { StoreN(p, a, kLanes); }

inline F32 LoadNibbles(const uint8_t* p) {
  int64_t bits;
  memcpy(&bits, p, sizeof(bits));
  // Lanes 0-7 take the low word, 8-15 the high one.
  const __m512i select = _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1);
  const __m512i shifts =
      _mm512_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28, 0, 4, 8, 12, 16, 20, 24, 28);
  const __m512i words = _mm512_permutexvar_epi32(select, _mm512_set1_epi64(bits));
  const __m512i codes = _mm512_and_si512(_mm512_srlv_epi32(words, shifts), _mm512_set1_epi32(15));
  return {_mm512_cvtepi32_ps(codes)};
}

}  // namespace
}  // namespace nestling::kernels
