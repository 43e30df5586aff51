// SPDX-License-Identifier: Apache-2.0
// The algorithm of every SIMD variant; included once by each of them.
//
// Two matrix products with a softmax between them, for a block of rows at a time: the block's
// scores against all keys stay in the first two cache levels. Both products keep a block of
// rows x vectors of sums in registers: each step loads the vectors and broadcasts one number a row.
#pragma once

#include "kernels/shared_kv_attention/shared_kv_attention.h"
#include "kernels/simd/loops.h"
#include "kernels/simd/math.h"

namespace nestling::kernels {
namespace {

// 24 sums of 32 registers; 12 of 16; 16 of 32 with four-lane vectors.
constexpr size_t kBlockRows = kLanes == 4 ? 4 : 6;
constexpr size_t kBlockVectors = kLanes == 8 ? 2 : 4;
static_assert(kBlockRows <= kSharedKvRows && kSharedKvTile % (kBlockVectors * kLanes) == 0);

// sums[r][v] = sum_i a[r * a_stride + i * a_step] * b[i * b_stride + v lanes], i < count. Lanes are
// those of the last vector.
template <size_t kRows, size_t kVectors, typename Lanes>
inline void Multiply(const float* a, size_t a_stride, const float* b, size_t b_stride,
                     size_t count, Lanes lanes, F32* sums) {
#pragma GCC unroll 24
  for (size_t s = 0; s < kRows * kVectors; ++s) sums[s] = Set(0.0f);
  for (size_t i = 0; i < count; ++i) {
    F32 vectors[kVectors];
#pragma GCC unroll 4
    for (size_t v = 0; v + 1 < kVectors; ++v) vectors[v] = Load(b + v * kLanes);
    vectors[kVectors - 1] = Load(b + (kVectors - 1) * kLanes, lanes);
#pragma GCC unroll 6
    for (size_t r = 0; r < kRows; ++r) {
      const F32 factor = Set(a[r * a_stride + i]);
#pragma GCC unroll 4
      for (size_t v = 0; v < kVectors; ++v) {
        sums[r * kVectors + v] = MulAdd(factor, vectors[v], sums[r * kVectors + v]);
      }
    }
    b += b_stride;
  }
}

// scores[r][j] = q[r] . k[j] for all keys of all tiles; rows of scores are `stride` floats apart.
template <size_t kRows>
void Scores(const SharedKvArgs& args, const float* q, float* scores, size_t stride) {
  for (size_t key = 0; key < args.num_keys; key += kBlockVectors * kLanes) {
    const float* tile = args.packed_keys + key / kSharedKvTile * kSharedKvTile * args.dim +
                        key % kSharedKvTile;
    F32 sums[kRows * kBlockVectors];
    Multiply<kRows, kBlockVectors>(q, args.dim, tile, kSharedKvTile, args.dim, AllLanes{}, sums);
#pragma GCC unroll 6
    for (size_t r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
      for (size_t v = 0; v < kBlockVectors; ++v) {
        Store(scores + r * stride + key + v * kLanes, sums[r * kBlockVectors + v]);
      }
    }
  }
}

// Scores to exp(scale * (score - highest)); returns 1 / their sum.
float Softmax(float* scores, size_t n, float scale) {
  F32 highest[2] = {Set(scores[0]), Set(scores[0])};
  size_t odd = 0;
  ForVectors(n, [&](size_t i, auto lanes) {
    highest[odd] = Max(KeepOr(Load(scores + i, lanes), highest[odd], lanes), highest[odd]);
    odd ^= 1;
  });
  const F32 by = Set(scale);
  const F32 shift = Set(-scale * MaxLane(Max(highest[0], highest[1])));
  const float total = SumVectors(n, [=](size_t i, auto lanes, F32 sum) {
    const F32 weight = Exp(MulAdd(Load(scores + i, lanes), by, shift));
    Store(scores + i, weight, lanes);
    return sum + Keep(weight, lanes);
  });
  return 1.0f / total;
}

// The columns [column, column + kVectors vectors) of the output, as far as `lanes` says.
template <size_t kRows, size_t kVectors, typename Lanes>
void Outputs(const SharedKvArgs& args, const float* weights, size_t stride, const float* inverse,
             size_t column, Lanes lanes, float* out) {
  F32 sums[kRows * kVectors];
  Multiply<kRows, kVectors>(weights, stride, args.values + column, args.dim, args.num_keys, lanes,
                            sums);
#pragma GCC unroll 6
  for (size_t r = 0; r < kRows; ++r) {
    float* row = out + r * args.dim + column;
    const F32 by = Set(inverse[r]);
#pragma GCC unroll 4
    for (size_t v = 0; v + 1 < kVectors; ++v) {
      Store(row + v * kLanes, sums[r * kVectors + v] * by);
    }
    Store(row + (kVectors - 1) * kLanes, sums[r * kVectors + kVectors - 1] * by, lanes);
  }
}

template <size_t kRows>
void Rows(const SharedKvArgs& args, size_t row) {
  const size_t stride = SharedKvTiles(args.num_keys) * kSharedKvTile;
  Scores<kRows>(args, args.q + row * args.dim, args.scratch, stride);
  float inverse[kRows];
  for (size_t r = 0; r < kRows; ++r) {
    inverse[r] = Softmax(args.scratch + r * stride, args.num_keys, args.scale);
  }
  float* out = args.out + row * args.dim;
  size_t column = 0;
  for (; column + kBlockVectors * kLanes <= args.dim; column += kBlockVectors * kLanes) {
    Outputs<kRows, kBlockVectors>(args, args.scratch, stride, inverse, column, AllLanes{}, out);
  }
  for (; column + 2 * kLanes <= args.dim; column += 2 * kLanes) {
    Outputs<kRows, 2>(args, args.scratch, stride, inverse, column, AllLanes{}, out);
  }
  if (column + kLanes <= args.dim) {
    Outputs<kRows, 1>(args, args.scratch, stride, inverse, column, AllLanes{}, out);
    column += kLanes;
  }
  if (column < args.dim) {
    Outputs<kRows, 1>(args, args.scratch, stride, inverse, column, FirstLanes{args.dim - column},
                      out);
  }
}

// The last rows, fewer than a block.
template <size_t kRows>
void LastRows(const SharedKvArgs& args, size_t row, size_t count) {
  if constexpr (kRows > 0) {
    if (count == kRows) {
      Rows<kRows>(args, row);
    } else {
      LastRows<kRows - 1>(args, row, count);
    }
  }
}

void AttentionSimd(const SharedKvArgs& args) {
  size_t row = 0;
  for (; row + kBlockRows <= args.num_rows; row += kBlockRows) Rows<kBlockRows>(args, row);
  LastRows<kBlockRows - 1>(args, row, args.num_rows - row);
}

}  // namespace
}  // namespace nestling::kernels
