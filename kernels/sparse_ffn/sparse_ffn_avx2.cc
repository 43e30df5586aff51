// SPDX-License-Identifier: Apache-2.0
#include <immintrin.h>
#include <stdint.h>

#include "kernels/isa.h"
#include "kernels/simd/loops.h"
#include "kernels/sparse_ffn/sparse_ffn.h"

namespace nestling::kernels {
namespace {

inline float Bf16ToFloat(uint16_t bits) {
  return _mm_cvtss_f32(_mm_castsi128_ps(_mm_cvtsi32_si128(static_cast<int>(bits) << 16)));
}

inline size_t KeepAbove(F32 gate, F32 cut, size_t lanes, uint32_t first, uint32_t* neurons,
                        float* values) {
  const int above = _mm256_movemask_ps(_mm256_cmp_ps(gate.v, cut.v, _CMP_GT_OQ));
  unsigned kept = static_cast<unsigned>(above) & ((1u << lanes) - 1u);
  float shifted[kLanes];
  if (kept != 0) Store(shifted, gate - cut);
  size_t count = 0;
  for (; kept != 0; kept &= kept - 1) {
    const unsigned lane = static_cast<unsigned>(__builtin_ctz(kept));
    neurons[count] = first + lane;
    values[count++] = shifted[lane];
  }
  return count;
}

inline int32_t SumLanes(__m256i v) {
  __m128i four = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
  four = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0x4e));
  four = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0xb1));
  return _mm_cvtsi128_si32(four);
}

inline __m256i LoadBytes(const void* p) {
  return _mm256_loadu_si256(static_cast<const __m256i*>(p));
}

template <size_t kTokens>
inline void DotInt8(const int8_t* row, size_t k, const int8_t* const* x, const int32_t*,
                    int32_t* sums) {
  const __m256i ones = _mm256_set1_epi16(1);
  __m256i products[kTokens];
  for (size_t t = 0; t < kTokens; ++t) products[t] = _mm256_setzero_si256();
  for (size_t i = 0; i < k; i += 32) {
    // |w| * sign(x, w): pairs of at most 127 * 127 each do not saturate 16 bit.
    const __m256i w = LoadBytes(row + i);
    const __m256i magnitude = _mm256_abs_epi8(w);
    for (size_t t = 0; t < kTokens; ++t) {
      const __m256i inputs = _mm256_sign_epi8(LoadBytes(x[t] + i), w);
      products[t] = _mm256_add_epi32(
          products[t], _mm256_madd_epi16(_mm256_maddubs_epi16(magnitude, inputs), ones));
    }
  }
  for (size_t t = 0; t < kTokens; ++t) sums[t] = SumLanes(products[t]);
}

template <size_t kTokens>
inline void DotInt4(const uint8_t* row, const uint16_t* scales, size_t blocks,
                    const int8_t* const* x, const int32_t* const* offsets, float* sums) {
  const __m256i low_half = _mm256_set1_epi8(15);
  const __m256i ones = _mm256_set1_epi16(1);
  __m256 sum[kTokens];
  for (size_t t = 0; t < kTokens; ++t) sum[t] = _mm256_setzero_ps();
  for (size_t b = 0; b < blocks; ++b) {
    const __m128i pairs = _mm_loadu_si128(reinterpret_cast<const __m128i*>(row + b * 16));
    const __m256i w = _mm256_and_si256(_mm256_set_m128i(_mm_srli_epi16(pairs, 4), pairs), low_half);
    const __m256 scale = _mm256_set1_ps(Bf16ToFloat(scales[b]));
    for (size_t t = 0; t < kTokens; ++t) {
      // 16-bit sums of two products of at most 15 * 127. The codes' zero point goes into one lane.
      __m256i products = _mm256_madd_epi16(_mm256_maddubs_epi16(w, LoadBytes(x[t] + b * 32)), ones);
      products =
          _mm256_add_epi32(products, _mm256_zextsi128_si256(_mm_cvtsi32_si128(offsets[t][b])));
      sum[t] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(products), scale, sum[t]);
    }
  }
  for (size_t t = 0; t < kTokens; ++t) sums[t] = SumLanes(F32{sum[t]});
}

inline void UnpackInt4(const uint8_t* codes, F32* v) {
  const __m128i pairs = _mm_loadu_si128(reinterpret_cast<const __m128i*>(codes));
  const __m128i low_half = _mm_set1_epi8(15), zero_point = _mm_set1_epi8(8);
  const __m128i low = _mm_sub_epi8(_mm_and_si128(pairs, low_half), zero_point);
  const __m128i high = _mm_sub_epi8(_mm_and_si128(_mm_srli_epi16(pairs, 4), low_half), zero_point);
  v[0] = IntOf(low);
  v[1] = IntOf(_mm_unpackhi_epi64(low, low));
  v[2] = IntOf(high);
  v[3] = IntOf(_mm_unpackhi_epi64(high, high));
}

}  // namespace
}  // namespace nestling::kernels

#include "kernels/sparse_ffn/sparse_ffn_simd.h"

namespace nestling::kernels {

const SparseFfnKernel kSparseFfnAvx2 = {"avx2",    kIsaAvx2, &SelectSimd,
                                        &DotsSimd, &SumSimd, &SumOfTokensSimd};

}  // namespace nestling::kernels
