// SPDX-License-Identifier: Apache-2.0
#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#include "kernels/isa.h"
#include "kernels/tiled_linear/tiled_linear_blocked.h"

namespace nestling::kernels {
namespace {

inline __m256i Load(const uint8_t* p) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
}

inline __m256i FourInputs(const int8_t* codes) {
  int32_t four;
  memcpy(&four, codes, sizeof four);
  return _mm256_set1_epi32(four);
}

inline __m256 Bf16Scales(const uint16_t* scales) {
  const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(scales));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
}

inline int32_t SumLanes(__m256i v) {
  __m128i four = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
  four = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0x4e));
  four = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0xb1));
  return _mm_cvtsi128_si32(four);
}

void QuantizeAvx2(const float* x, size_t k, int8_t* codes, float* scale, int32_t* offsets,
                  int32_t* total) {
  const __m256 sign = _mm256_set1_ps(-0.0f);
  __m256 most = _mm256_setzero_ps();
  for (size_t i = 0; i < k; i += 8) {
    most = _mm256_max_ps(most, _mm256_andnot_ps(sign, _mm256_loadu_ps(x + i)));
  }
  float lanes[8];
  _mm256_storeu_ps(lanes, most);
  float largest = 0.0f;
  for (const float lane : lanes) largest = lane > largest ? lane : largest;
  const __m256 inverse = _mm256_set1_ps(largest > 0.0f ? 127.0f / largest : 0.0f);
  *scale = largest / 127.0f;
  int32_t sum = 0;
  // The packs of AVX2 work in halves: this brings the eight groups of four back into order.
  const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
  for (size_t i = 0; i < k; i += 32) {
    __m256i part[4];
    for (size_t p = 0; p < 4; ++p) {
      part[p] = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + i + 8 * p), inverse));
    }
    const __m256i bytes = _mm256_packs_epi16(_mm256_packs_epi32(part[0], part[1]),
                                             _mm256_packs_epi32(part[2], part[3]));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(codes + i),
                        _mm256_permutevar8x32_epi32(bytes, order));
    const int32_t block = SumLanes(
        _mm256_add_epi32(_mm256_add_epi32(part[0], part[1]), _mm256_add_epi32(part[2], part[3])));
    offsets[i / 32] = -8 * block;
    sum += block;
  }
  *total = sum;
}

// Sums of pairs of products of half a tile's 32 inputs with those of several rows, k apart, in 16
// bit: 16 products of at most 15 * 127 stay below 2^15.
template <size_t kRows>
__attribute__((always_inline)) inline void BlockProducts(const uint8_t* codes, const int8_t* x,
                                                         size_t k, __m256i* products) {
  const __m256i low_half = _mm256_set1_epi8(15);
  for (size_t r = 0; r < kRows; ++r) products[r] = _mm256_setzero_si256();
#pragma GCC unroll 4
  for (size_t v = 0; v < 4; ++v) {
    const __m256i pair = Load(codes + 64 * v);
    const __m256i low = _mm256_and_si256(pair, low_half);
    const __m256i high = _mm256_and_si256(_mm256_srli_epi16(pair, 4), low_half);
    for (size_t r = 0; r < kRows; ++r) {
      const int8_t* inputs = x + r * k + 4 * v;
      products[r] = _mm256_add_epi16(
          products[r], _mm256_add_epi16(_mm256_maddubs_epi16(low, FourInputs(inputs)),
                                        _mm256_maddubs_epi16(high, FourInputs(inputs + 16))));
    }
  }
}

struct Int4 {
  static constexpr size_t kMaxRows = 4;
  static constexpr size_t kMaxTiles = 1;

  template <size_t kRows, size_t kTiles>
  static void Run(const TiledArgs& args, size_t row, size_t tile, bool /*last*/) {
    const size_t blocks = args.k / kTileInputs;
    const uint8_t* codes = args.codes + tile * blocks * 256;
    const uint16_t* scales =
        static_cast<const uint16_t*>(args.scales) + tile * blocks * kTileOutputs;
    const int8_t* x = args.x.codes + row * args.k;
    const int32_t* offsets = args.x.offsets + row * blocks;
    const __m256i ones = _mm256_set1_epi16(1);
    __m256 sums[2][kRows];
    for (size_t r = 0; r < kRows; ++r) sums[0][r] = sums[1][r] = _mm256_setzero_ps();
    for (size_t block = 0; block < blocks; ++block) {
      for (size_t half = 0; half < 2; ++half) {
        __m256i products[kRows];
        BlockProducts<kRows>(codes + 32 * half, x, args.k, products);
        const __m256 scale = Bf16Scales(scales + 8 * half);
        for (size_t r = 0; r < kRows; ++r) {
          const __m256i block_sum = _mm256_add_epi32(_mm256_madd_epi16(products[r], ones),
                                                     _mm256_set1_epi32(offsets[r * blocks]));
          sums[half][r] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(block_sum), scale, sums[half][r]);
        }
      }
      codes += 256;
      scales += kTileOutputs;
      x += kTileInputs;
      ++offsets;
    }
    for (size_t r = 0; r < kRows; ++r) {
      float* out = args.out + (row + r) * args.out_stride + tile * kTileOutputs;
      const __m256 factor = _mm256_set1_ps(args.x.scales[row + r]);
      _mm256_storeu_ps(out, _mm256_mul_ps(sums[0][r], factor));
      _mm256_storeu_ps(out + 8, _mm256_mul_ps(sums[1][r], factor));
    }
  }
};

