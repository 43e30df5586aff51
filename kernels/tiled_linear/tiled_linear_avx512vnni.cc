// SPDX-License-Identifier: Apache-2.0
#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#include "kernels/isa.h"
#include "kernels/tiled_linear/tiled_linear_blocked.h"

namespace nestling::kernels {
namespace {

// How far ahead of its products a single row asks for its weights, in bytes of codes. It is as fast
// as memory is, and processors stop looking ahead at the end of a page of 4 KiB.
constexpr size_t kBytesAhead = 2048;

// Asks for kBytes of weights that lie `ahead` further on, which may be beyond their end. Not to
// stay in the caches: a weight is used once a token.
template <size_t kBytes>
inline void PrefetchAhead(const void* weights, size_t ahead) {
  constexpr size_t kLine = 64;
  const uintptr_t place = reinterpret_cast<uintptr_t>(weights) + ahead;
  for (size_t i = 0; i < kBytes; i += kLine) {
    _mm_prefetch(reinterpret_cast<const char*>(place + i), _MM_HINT_NTA);
  }
}

// Asks for kBytes at the same place of the kTiles next tiles.
template <size_t kTiles, size_t kBytes>
inline void PrefetchTiles(const void* weights, size_t tile_bytes) {
  for (size_t t = 0; t < kTiles; ++t) PrefetchAhead<kBytes>(weights, (kTiles + t) * tile_bytes);
}

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

// products[t][r] += the products of a block of 32 inputs of kTiles tiles, tile_bytes apart, with
// those of kRows rows, k apart.
template <size_t kRows, size_t kTiles>
__attribute__((always_inline)) inline void AddBlock(const uint8_t* codes, size_t tile_bytes,
                                                    const int8_t* x, size_t k,
                                                    __m512i (*products)[kRows]) {
  const __m512i low_half = _mm512_set1_epi8(15);
#pragma GCC unroll 4
  for (size_t v = 0; v < 4; ++v) {
#pragma GCC unroll 2
    for (size_t half = 0; half < 2; ++half) {
      __m512i w[kTiles];
#pragma GCC unroll 2
      for (size_t t = 0; t < kTiles; ++t) {
        const __m512i pair = _mm512_loadu_si512(codes + t * tile_bytes + 64 * v);
        w[t] = _mm512_and_si512(half == 0 ? pair : _mm512_srli_epi16(pair, 4), low_half);
      }
#pragma GCC unroll 6
      for (size_t r = 0; r < kRows; ++r) {
        const __m512i inputs = FourInputs(x + r * k + 16 * half + 4 * v);
#pragma GCC unroll 2
        for (size_t t = 0; t < kTiles; ++t) {
          products[t][r] = _mm512_dpbusd_epi32(products[t][r], w[t], inputs);
        }
      }
    }
  }
}

// `low_sum` and the products of a block of 32 inputs of one tile and one row; later lines are asked
// for.
// Two sums, so that products do not wait for each other.
__attribute__((always_inline)) inline __m512i RowProducts(const uint8_t* codes, const int8_t* x,
                                                          __m512i low_sum) {
  const __m512i low_half = _mm512_set1_epi8(15);
  PrefetchAhead<256>(codes, kBytesAhead);
  __m512i high_sum = _mm512_setzero_si512();
#pragma GCC unroll 4
  for (size_t v = 0; v < 4; ++v) {
    const __m512i pair = _mm512_loadu_si512(codes + 64 * v);
    low_sum = _mm512_dpbusd_epi32(low_sum, _mm512_and_si512(pair, low_half), FourInputs(x + 4 * v));
    high_sum = _mm512_dpbusd_epi32(high_sum, _mm512_and_si512(_mm512_srli_epi16(pair, 4), low_half),
                                   FourInputs(x + 16 + 4 * v));
  }
  return _mm512_add_epi32(low_sum, high_sum);
}

// Sums of int32 times the scales of the outputs and of the row.
template <size_t kRows, size_t kTiles>
inline void StoreScaled(const __m512i (*sums)[kRows], const TiledArgs& args, size_t row,
                        size_t tile) {
  for (size_t t = 0; t < kTiles; ++t) {
    const __m512 scale =
        _mm512_loadu_ps(static_cast<const float*>(args.scales) + (tile + t) * kTileOutputs);
    for (size_t r = 0; r < kRows; ++r) {
      const __m512 factor = _mm512_mul_ps(scale, _mm512_set1_ps(args.x.scales[row + r]));
      _mm512_storeu_ps(args.out + (row + r) * args.out_stride + (tile + t) * kTileOutputs,
                       _mm512_mul_ps(_mm512_cvtepi32_ps(sums[t][r]), factor));
    }
  }
}

// Up to 6 rows of two tiles: 12 registers of f32 sums and 12 of products. An input that was
// broadcast serves both tiles, because broadcasts from memory, not products, would be the limit.
struct Int4 {
  static constexpr size_t kMaxRows = 6;
  static constexpr size_t kMaxTiles = 2;

