// SPDX-License-Identifier: Apache-2.0
// The algorithm of every SIMD variant; included once by each of them.
//
// Keys are taken a tile at a time: (1) scores of all rows against the tile, (2) the online softmax
// turns them into weights, (3) the weighted values are added to `out`, which holds the running sum
// all along. Rows go in blocks of kBlockRows, which share every load of k and v, so that one kv
// head is read once for its query heads. A block looks only at the keys that one of its rows sees.
//
// Many rows reuse a tile many times: then f16 and int8 tiles are first widened to f32 in scratch.
// Few rows (decode) widen in registers, where it costs no memory traffic. The scales of int8 rows
// never touch the tile: a key's scale multiplies its score, a value's scale its weight.
#pragma once

#include "kernels/attention/attention.h"
#include "kernels/simd/loops.h"
#include "kernels/simd/math.h"

namespace nestling::kernels {
namespace {

constexpr size_t kBlockRows = 4;
constexpr size_t kWidenRows = 12;  // from this many rows on, tiles are widened in scratch
// __builtin_prefetch's locality: into the second cache level, as a tile's keys and values fill the
// first one together. One thread, 4096 f16 keys from memory: 12.6 GB/s against 7.9 with the first.
constexpr int kSecondLevel = 2;

struct KeyRange {  // of a tile: [begin, end)
  size_t begin;
  size_t end;
};

// `count` consecutive positions from `first_position` on, all of one span.
template <typename T>
struct Tile {
  int64_t first_position;
  size_t count;
  const T* k;  // [count, head_dim]
  const T* v;
  const float* k_scales;  // [count] or null
  const float* v_scales;
  const T* next_k;  // [count, head_dim] of the next tile, to be asked for; null: nothing
};

struct Scratch {
  float* weights;  // [num_rows, kAttentionTile] scores, then weights
  float* max;      // [num_rows] largest score so far
  float* total;    // [num_rows] sum of exp(score - max) so far
  float* shrink;   // [num_rows] what this tile's new maximum does to the sums so far
  float* k;        // [kAttentionTile, head_dim] widened tile
  float* v;
};

// Fits in AttentionScratchFloats: its spare floats cover the alignment.
Scratch DivideScratch(const AttentionArgs& args) {
  constexpr uintptr_t kAlignment = 64;
  const uintptr_t address = reinterpret_cast<uintptr_t>(args.scratch);
  float* next = args.scratch + (kAlignment - address % kAlignment) % kAlignment / sizeof(float);
  Scratch scratch;
  scratch.weights = next;
  scratch.k = scratch.weights + args.num_rows * kAttentionTile;
  scratch.v = scratch.k + kAttentionTile * args.head_dim;
  scratch.max = scratch.v + kAttentionTile * args.head_dim;
  scratch.total = scratch.max + args.num_rows;
  scratch.shrink = scratch.total + args.num_rows;
  return scratch;
}

// The keys of [first_position, first_position + count) that a row sees; empty: begin >= end.
KeyRange RangeOfRow(const AttentionArgs& args, size_t row, int64_t first_position, size_t count) {
  const int64_t begin = args.first_key[row] - first_position;
  const int64_t end = args.last_key[row] - first_position + 1;
  const int64_t limit = static_cast<int64_t>(count);
  return {begin > 0 ? static_cast<size_t>(begin < limit ? begin : limit) : 0,
          end > 0 ? static_cast<size_t>(end < limit ? end : limit) : 0};
}

// The smallest range that covers those of all rows of [row, row + num_rows).
KeyRange RangeOfRows(const AttentionArgs& args, size_t row, size_t num_rows, int64_t first_position,
                     size_t count) {
  KeyRange range = {count, 0};
  for (size_t r = row; r < row + num_rows; ++r) {
    const KeyRange one = RangeOfRow(args, r, first_position, count);
    if (one.begin >= one.end) continue;
    if (one.begin < range.begin) range.begin = one.begin;
    if (one.end > range.end) range.end = one.end;
  }
  return range;
}

// block(row, number of rows as an integral constant's value) for all rows of the call.
template <size_t kRows>
struct RowCount {
  static constexpr size_t value = kRows;
};
template <typename Block>
inline void ForRowBlocks(size_t num_rows, Block block) {
  size_t row = 0;
  for (; row + kBlockRows <= num_rows; row += kBlockRows) block(row, RowCount<kBlockRows>{});
  for (; row < num_rows; ++row) block(row, RowCount<1>{});
}

// ---- (1) Scores ----

// weights[r * kAttentionTile + j] = q[r] . k[j] for kRows rows and `count` keys. With `prefetch`
// (the values of the same keys), those are asked for on the way: step 3 reads them in columns,
// which the hardware does not foresee.
template <size_t kRows, typename T>
void ScoreRows(const float* q, size_t q_stride, const T* k, size_t count, size_t dim,
               const T* prefetch, float* weights) {
  constexpr size_t kKeys = kRows == 1 ? 4 : kScoreKeys;
  static_assert(kRows * kKeys % 4 == 0);
  for (size_t j = 0; j < count; j += kKeys) {
    const T* key[kKeys];
    for (size_t c = 0; c < kKeys; ++c) {  // past the end: the last key again, its sum is dropped
      key[c] = k + (j + c < count ? j + c : count - 1) * dim;
    }
    if (prefetch != nullptr) {
      const char* bytes = reinterpret_cast<const char*>(prefetch + j * dim);
      const size_t num_keys = count - j < kKeys ? count - j : kKeys;
      for (size_t b = 0; b < num_keys * dim * sizeof(T); b += 64) {
        __builtin_prefetch(bytes + b, 0, kSecondLevel);
      }
    }
    F32 sums[kRows * kKeys];
#pragma GCC unroll 16
    for (size_t i = 0; i < kRows * kKeys; ++i) sums[i] = Set(0.0f);
    ForVectors(dim, [&](size_t d, auto lanes) {
      F32 keys[kKeys];
#pragma GCC unroll 4
      for (size_t c = 0; c < kKeys; ++c) keys[c] = Load(key[c] + d, lanes);
#pragma GCC unroll 4
      for (size_t r = 0; r < kRows; ++r) {
        const F32 query = Load(q + r * q_stride + d, lanes);
#pragma GCC unroll 4
        for (size_t c = 0; c < kKeys; ++c) {
          sums[r * kKeys + c] = MulAdd(query, keys[c], sums[r * kKeys + c]);
        }
      }
    });
    float scores[kRows * kKeys];
#pragma GCC unroll 4
    for (size_t i = 0; i < kRows * kKeys; i += 4) {
      SumLanes4(sums[i], sums[i + 1], sums[i + 2], sums[i + 3], scores + i);
    }
    for (size_t r = 0; r < kRows; ++r) {
      for (size_t c = 0; c < kKeys && j + c < count; ++c) {
        weights[r * kAttentionTile + j + c] = scores[r * kKeys + c];
      }
    }
  }
}

// ---- (2) Softmax ----

// Scores of one row to weights, in place, and the row's running values. `own` is what the row sees,
// `block` what its block computed; weights of the rest of the block become 0.
template <typename T>
void SoftmaxRow(const Tile<T>& tile, KeyRange own, KeyRange block, float scale, size_t row,
                const Scratch& scratch) {
  float* weights = scratch.weights + row * kAttentionTile;
  if (own.begin >= own.end) {
    scratch.shrink[row] = 1.0f;
    for (size_t j = block.begin; j < block.end; ++j) weights[j] = 0.0f;
    return;
  }
  for (size_t j = block.begin; j < own.begin; ++j) weights[j] = 0.0f;
  for (size_t j = own.end; j < block.end; ++j) weights[j] = 0.0f;

  weights += own.begin;
  const size_t count = own.end - own.begin;
  const F32 lowest = Set(-__builtin_inff());
  F32 max = lowest;
  ForVectors(count, [&](size_t j, auto lanes) {
    F32 score = Load(weights + j, lanes) * Set(scale);
    if (tile.k_scales != nullptr) {
      score = score * Load(tile.k_scales + own.begin + j, lanes);
    }
    Store(weights + j, score, lanes);
    max = Max(max, KeepOr(score, lowest, lanes));
  });
  const float old_max = scratch.max[row];
  const float tile_max = MaxLane(max);
  const float new_max = tile_max > old_max ? tile_max : old_max;
  const F32 center = Set(new_max);
  const float total = SumVectors(count, [&](size_t j, auto lanes, F32 sum) {
    F32 weight = Keep(Exp(Load(weights + j, lanes) - center), lanes);
    sum = sum + weight;
    if (tile.v_scales != nullptr) {
      weight = weight * Load(tile.v_scales + own.begin + j, lanes);
    }
    Store(weights + j, weight, lanes);
    return sum;
  });
  float shrink[kLanes];
  Store(shrink, Exp(Set(old_max) - center));  // 0 for the first tile: old_max is -infinity
  scratch.shrink[row] = shrink[0];
  scratch.total[row] = scratch.total[row] * shrink[0] + total;
  scratch.max[row] = new_max;
}

// ---- (3) Weighted values ----

// out[r][x] = out[r][x] * shrink[r] + sum_j weights[r][j] * v[j][x] for kRows rows and the columns
// of kVectors vectors. v, out point at the first column; with `next_k`, so does it, and as many
// rows of it are asked for on the way: memory would be idle meanwhile.
template <size_t kRows, size_t kVectors, typename T, typename Lanes>
void AddValues(const float* weights, const float* shrink, const T* v, size_t count, size_t dim,
               const T* next_k, float* out, size_t out_stride, Lanes lanes) {
  F32 sums[kRows * kVectors];
#pragma GCC unroll 4
  for (size_t r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (size_t x = 0; x < kVectors; ++x) {
      sums[r * kVectors + x] = Load(out + r * out_stride + x * kLanes, lanes) * Set(shrink[r]);
    }
  }
  for (size_t j = 0; j < count; ++j) {
    F32 values[kVectors];
#pragma GCC unroll 4
    for (size_t x = 0; x < kVectors; ++x) values[x] = Load(v + j * dim + x * kLanes, lanes);
    if (next_k != nullptr) {
      const char* bytes = reinterpret_cast<const char*>(next_k + j * dim);
#pragma GCC unroll 4
      for (size_t b = 0; b < kVectors * kLanes * sizeof(T); b += 64) {
        __builtin_prefetch(bytes + b, 0, kSecondLevel);
      }
    }
#pragma GCC unroll 4
    for (size_t r = 0; r < kRows; ++r) {
      const F32 weight = Set(weights[r * kAttentionTile + j]);
#pragma GCC unroll 4
      for (size_t x = 0; x < kVectors; ++x) {
        sums[r * kVectors + x] = MulAdd(weight, values[x], sums[r * kVectors + x]);
      }
    }
  }
#pragma GCC unroll 4
  for (size_t r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (size_t x = 0; x < kVectors; ++x) {
      Store(out + r * out_stride + x * kLanes, sums[r * kVectors + x], lanes);
    }
  }
}

// The columns [column, column + kVectors vectors) of all rows: the columns of v stay in the first
// cache level while the rows pass.
template <size_t kVectors, typename T, typename Lanes>
void AddValuesOfAllRows(const AttentionArgs& args, const Tile<T>& tile, const Scratch& scratch,
                        size_t column, Lanes lanes) {
  ForRowBlocks(args.num_rows, [&](size_t row, auto rows) {
    constexpr size_t kRows = decltype(rows)::value;
    const KeyRange range = RangeOfRows(args, row, kRows, tile.first_position, tile.count);
    if (range.begin >= range.end) return;
    AddValues<kRows, kVectors>(scratch.weights + row * kAttentionTile + range.begin,
                               scratch.shrink + row, tile.v + range.begin * args.head_dim + column,
                               range.end - range.begin, args.head_dim,
                               row == 0 && tile.next_k != nullptr ? tile.next_k + column : nullptr,
                               args.out + row * args.out_stride + column, args.out_stride, lanes);
  });
}

// ---- A tile, a span, a call ----

template <typename T>
void ProcessTile(const AttentionArgs& args, const Tile<T>& tile, bool prefetch,
                 const Scratch& scratch) {
  const size_t dim = args.head_dim;
  ForRowBlocks(args.num_rows, [&](size_t row, auto rows) {
    constexpr size_t kRows = decltype(rows)::value;
    const KeyRange range = RangeOfRows(args, row, kRows, tile.first_position, tile.count);
    if (range.begin >= range.end) return;
    ScoreRows<kRows>(args.q + row * args.q_stride, args.q_stride, tile.k + range.begin * dim,
                     range.end - range.begin, dim, prefetch ? tile.v + range.begin * dim : nullptr,
                     scratch.weights + row * kAttentionTile + range.begin);
    prefetch = false;  // once per tile
    for (size_t r = row; r < row + kRows; ++r) {
      const KeyRange own = RangeOfRow(args, r, tile.first_position, tile.count);
      SoftmaxRow(tile, own, range, args.scale, r, scratch);
    }
  });
  constexpr size_t kColumns = kOutputVectors * kLanes;
  size_t column = 0;
  for (; column + kColumns <= dim; column += kColumns) {
    AddValuesOfAllRows<kOutputVectors>(args, tile, scratch, column, AllLanes{});
  }
  for (; column + kLanes <= dim; column += kLanes) {
    AddValuesOfAllRows<1>(args, tile, scratch, column, AllLanes{});
  }
  if (column < dim) {
    AddValuesOfAllRows<1>(args, tile, scratch, column, FirstLanes{dim - column});
  }
}

template <typename T>
void Widen(const T* from, float* to, size_t n) {
  ForVectors(n, [=](size_t i, auto lanes) { Store(to + i, Load(from + i, lanes), lanes); });
}

template <typename T>
void ProcessSpan(const AttentionArgs& args, const KvSpan& span, const Scratch& scratch) {
  const size_t dim = args.head_dim;
  const bool scaled = args.type == KvType::kInt8;
  const bool widen = sizeof(T) < sizeof(float) && args.num_rows >= kWidenRows;
  const KeyRange seen = RangeOfRows(args, 0, args.num_rows, span.first_position, span.count);
  for (size_t begin = seen.begin; begin < seen.end; begin += kAttentionTile) {
    const size_t left = seen.end - begin;
    const size_t count = left < kAttentionTile ? left : kAttentionTile;
    const int64_t first_position = span.first_position + static_cast<int64_t>(begin);
    const T* k = static_cast<const T*>(span.k) + begin * dim;
    const T* v = static_cast<const T*>(span.v) + begin * dim;
    const float* k_scales = scaled ? span.k_scales + begin : nullptr;
    const float* v_scales = scaled ? span.v_scales + begin : nullptr;
    if (widen) {
      Widen(k, scratch.k, count * dim);
      Widen(v, scratch.v, count * dim);
      const Tile<float> tile = {first_position, count,    scratch.k, scratch.v,
                                k_scales,       v_scales, nullptr};
      ProcessTile(args, tile, false, scratch);
    } else {
      const bool whole_next = left >= 2 * kAttentionTile;
      const T* next_k = whole_next ? k + kAttentionTile * dim : nullptr;
      const Tile<T> tile = {first_position, count, k, v, k_scales, v_scales, next_k};
      ProcessTile(args, tile, true, scratch);
    }
  }
}

void AttentionSimd(const AttentionArgs& args) {
  const Scratch scratch = DivideScratch(args);
  for (size_t row = 0; row < args.num_rows; ++row) {
    scratch.max[row] = -__builtin_inff();
    scratch.total[row] = 0.0f;
    memset(args.out + row * args.out_stride, 0, args.head_dim * sizeof(float));
  }
  for (size_t s = 0; s < args.num_spans; ++s) {
    switch (args.type) {
      case KvType::kF32:
        ProcessSpan<float>(args, args.spans[s], scratch);
        break;
      case KvType::kF16:
        ProcessSpan<uint16_t>(args, args.spans[s], scratch);
        break;
      case KvType::kInt8:
        ProcessSpan<int8_t>(args, args.spans[s], scratch);
        break;
    }
  }
  for (size_t row = 0; row < args.num_rows; ++row) {
    float* out = args.out + row * args.out_stride;
    const float total = scratch.total[row];
    const F32 inverse = Set(total > 0.0f ? 1.0f / total : 0.0f);
    ForVectors(args.head_dim, [=](size_t d, auto lanes) {
      Store(out + d, Load(out + d, lanes) * inverse, lanes);
    });
  }
}

}  // namespace
}  // namespace nestling::kernels