// Sums of int32 times the scales of the outputs and of the row.
template <size_t kRows>
inline void StoreScaled(const __m256i (*sums)[kRows], const TiledArgs& args, size_t row,
                        size_t tile) {
  const float* scales = static_cast<const float*>(args.scales) + tile * kTileOutputs;
  for (size_t r = 0; r < kRows; ++r) {
    float* out = args.out + (row + r) * args.out_stride + tile * kTileOutputs;
    const __m256 factor = _mm256_set1_ps(args.x.scales[row + r]);
    for (size_t half = 0; half < 2; ++half) {
      const __m256 scale = _mm256_mul_ps(_mm256_loadu_ps(scales + 8 * half), factor);
      _mm256_storeu_ps(out + 8 * half, _mm256_mul_ps(_mm256_cvtepi32_ps(sums[half][r]), scale));
    }
  }
}

struct Int4Channel {
  static constexpr size_t kMaxRows = 4;
  static constexpr size_t kMaxTiles = 1;

  template <size_t kRows, size_t kTiles>
  static void Run(const TiledArgs& args, size_t row, size_t tile, bool /*last*/) {
    const size_t blocks = args.k / kTileInputs;
    const uint8_t* codes = args.codes + tile * blocks * 256;
    const int8_t* x = args.x.codes + row * args.k;
    const __m256i ones = _mm256_set1_epi16(1);
    __m256i sums[2][kRows];
    for (size_t r = 0; r < kRows; ++r) {
      sums[0][r] = sums[1][r] = _mm256_set1_epi32(-8 * args.x.totals[row + r]);
    }
    for (size_t block = 0; block < blocks; ++block, codes += 256, x += kTileInputs) {
      for (size_t half = 0; half < 2; ++half) {
        __m256i products[kRows];
        BlockProducts<kRows>(codes + 32 * half, x, args.k, products);
        for (size_t r = 0; r < kRows; ++r) {
          sums[half][r] = _mm256_add_epi32(sums[half][r], _mm256_madd_epi16(products[r], ones));
        }
      }
    }
    StoreScaled<kRows>(sums, args, row, tile);
  }
};

struct Int8 {
  static constexpr size_t kMaxRows = 4;
  static constexpr size_t kMaxTiles = 1;

  template <size_t kRows, size_t kTiles>
  static void Run(const TiledArgs& args, size_t row, size_t tile, bool /*last*/) {
    const uint8_t* codes = args.codes + tile * kTileOutputs * args.k;
    const int8_t* x = args.x.codes + row * args.k;
    const __m256i ones = _mm256_set1_epi16(1);
    __m256i sums[2][kRows];
    for (size_t r = 0; r < kRows; ++r) sums[0][r] = sums[1][r] = _mm256_setzero_si256();
    for (size_t i = 0; i < args.k; i += 4, codes += 64, x += 4) {
      for (size_t half = 0; half < 2; ++half) {
        // |w| * sign(x, w): pairs of at most 127 * 127 each do not saturate 16 bit.
        const __m256i w = Load(codes + 32 * half);
        const __m256i magnitude = _mm256_abs_epi8(w);
        for (size_t r = 0; r < kRows; ++r) {
          const __m256i inputs = _mm256_sign_epi8(FourInputs(x + r * args.k), w);
          sums[half][r] = _mm256_add_epi32(
              sums[half][r], _mm256_madd_epi16(_mm256_maddubs_epi16(magnitude, inputs), ones));
        }
      }
    }
    StoreScaled<kRows>(sums, args, row, tile);
  }
};

}  // namespace

const TiledLinearKernel kTiledLinearAvx2 = {
    "avx2", kIsaAvx2, &QuantizeAvx2, &RunTiles<Int4>, &RunTiles<Int4Channel>, &RunTiles<Int8>};

}  // namespace nestling::kernels