  template <size_t kRows, size_t kTiles>
  static void Run(const TiledArgs& args, size_t row, size_t tile, bool last) {
    const size_t blocks = args.k / kTileInputs;
    const uint8_t* codes = args.codes + tile * blocks * 256;
    const uint16_t* scales =
        static_cast<const uint16_t*>(args.scales) + tile * blocks * kTileOutputs;
    const int8_t* x = args.x.codes + row * args.k;
    const int32_t* offsets = args.x.offsets + row * blocks;
    if constexpr (kRows == 1) {
      __m512 sum = _mm512_setzero_ps();
      for (size_t block = 0; block < blocks; ++block) {
        PrefetchAhead<32>(scales, kBytesAhead / 8);
        const __m512i products = RowProducts(codes, x, _mm512_set1_epi32(offsets[block]));
        sum = _mm512_fmadd_ps(_mm512_cvtepi32_ps(products), Bf16Scales(scales), sum);
        codes += 256;
        scales += kTileOutputs;
        x += kTileInputs;
      }
      _mm512_storeu_ps(args.out + row * args.out_stride + tile * kTileOutputs,
                       _mm512_mul_ps(sum, _mm512_set1_ps(args.x.scales[row])));
      return;
    }
    __m512 sums[kTiles][kRows];
    for (size_t t = 0; t < kTiles; ++t) {
      for (size_t r = 0; r < kRows; ++r) sums[t][r] = _mm512_setzero_ps();
    }
    for (size_t block = 0; block < blocks; ++block) {
      __m512i products[kTiles][kRows];
#pragma GCC unroll 6
      for (size_t r = 0; r < kRows; ++r) {
        const __m512i offset = _mm512_set1_epi32(offsets[r * blocks]);
#pragma GCC unroll 2
        for (size_t t = 0; t < kTiles; ++t) products[t][r] = offset;
      }
      AddBlock<kRows, kTiles>(codes, blocks * 256, x, args.k, products);
      if (last) {
        PrefetchTiles<kTiles, 256>(codes, blocks * 256);
        PrefetchTiles<kTiles, 32>(scales, blocks * 32);
      }
#pragma GCC unroll 2
      for (size_t t = 0; t < kTiles; ++t) {
        const __m512 scale = Bf16Scales(scales + t * blocks * kTileOutputs);
#pragma GCC unroll 6
        for (size_t r = 0; r < kRows; ++r) {
          sums[t][r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(products[t][r]), scale, sums[t][r]);
        }
      }
      codes += 256;
      scales += kTileOutputs;
      x += kTileInputs;
      ++offsets;
    }
    for (size_t t = 0; t < kTiles; ++t) {
      for (size_t r = 0; r < kRows; ++r) {
        _mm512_storeu_ps(args.out + (row + r) * args.out_stride + (tile + t) * kTileOutputs,
                         _mm512_mul_ps(sums[t][r], _mm512_set1_ps(args.x.scales[row + r])));
      }
    }
  }
};

// All products of an output are one sum. The registers would hold 12 rows of two tiles; 6 measured
// fastest, 8 % ahead of 12.
struct Int4Channel {
  static constexpr size_t kMaxRows = 6;
  static constexpr size_t kMaxTiles = 2;

