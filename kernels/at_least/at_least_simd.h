// SPDX-License-Identifier: Apache-2.0
// The algorithm of every SIMD variant; included once by each of them.
#pragma once

#include "kernels/at_least/at_least.h"
#include "kernels/simd/loops.h"

namespace nestling::kernels {
namespace {

// The highest number of a group decides whether its vectors are looked at one by one.
constexpr size_t kGroup = 64;

inline float Highest(const float* x, size_t n) {
  const F32 none = Set(-__builtin_inff());
  F32 highest = none;
  ForVectors(n, [&](size_t i, auto lanes) {
    const F32 v = KeepOr(Load(x + i, lanes), none, lanes);
    highest = SelectLess(highest, v, v, highest);  // a NaN is not taken
  });
  return MaxLane(highest);
}

inline uint32_t Existing(uint32_t mask, AllLanes) { return mask; }
inline uint32_t Existing(uint32_t mask, FirstLanes lanes) { return mask & ((1u << lanes.n) - 1); }

size_t FindAtLeastSimd(const float* x, size_t n, float threshold, uint32_t* indices) {
  const F32 least = Set(threshold);
  size_t found = 0;
  for (size_t begin = 0; begin < n; begin += kGroup) {
    const size_t size = n - begin < kGroup ? n - begin : kGroup;
    if (!(Highest(x + begin, size) >= threshold)) continue;
    ForVectors(size, [&](size_t i, auto lanes) {
      uint32_t mask = Existing(MaskAtLeast(Load(x + begin + i, lanes), least), lanes);
      for (; mask != 0; mask &= mask - 1) {
        indices[found++] = static_cast<uint32_t>(begin + i) + __builtin_ctz(mask);
      }
    });
  }
  return found;
}

}  // namespace
}  // namespace nestling::kernels
