// SPDX-License-Identifier: Apache-2.0
#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#include "kernels/isa.h"
#include "kernels/tiled_linear/tiled_linear_blocked.h"

namespace nestling::kernels {
namespace {

// Four inputs of one token, in every lane.
inline __m512i FourInputs(const int8_t* codes) {
  int32_t four;
  memcpy(&four, codes, sizeof four);
  return _mm512_set1_epi32(four);
}

inline __m512 Bf16Scales(const uint16_t* scales) {
  const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(scales));
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
}

void QuantizeAvx512(const float* x, size_t k, int8_t* codes, float* scale, int32_t* offsets,
                    int32_t* total) {
  __m512 most = _mm512_setzero_ps();
  for (size_t i = 0; i < k; i += 16)
    most = _mm512_max_ps(most, _mm512_abs_ps(_mm512_loadu_ps(x + i)));
  const float largest = _mm512_reduce_max_ps(most);
  const __m512 inverse = _mm512_set1_ps(largest > 0.0f ? 127.0f / largest : 0.0f);
  *scale = largest / 127.0f;
  int32_t sum = 0;
  for (size_t i = 0; i < k; i += 32) {
    const __m512i low = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(x + i), inverse));
    const __m512i high = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(x + i + 16), inverse));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(codes + i), _mm512_cvtsepi32_epi8(low));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(codes + i + 16), _mm512_cvtsepi32_epi8(high));
    const int32_t block = _mm512_reduce_add_epi32(_mm512_add_epi32(low, high));
    offsets[i / 32] = -8 * block;
    sum += block;
  }
  *total = sum;
}

// One pass of up to 16 rows: 8 registers of weights, 16 of sums.
struct Int4 {
  static constexpr size_t kMaxRows = 16;

  template <size_t kRows>
  static void Run(const TiledArgs& args, size_t row, size_t tile) {
    const size_t blocks = args.k / kTileInputs;
    const uint8_t* codes = args.codes + tile * blocks * 256;
    const uint16_t* scales =
        static_cast<const uint16_t*>(args.scales) + tile * blocks * kTileOutputs;
    const int8_t* x = args.x.codes + row * args.k;
    const int32_t* offsets = args.x.offsets + row * blocks;
    const __m512i low_half = _mm512_set1_epi8(15);
    __m512 sums[kRows];
    for (size_t r = 0; r < kRows; ++r) sums[r] = _mm512_setzero_ps();
    for (size_t block = 0; block < blocks; ++block) {
      __m512i w[8];
      for (size_t v = 0; v < 4; ++v) {
        const __m512i pair = _mm512_loadu_si512(codes + 64 * v);
        w[v] = _mm512_and_si512(pair, low_half);
        w[v + 4] = _mm512_and_si512(_mm512_srli_epi16(pair, 4), low_half);
      }
      const __m512 scale = Bf16Scales(scales);
#pragma GCC unroll 16
      for (size_t r = 0; r < kRows; ++r) {
        const int8_t* inputs = x + r * args.k;
        __m512i products = _mm512_set1_epi32(offsets[r * blocks]);
#pragma GCC unroll 8
        for (size_t g = 0; g < 8; ++g) {
          products = _mm512_dpbusd_epi32(products, w[g], FourInputs(inputs + 4 * g));
        }
        sums[r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(products), scale, sums[r]);
      }
      codes += 256;
      scales += kTileOutputs;
      x += kTileInputs;
      ++offsets;
    }
    for (size_t r = 0; r < kRows; ++r) {
      _mm512_storeu_ps(args.out + (row + r) * args.out_stride + tile * kTileOutputs,
                       _mm512_mul_ps(sums[r], _mm512_set1_ps(args.x.scales[row + r])));
    }
  }
};

struct Int8 {
  static constexpr size_t kMaxRows = 16;

  template <size_t kRows>
  static void Run(const TiledArgs& args, size_t row, size_t tile) {
    const uint8_t* codes = args.codes + tile * kTileOutputs * args.k;
    const int8_t* x = args.x.codes + row * args.k;
    // VNNI multiplies unsigned by signed: weights + 128 are unsigned, and 128 times the sum of
    // the inputs is taken off again.
    const __m512i flip = _mm512_set1_epi8(static_cast<char>(0x80));
    __m512i sums[kRows];
    for (size_t r = 0; r < kRows; ++r) sums[r] = _mm512_set1_epi32(-128 * args.x.totals[row + r]);
    for (size_t i = 0; i < args.k; i += 4, codes += 64, x += 4) {
      const __m512i w = _mm512_xor_si512(_mm512_loadu_si512(codes), flip);
#pragma GCC unroll 16
      for (size_t r = 0; r < kRows; ++r) {
        sums[r] = _mm512_dpbusd_epi32(sums[r], w, FourInputs(x + r * args.k));
      }
    }
    const __m512 scale =
        _mm512_loadu_ps(static_cast<const float*>(args.scales) + tile * kTileOutputs);
    for (size_t r = 0; r < kRows; ++r) {
      _mm512_storeu_ps(args.out + (row + r) * args.out_stride + tile * kTileOutputs,
                       _mm512_mul_ps(_mm512_cvtepi32_ps(sums[r]),
                                     _mm512_mul_ps(scale, _mm512_set1_ps(args.x.scales[row + r]))));
    }
  }
};

}  // namespace

const TiledLinearKernel kTiledLinearAvx512vnni = {
    "avx512vnni", kIsaAvx512 | kIsaAvx512Vnni, &QuantizeAvx512, &RunTiles<Int4>, &RunTiles<Int8>};

}  // namespace nestling::kernels