  template <size_t kRows, size_t kTiles>
  static void Run(const TiledArgs& args, size_t row, size_t tile, bool last) {
    const size_t blocks = args.k / kTileInputs;
    const uint8_t* codes = args.codes + tile * blocks * 256;
    const int8_t* x = args.x.codes + row * args.k;
    if constexpr (kRows == 1) {
      __m512i sums[1][1] = {{_mm512_set1_epi32(-8 * args.x.totals[row])}};
      for (size_t block = 0; block < blocks; ++block, codes += 256, x += kTileInputs) {
        sums[0][0] = RowProducts(codes, x, sums[0][0]);
      }
      StoreScaled<1, 1>(sums, args, row, tile);
      return;
    }
    __m512i sums[kTiles][kRows];
#pragma GCC unroll 2
    for (size_t t = 0; t < kTiles; ++t) {
#pragma GCC unroll 6
      for (size_t r = 0; r < kRows; ++r) {
        sums[t][r] = _mm512_set1_epi32(-8 * args.x.totals[row + r]);
      }
    }
    for (size_t block = 0; block < blocks; ++block, codes += 256, x += kTileInputs) {
      AddBlock<kRows, kTiles>(codes, blocks * 256, x, args.k, sums);
      if (last) PrefetchTiles<kTiles, 256>(codes, blocks * 256);
    }
    StoreScaled<kRows, kTiles>(sums, args, row, tile);
  }
};

struct Int8 {
  static constexpr size_t kMaxRows = 6;
  static constexpr size_t kMaxTiles = 2;

  template <size_t kRows, size_t kTiles>
  static void Run(const TiledArgs& args, size_t row, size_t tile, bool last) {
    const size_t tile_bytes = kTileOutputs * args.k;
    const uint8_t* codes = args.codes + tile * tile_bytes;
    const int8_t* x = args.x.codes + row * args.k;
    // VNNI multiplies unsigned by signed: weights + 128 are unsigned, and 128 times the sum of
    // the inputs is taken off again.
    const __m512i flip = _mm512_set1_epi8(static_cast<char>(0x80));
    __m512i sums[kTiles][kRows];
    for (size_t t = 0; t < kTiles; ++t) {
      for (size_t r = 0; r < kRows; ++r) {
        sums[t][r] = _mm512_set1_epi32(-128 * args.x.totals[row + r]);
      }
    }
    for (size_t i = 0; i < args.k; i += kTileInputs, codes += 512, x += kTileInputs) {
      if constexpr (kRows == 1) {
        PrefetchAhead<512>(codes, kBytesAhead);
      } else if (last) {
        PrefetchTiles<kTiles, 512>(codes, tile_bytes);
      }
#pragma GCC unroll 8
      for (size_t g = 0; g < 8; ++g) {
        __m512i w[kTiles];
#pragma GCC unroll 2
        for (size_t t = 0; t < kTiles; ++t) {
          w[t] = _mm512_xor_si512(_mm512_loadu_si512(codes + t * tile_bytes + 64 * g), flip);
        }
#pragma GCC unroll 6
        for (size_t r = 0; r < kRows; ++r) {
          const __m512i inputs = FourInputs(x + r * args.k + 4 * g);
#pragma GCC unroll 2
          for (size_t t = 0; t < kTiles; ++t) {
            sums[t][r] = _mm512_dpbusd_epi32(sums[t][r], w[t], inputs);
          }
        }
      }
    }
    StoreScaled<kRows, kTiles>(sums, args, row, tile);
  }
};

}  // namespace

const TiledLinearKernel kTiledLinearAvx512vnni = {
    "avx512vnni",    kIsaAvx512 | kIsaAvx512Vnni, &QuantizeAvx512,
    &RunTiles<Int4>, &RunTiles<Int4Channel>,      &RunTiles<Int8>};

}  // namespace nestling::kernels
