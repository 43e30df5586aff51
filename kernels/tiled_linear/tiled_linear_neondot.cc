// SPDX-License-Identifier: Apache-2.0
#include <arm_neon.h>
#include <stdint.h>
#include <string.h>

#include "kernels/isa.h"
#include "kernels/tiled_linear/tiled_linear_blocked.h"
#include "kernels/tiled_linear/tiled_linear_neon.h"

namespace nestling::kernels {
namespace {

void QuantizeNeon(const float* x, size_t k, int8_t* codes, float* scale, int32_t* offsets,
                  int32_t* total) {
  float32x4_t most = vdupq_n_f32(0.0f);
  for (size_t i = 0; i < k; i += 4) most = vmaxq_f32(most, vabsq_f32(vld1q_f32(x + i)));
  const float largest = vmaxvq_f32(most);
  const float inverse = largest > 0.0f ? 127.0f / largest : 0.0f;
  *scale = largest / 127.0f;
  int32_t sum = 0;
  for (size_t i = 0; i < k; i += 32) {
    int32x4_t parts = vdupq_n_s32(0);
    for (size_t p = 0; p < 4; ++p) {
      const int32x4_t a = vcvtnq_s32_f32(vmulq_n_f32(vld1q_f32(x + i + 8 * p), inverse));
      const int32x4_t b = vcvtnq_s32_f32(vmulq_n_f32(vld1q_f32(x + i + 8 * p + 4), inverse));
      parts = vaddq_s32(parts, vaddq_s32(a, b));
      vst1_s8(codes + i + 8 * p, vqmovn_s16(vcombine_s16(vqmovn_s32(a), vqmovn_s32(b))));
    }
    const int32_t block = vaddvq_s32(parts);
    offsets[i / 32] = -8 * block;
    sum += block;
  }
  *total = sum;
}

template <int kLane>
struct Lane {
  static constexpr int value = kLane;
};

// products[r] += the products of a block's 32 inputs of four outputs with those of the rows.
template <size_t kRows>
__attribute__((always_inline)) inline void AddBlock(const uint8_t* codes,
                                                    const int8x16_t (*inputs)[2],
                                                    int32x4_t* products) {
  const uint8x16_t low_half = vdupq_n_u8(15);
  const auto add = [&](auto lane) {
    constexpr int kLane = decltype(lane)::value;
    const uint8x16_t pair = vld1q_u8(codes + 64 * kLane);
    const int8x16_t low = vreinterpretq_s8_u8(vandq_u8(pair, low_half));
    const int8x16_t high = vreinterpretq_s8_u8(vshrq_n_u8(pair, 4));
    for (size_t r = 0; r < kRows; ++r) {
      products[r] = vdotq_laneq_s32(products[r], low, inputs[r][0], kLane);
      products[r] = vdotq_laneq_s32(products[r], high, inputs[r][1], kLane);
    }
  };
  add(Lane<0>());
  add(Lane<1>());
  add(Lane<2>());
  add(Lane<3>());
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
    float32x4_t sums[kRows][kQuarters];
    for (size_t r = 0; r < kRows; ++r) {
      for (size_t q = 0; q < kQuarters; ++q) sums[r][q] = vdupq_n_f32(0.0f);
    }
    for (size_t block = 0; block < blocks; ++block) {
      int8x16_t inputs[kRows][2];
      for (size_t r = 0; r < kRows; ++r) {
        inputs[r][0] = vld1q_s8(x + r * args.k);
        inputs[r][1] = vld1q_s8(x + r * args.k + 16);
      }
      for (size_t q = 0; q < kQuarters; ++q) {
        int32x4_t products[kRows];
        for (size_t r = 0; r < kRows; ++r) products[r] = vdupq_n_s32(offsets[r * blocks]);
        AddBlock<kRows>(codes + 16 * q, inputs, products);
        const float32x4_t scale = Bf16Scales(scales + 4 * q);
        for (size_t r = 0; r < kRows; ++r) {
          sums[r][q] = vfmaq_f32(sums[r][q], vcvtq_f32_s32(products[r]), scale);
        }
      }
      codes += 256;
      scales += kTileOutputs;
      x += kTileInputs;
      ++offsets;
    }
    StoreRows<kRows>(sums, args, row, tile);
  }
};

struct Int4Channel {
  static constexpr size_t kMaxRows = 4;
  static constexpr size_t kMaxTiles = 1;

  template <size_t kRows, size_t kTiles>
  static void Run(const TiledArgs& args, size_t row, size_t tile, bool /*last*/) {
    const size_t blocks = args.k / kTileInputs;
    const uint8_t* codes = args.codes + tile * blocks * 256;
    const int8_t* x = args.x.codes + row * args.k;
    int32x4_t sums[kQuarters][kRows];
    for (size_t r = 0; r < kRows; ++r) {
      for (size_t q = 0; q < kQuarters; ++q) {
        sums[q][r] = vdupq_n_s32(-8 * args.x.totals[row + r]);
      }
    }
    for (size_t block = 0; block < blocks; ++block, codes += 256, x += kTileInputs) {
      int8x16_t inputs[kRows][2];
      for (size_t r = 0; r < kRows; ++r) {
        inputs[r][0] = vld1q_s8(x + r * args.k);
        inputs[r][1] = vld1q_s8(x + r * args.k + 16);
      }
      for (size_t q = 0; q < kQuarters; ++q) AddBlock<kRows>(codes + 16 * q, inputs, sums[q]);
    }
    StoreScaled<kRows>(sums, args, row, tile);
  }
};

struct Int8 {
  static constexpr size_t kMaxRows = 4;
  static constexpr size_t kMaxTiles = 1;

  template <size_t kRows, size_t kTiles>
  static void Run(const TiledArgs& args, size_t row, size_t tile, bool /*last*/) {
    const int8_t* codes =
        reinterpret_cast<const int8_t*>(args.codes) + tile * kTileOutputs * args.k;
    const int8_t* x = args.x.codes + row * args.k;
    int32x4_t sums[kQuarters][kRows];
    for (size_t r = 0; r < kRows; ++r) {
      for (size_t q = 0; q < kQuarters; ++q) sums[q][r] = vdupq_n_s32(0);
    }
    for (size_t i = 0; i < args.k; i += 4, codes += 64, x += 4) {
      for (size_t r = 0; r < kRows; ++r) {
        int32_t four;
        memcpy(&four, x + r * args.k, sizeof four);
        const int8x16_t inputs = vreinterpretq_s8_s32(vdupq_n_s32(four));
        for (size_t q = 0; q < kQuarters; ++q) {
          sums[q][r] = vdotq_s32(sums[q][r], vld1q_s8(codes + 16 * q), inputs);
        }
      }
    }
    StoreScaled<kRows>(sums, args, row, tile);
  }
};

}  // namespace

const TiledLinearKernel kTiledLinearNeondot = {
    "neondot",       kIsaNeon | kIsaNeonDot, &QuantizeNeon,
    &RunTiles<Int4>, &RunTiles<Int4Channel>, &RunTiles<Int8>};

}  // namespace nestling::kernels
