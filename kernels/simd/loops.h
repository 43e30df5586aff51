// SPDX-License-Identifier: Apache-2.0
// Loops over rows of n numbers for the F32 of a vec_<isa>.h. A loop body is
// written once: it gets the index of a vector and which of its lanes exist, and hands the latter on
// to Load and Store. The compiler makes a full-vector and a tail version of it.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "kernels/simd/vec.h"

namespace nestling::kernels {
namespace {

struct AllLanes {};
struct FirstLanes {
  size_t n;
};

template <typename T>
inline F32 Load(const T* p, AllLanes) {
  return Load(p);
}
template <typename T>
inline F32 Load(const T* p, FirstLanes lanes) {
  return LoadN(p, lanes.n);
}
inline F32 LoadBf16(const uint16_t* p, AllLanes) { return LoadBf16(p); }
inline F32 LoadBf16(const uint16_t* p, FirstLanes lanes) { return LoadBf16N(p, lanes.n); }
template <typename T>
inline void Store(T* p, F32 a, AllLanes) {
  Store(p, a);
}
template <typename T>
inline void Store(T* p, F32 a, FirstLanes lanes) {
  StoreN(p, a, lanes.n);
}
// The lanes that do not exist become 0, or those of `other`.
inline F32 Keep(F32 a, AllLanes) { return a; }
inline F32 Keep(F32 a, FirstLanes lanes) { return FirstN(a, Set(0.0f), lanes.n); }
inline F32 KeepOr(F32 a, F32, AllLanes) { return a; }
inline F32 KeepOr(F32 a, F32 other, FirstLanes lanes) { return FirstN(a, other, lanes.n); }

// body(i, lanes) for every vector of [0, n).
template <typename Body>
inline void ForVectors(size_t n, Body body) {
  size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) body(i, AllLanes{});
  if (i < n) body(i, FirstLanes{n - i});
}

// The lane sum of body(i, lanes, sum), which returns `sum` plus the terms at i. Four accumulators,
// so that the additions do not wait for each other.
template <typename Body>
inline float SumVectors(size_t n, Body body) {
  F32 sum0 = Set(0.0f), sum1 = Set(0.0f), sum2 = Set(0.0f), sum3 = Set(0.0f);
  size_t i = 0;
  for (; i + 4 * kLanes <= n; i += 4 * kLanes) {
    sum0 = body(i, AllLanes{}, sum0);
    sum1 = body(i + kLanes, AllLanes{}, sum1);
    sum2 = body(i + 2 * kLanes, AllLanes{}, sum2);
    sum3 = body(i + 3 * kLanes, AllLanes{}, sum3);
  }
  for (; i + kLanes <= n; i += kLanes) sum0 = body(i, AllLanes{}, sum0);
  if (i < n) sum1 = body(i, FirstLanes{n - i}, sum1);
  return SumLanes((sum0 + sum1) + (sum2 + sum3));
}

// 1 / sqrt(sum_squares / n + eps).
inline float InverseRms(float sum_squares, size_t n, float eps) {
  return 1.0f / __builtin_sqrtf(sum_squares / static_cast<float>(n) + eps);
}

inline float SumSquares(const float* x, size_t n) {
  return SumVectors(n, [x](size_t i, auto lanes, F32 sum) {
    const F32 v = Load(x + i, lanes);
    return MulAdd(v, v, sum);
  });
}

}  // namespace
}  // namespace nestling::kernels
