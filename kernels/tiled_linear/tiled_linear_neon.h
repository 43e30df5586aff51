// SPDX-License-Identifier: Apache-2.0
// What the variants for Arm share.
#pragma once

#include <arm_neon.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/tiled_linear/tiled_linear.h"

namespace nestling::kernels {
namespace {

constexpr size_t kQuarters = 4;  // a tile is four vectors of four outputs

inline float32x4_t Bf16Scales(const uint16_t* scales) {
  return vreinterpretq_f32_u32(vshlq_n_u32(vmovl_u16(vld1_u16(scales)), 16));
}

// Sums of int32 times the scales of the outputs and of the row.
template <size_t kRows>
inline void StoreScaled(const int32x4_t (*sums)[kRows], const TiledArgs& args, size_t row,
                        size_t tile) {
  const float* scales = static_cast<const float*>(args.scales) + tile * kTileOutputs;
  for (size_t r = 0; r < kRows; ++r) {
    float* out = args.out + (row + r) * args.out_stride + tile * kTileOutputs;
    for (size_t q = 0; q < kQuarters; ++q) {
      const float32x4_t scale = vmulq_n_f32(vld1q_f32(scales + 4 * q), args.x.scales[row + r]);
      vst1q_f32(out + 4 * q, vmulq_f32(vcvtq_f32_s32(sums[q][r]), scale));
    }
  }
}

// Sums of scaled blocks times the scales of the rows.
template <size_t kRows>
inline void StoreRows(const float32x4_t (*sums)[kQuarters], const TiledArgs& args, size_t row,
                      size_t tile) {
  for (size_t r = 0; r < kRows; ++r) {
    float* out = args.out + (row + r) * args.out_stride + tile * kTileOutputs;
    for (size_t q = 0; q < kQuarters; ++q) {
      vst1q_f32(out + 4 * q, vmulq_n_f32(sums[r][q], args.x.scales[row + r]));
    }
  }
}

}  // namespace
}  // namespace nestling::kernels
