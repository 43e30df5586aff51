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
  const __mmask16 kept = _mm512_mask_cmp_ps_mask(LaneMask(lanes), gate.v, cut.v, _CMP_GT_OQ);
  const __m512i numbers =
      _mm512_add_epi32(_mm512_set1_epi32(static_cast<int>(first)),
                       _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
  // Whole vectors: the outputs have room.
  _mm512_storeu_si512(neurons, _mm512_maskz_compress_epi32(kept, numbers));
  Store(values, F32{_mm512_maskz_compress_ps(kept, (gate - cut).v)});
  return static_cast<size_t>(__builtin_popcount(kept));
}

inline __mmask64 ByteMask(size_t n) { return n >= 64 ? ~__mmask64{0} : (__mmask64{1} << n) - 1; }

template <size_t kTokens>
inline void DotInt8(const int8_t* row, size_t k, const int8_t* const* x, const int32_t* totals,
                    int32_t* sums) {
  // VNNI multiplies unsigned by signed: weights + 128 are unsigned, and 128 times the sum of the
  // inputs is taken off again.
  const __m512i flip = _mm512_set1_epi8(static_cast<char>(0x80));
  __m512i products[kTokens];
  for (size_t t = 0; t < kTokens; ++t) products[t] = _mm512_setzero_si512();
  for (size_t i = 0; i < k; i += 64) {
    const __mmask64 exist = ByteMask(k - i);
    const __m512i w = _mm512_xor_si512(_mm512_maskz_loadu_epi8(exist, row + i), flip);
    for (size_t t = 0; t < kTokens; ++t) {
      products[t] = _mm512_dpbusd_epi32(products[t], w, _mm512_maskz_loadu_epi8(exist, x[t] + i));
    }
  }
  for (size_t t = 0; t < kTokens; ++t) {
    sums[t] = _mm512_reduce_add_epi32(products[t]) - 128 * totals[t];
  }
}

// Two blocks at a time: 64 unsigned codes in order.
inline __m512i TwoBlocks(__m256i pairs) {
  const __m512i twice = _mm512_permutexvar_epi64(_mm512_setr_epi64(0, 1, 0, 1, 2, 3, 2, 3),
                                                 _mm512_castsi256_si512(pairs));
  const __m512i shifts = _mm512_inserti64x4(
      _mm512_castsi256_si512(_mm256_setr_epi64x(0, 0, 0x0004000400040004, 0x0004000400040004)),
      _mm256_setr_epi64x(0, 0, 0x0004000400040004, 0x0004000400040004), 1);
  return _mm512_and_si512(_mm512_srlv_epi16(twice, shifts), _mm512_set1_epi8(15));
}

// The scales of two blocks, in lanes 0-7 and 8-15.
inline __m512 TwoScales(const uint16_t* scales) {
  int32_t both;
  memcpy(&both, scales, sizeof both);
  const __m512i shifted =
      _mm512_sllv_epi32(_mm512_set1_epi32(both),
                        _mm512_setr_epi32(16, 16, 16, 16, 16, 16, 16, 16, 0, 0, 0, 0, 0, 0, 0, 0));
  return _mm512_castsi512_ps(
      _mm512_and_si512(shifted, _mm512_set1_epi32(static_cast<int>(0xffff0000))));
}

template <size_t kTokens>
inline void DotInt4(const uint8_t* row, const uint16_t* scales, size_t blocks,
                    const int8_t* const* x, const int32_t* const* offsets, float* sums) {
  __m512 sum[2][kTokens];  // two, so that additions need not wait for each other
  for (size_t t = 0; t < kTokens; ++t) sum[0][t] = sum[1][t] = _mm512_setzero_ps();
  // The codes' zero point: offsets are -8 times the sum of a block's inputs.
  ForVectors(blocks, [&](size_t b, auto lanes) {
    const F32 scale = LoadBf16(scales + b, lanes);
    for (size_t t = 0; t < kTokens; ++t) {
      const __m512i offset =
          _mm512_maskz_loadu_epi32(LaneMask(blocks - b < 16 ? blocks - b : 16), offsets[t] + b);
      sum[0][t] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(offset), scale.v, sum[0][t]);
    }
  });
  size_t b = 0;
  const auto add = [&](size_t parity, __m512i w, __m512 scale, __mmask64 exist) {
    for (size_t t = 0; t < kTokens; ++t) {
      const __m512i products = _mm512_dpbusd_epi32(_mm512_setzero_si512(), w,
                                                   _mm512_maskz_loadu_epi8(exist, x[t] + b * 32));
      sum[parity][t] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(products), scale, sum[parity][t]);
    }
  };
  const auto add_two = [&](size_t parity) {
    const __m256i pairs = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(row + b * 16));
    add(parity, TwoBlocks(pairs), TwoScales(scales + b), ~__mmask64{0});
    b += 2;
  };
  while (b + 4 <= blocks) {
    add_two(0);
    add_two(1);
  }
  if (b + 2 <= blocks) add_two(0);
  if (b < blocks) {
    const __m128i pairs = _mm_loadu_si128(reinterpret_cast<const __m128i*>(row + b * 16));
    add(1, TwoBlocks(_mm256_zextsi128_si256(pairs)), _mm512_set1_ps(Bf16ToFloat(scales[b])),
        ByteMask(32));
  }
  for (size_t t = 0; t < kTokens; ++t) sums[t] = SumLanes(F32{_mm512_add_ps(sum[0][t], sum[1][t])});
}

inline void UnpackInt4(const uint8_t* codes, F32* v) {
  // A permutation of 16 floats reads the low four bits of its indices only.
  const __m512 values = _mm512_setr_ps(-8.0f, -7.0f, -6.0f, -5.0f, -4.0f, -3.0f, -2.0f, -1.0f, 0.0f,
                                       1.0f, 2.0f, 3.0f, 4.0f, 5.0f, 6.0f, 7.0f);
  const __m512i pairs =
      _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(codes)));
  v[0] = {_mm512_permutexvar_ps(pairs, values)};
  v[1] = {_mm512_permutexvar_ps(_mm512_srli_epi32(pairs, 4), values)};
}

}  // namespace
}  // namespace nestling::kernels

#include "kernels/sparse_ffn/sparse_ffn_simd.h"

namespace nestling::kernels {

const SparseFfnKernel kSparseFfnAvx512vnni = {
    "avx512vnni", kIsaAvx512 | kIsaAvx512Vnni, &SelectSimd, &DotsSimd, &SumSimd, &SumOfTokensSimd};

}  // namespace nestling::kernels
