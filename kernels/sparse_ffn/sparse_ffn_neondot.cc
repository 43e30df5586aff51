// SPDX-License-Identifier: Apache-2.0
#include <arm_neon.h>
#include <stdint.h>
#include <string.h>

#include "kernels/isa.h"
#include "kernels/simd/loops.h"
#include "kernels/sparse_ffn/sparse_ffn.h"

namespace nestling::kernels {
namespace {

inline float Bf16ToFloat(uint16_t bits) {
  const uint32_t wide = static_cast<uint32_t>(bits) << 16;
  float value;
  memcpy(&value, &wide, sizeof value);
  return value;
}

inline size_t KeepAbove(F32 gate, F32 cut, size_t lanes, uint32_t first, uint32_t* neurons,
                        float* values) {
  const uint32x4_t above = vcgtq_f32(gate.v, cut.v);
  if (vmaxvq_u32(above) == 0) return 0;
  uint32_t kept[kLanes];
  float shifted[kLanes];
  vst1q_u32(kept, above);
  Store(shifted, gate - cut);
  size_t count = 0;
  for (size_t lane = 0; lane < lanes; ++lane) {
    if (kept[lane] == 0) continue;
    neurons[count] = first + static_cast<uint32_t>(lane);
    values[count++] = shifted[lane];
  }
  return count;
}

template <size_t kTokens>
inline void DotInt8(const int8_t* row, size_t k, const int8_t* const* x, const int32_t*,
                    int32_t* sums) {
  int32x4_t products[kTokens][2];
  for (size_t t = 0; t < kTokens; ++t) products[t][0] = products[t][1] = vdupq_n_s32(0);
  for (size_t i = 0; i < k; i += 32) {
    const int8x16_t low = vld1q_s8(row + i), high = vld1q_s8(row + i + 16);
    for (size_t t = 0; t < kTokens; ++t) {
      products[t][0] = vdotq_s32(products[t][0], low, vld1q_s8(x[t] + i));
      products[t][1] = vdotq_s32(products[t][1], high, vld1q_s8(x[t] + i + 16));
    }
  }
  for (size_t t = 0; t < kTokens; ++t) {
    sums[t] = vaddvq_s32(vaddq_s32(products[t][0], products[t][1]));
  }
}

template <size_t kTokens>
inline void DotInt4(const uint8_t* row, const uint16_t* scales, size_t blocks,
                    const int8_t* const* x, const int32_t* const* offsets, float* sums) {
  float32x4_t sum[kTokens];
  for (size_t t = 0; t < kTokens; ++t) sum[t] = vdupq_n_f32(0.0f);
  for (size_t b = 0; b < blocks; ++b) {
    const uint8x16_t pairs = vld1q_u8(row + b * 16);
    const int8x16_t low = vreinterpretq_s8_u8(vandq_u8(pairs, vdupq_n_u8(15)));
    const int8x16_t high = vreinterpretq_s8_u8(vshrq_n_u8(pairs, 4));
    const float scale = Bf16ToFloat(scales[b]);
    for (size_t t = 0; t < kTokens; ++t) {
      // The codes' zero point goes into one lane.
      int32x4_t products = vsetq_lane_s32(offsets[t][b], vdupq_n_s32(0), 0);
      products = vdotq_s32(products, low, vld1q_s8(x[t] + b * 32));
      products = vdotq_s32(products, high, vld1q_s8(x[t] + b * 32 + 16));
      sum[t] = vfmaq_n_f32(sum[t], vcvtq_f32_s32(products), scale);
    }
  }
  for (size_t t = 0; t < kTokens; ++t) sums[t] = vaddvq_f32(sum[t]);
}

inline void UnpackInt4(const uint8_t* codes, F32* v) {
  const uint8x16_t pairs = vld1q_u8(codes);
  const int8x16_t halves[2] = {vreinterpretq_s8_u8(vandq_u8(pairs, vdupq_n_u8(15))),
                               vreinterpretq_s8_u8(vshrq_n_u8(pairs, 4))};
  for (size_t half = 0; half < 2; ++half) {
    const int8x16_t elements = vsubq_s8(halves[half], vdupq_n_s8(8));
    const int16x8_t low = vmovl_s8(vget_low_s8(elements)), high = vmovl_high_s8(elements);
    v[4 * half] = {vcvtq_f32_s32(vmovl_s16(vget_low_s16(low)))};
    v[4 * half + 1] = {vcvtq_f32_s32(vmovl_high_s16(low))};
    v[4 * half + 2] = {vcvtq_f32_s32(vmovl_s16(vget_low_s16(high)))};
    v[4 * half + 3] = {vcvtq_f32_s32(vmovl_high_s16(high))};
  }
}

}  // namespace
}  // namespace nestling::kernels

#include "kernels/sparse_ffn/sparse_ffn_simd.h"

namespace nestling::kernels {

const SparseFfnKernel kSparseFfnNeondot = {
    "neondot", kIsaNeon | kIsaNeonDot, &SelectSimd, &DotsSimd, &SumSimd, &SumOfTokensSimd};

}  // namespace nestling::kernels
