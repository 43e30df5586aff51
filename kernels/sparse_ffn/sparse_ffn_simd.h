// SPDX-License-Identifier: Apache-2.0
// What the SIMD variants share; included after the variant's own functions, in its anonymous
// namespace:
//   KeepAbove(gate, cut, lanes, first, neurons, values)  SelectNeurons of one vector, whose first
//                                                        `lanes` exist
//   DotInt8<n>(row, k, x, totals, sums)                  n tokens at once: exact sums
//   DotInt4<n>(row, scales, blocks, x, offsets, sums)    n tokens at once: sums of scaled blocks
//   UnpackInt4(codes, v)                                 32 elements of a block, in order
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "kernels/simd/loops.h"
#include "kernels/sparse_ffn/sparse_ffn.h"

namespace nestling::kernels {
namespace {

constexpr size_t kBlock = 32;
constexpr size_t kBlockVectors = kBlock / kLanes;
// Tokens that share a row in registers.
constexpr size_t kShared = 4;
// Rows that are summed at once, so that sums are loaded and stored less often.
constexpr size_t kSumRows = 4;
// SumOfTokens: outputs of a token that are in registers; with so many, the unpacked rows of a block
// fit into the first-level cache. Tokens whose sums are kept beside them.
constexpr size_t kSumOutputs = kLanes == 16 ? 128 : 64;
constexpr size_t kSumVectors = kSumOutputs / kLanes;
constexpr size_t kSumTokens = 128;

size_t SelectSimd(const float* gate, size_t n, float cut, uint32_t first, uint32_t* neurons,
                  float* values) {
  const F32 cuts = Set(cut);
  size_t count = 0, i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    count += KeepAbove(Load(gate + i), cuts, kLanes, first + static_cast<uint32_t>(i),
                       neurons + count, values + count);
  }
  if (i < n) {
    uint32_t tail_neurons[kLanes];
    float tail_values[kLanes];
    const size_t kept = KeepAbove(LoadN(gate + i, n - i), cuts, n - i,
                                  first + static_cast<uint32_t>(i), tail_neurons, tail_values);
    for (size_t k = 0; k < kept; ++k) {
      neurons[count + k] = tail_neurons[k];
      values[count + k] = tail_values[k];
    }
    count += kept;
  }
  return count;
}

// Bytes of `count` elements of a row.
inline size_t RowBytes(NeuronFormat format, size_t count) {
  return format == NeuronFormat::kF32    ? count * sizeof(float)
         : format == NeuronFormat::kInt8 ? count
                                         : count / 2;
}

inline const uint8_t* RowOf(const NeuronRows& rows, size_t neuron) {
  return static_cast<const uint8_t*>(rows.codes) + RowBytes(rows.format, neuron * rows.width);
}

inline const uint16_t* BlockScales(const NeuronRows& rows, size_t neuron) {
  return static_cast<const uint16_t*>(rows.scales) + neuron * (rows.width / kBlock);
}

// Rows are read in the order of a list, which no hardware prefetcher follows.
inline void PrefetchBytes(const void* data, size_t bytes) {
  const char* p = static_cast<const char*>(data);
  for (size_t i = 0; i < bytes; i += 64) __builtin_prefetch(p + i);
}

inline void PrefetchRow(const NeuronRows& rows, size_t neuron, size_t begin, size_t end) {
  PrefetchBytes(RowOf(rows, neuron) + RowBytes(rows.format, begin),
                RowBytes(rows.format, end - begin));
  if (rows.format == NeuronFormat::kInt4) {
    PrefetchBytes(BlockScales(rows, neuron) + begin / kBlock,
                  (end - begin) / kBlock * sizeof(uint16_t));
  }
}

// Dots of one row with kTokens tokens.
template <size_t kTokens>
inline void DotsOfRow(const NeuronRows& rows, const NeuronInputs& x, const NeuronUse* uses,
                      float* out) {
  const size_t neuron = uses[0].neuron, width = rows.width, blocks = width / kBlock;
  const int8_t* codes[kTokens];
  switch (rows.format) {
    case NeuronFormat::kF32: {
      const float* row = static_cast<const float*>(rows.codes) + neuron * width;
      for (size_t t = 0; t < kTokens; ++t) {
        const float* inputs = x.floats + uses[t].token * width;
        out[t] = SumVectors(width, [=](size_t i, auto lanes, F32 sum) {
          return MulAdd(Load(row + i, lanes), Load(inputs + i, lanes), sum);
        });
      }
      return;
    }
    case NeuronFormat::kInt8: {
      int32_t totals[kTokens], sums[kTokens];
      for (size_t t = 0; t < kTokens; ++t) {
        codes[t] = x.codes.codes + uses[t].token * width;
        totals[t] = x.codes.totals[uses[t].token];
      }
      DotInt8<kTokens>(reinterpret_cast<const int8_t*>(RowOf(rows, neuron)), width, codes, totals,
                       sums);
      const float scale = static_cast<const float*>(rows.scales)[neuron];
      for (size_t t = 0; t < kTokens; ++t) {
        out[t] = static_cast<float>(sums[t]) * (scale * x.codes.scales[uses[t].token]);
      }
      return;
    }
    case NeuronFormat::kInt4: {
      const int32_t* offsets[kTokens];
      float sums[kTokens];
      for (size_t t = 0; t < kTokens; ++t) {
        codes[t] = x.codes.codes + uses[t].token * width;
        offsets[t] = x.codes.offsets + uses[t].token * blocks;
      }
      DotInt4<kTokens>(RowOf(rows, neuron), BlockScales(rows, neuron), blocks, codes, offsets,
                       sums);
      for (size_t t = 0; t < kTokens; ++t) out[t] = sums[t] * x.codes.scales[uses[t].token];
      return;
    }
  }
}

void DotsSimd(const NeuronRows& rows, const NeuronInputs& x, const NeuronUse* uses, size_t count,
              float* out) {
  constexpr size_t kAhead = 4;  // uses
  for (size_t i = 0; i < count && i < kAhead; ++i) PrefetchRow(rows, uses[i].neuron, 0, rows.width);
  for (size_t i = 0; i < count;) {
    size_t n = 1;
    while (n < kShared && i + n < count && uses[i + n].neuron == uses[i].neuron) ++n;
    for (size_t ahead = i + kAhead; ahead < i + n + kAhead && ahead < count; ++ahead) {
      if (uses[ahead].neuron == uses[ahead - 1].neuron) continue;
      PrefetchRow(rows, uses[ahead].neuron, 0, rows.width);
    }
    if (n == kShared) {
      DotsOfRow<kShared>(rows, x, uses + i, out + i);
    } else if (n >= 2) {
      n = 2;
      DotsOfRow<2>(rows, x, uses + i, out + i);
    } else {
      DotsOfRow<1>(rows, x, uses + i, out + i);
    }
    i += n;
  }
}

// out[j] += sum over kRows rows of factors[r] * row r[begin + j], for a whole number of blocks, or,
// of floats, for anything.
template <size_t kRows>
inline void AddRows(const NeuronRows& rows, const uint32_t* neurons, const float* factors,
                    size_t begin, size_t end, float* out) {
  if (rows.format != NeuronFormat::kInt4) {
    const uint8_t* row[kRows];
    F32 factor[kRows];
    for (size_t r = 0; r < kRows; ++r) {
      row[r] = RowOf(rows, neurons[r]);
      const float scale = rows.format == NeuronFormat::kInt8
                              ? static_cast<const float*>(rows.scales)[neurons[r]]
                              : 1.0f;
      factor[r] = Set(factors[r] * scale);
    }
    const auto add = [&](auto type) {
      using T = decltype(type);
      ForVectors(end - begin, [&](size_t j, auto lanes) {
        F32 sum = Load(out + j, lanes);
        for (size_t r = 0; r < kRows; ++r) {
          sum = MulAdd(factor[r], Load(reinterpret_cast<const T*>(row[r]) + begin + j, lanes), sum);
        }
        Store(out + j, sum, lanes);
      });
    };
    if (rows.format == NeuronFormat::kF32) {
      add(float());
    } else {
      add(int8_t());
    }
    return;
  }
  constexpr size_t kPart = 16;  // blocks
  alignas(64) float scaled[kRows][kPart];
  for (size_t first = begin / kBlock; first < end / kBlock; first += kPart) {
    const size_t blocks = end / kBlock - first < kPart ? end / kBlock - first : kPart;
    const uint8_t* codes[kRows];
    for (size_t r = 0; r < kRows; ++r) {
      codes[r] = RowOf(rows, neurons[r]) + first * (kBlock / 2);
      const uint16_t* scales = BlockScales(rows, neurons[r]) + first;
      const F32 factor = Set(factors[r]);
      ForVectors(blocks, [&](size_t b, auto lanes) {
        Store(scaled[r] + b, factor * LoadBf16(scales + b, lanes), lanes);
      });
    }
    for (size_t b = 0; b < blocks; ++b, out += kBlock) {
      F32 sums[kBlockVectors];
      for (size_t v = 0; v < kBlockVectors; ++v) sums[v] = Load(out + v * kLanes);
      for (size_t r = 0; r < kRows; ++r) {
        F32 elements[kBlockVectors];
        UnpackInt4(codes[r] + b * (kBlock / 2), elements);
        const F32 factor = Set(scaled[r][b]);
        for (size_t v = 0; v < kBlockVectors; ++v) sums[v] = MulAdd(factor, elements[v], sums[v]);
      }
      for (size_t v = 0; v < kBlockVectors; ++v) Store(out + v * kLanes, sums[v]);
    }
  }
}

void SumSimd(const NeuronRows& rows, const uint32_t* neurons, const float* factors, size_t count,
             size_t begin, size_t end, float* out) {
  ForVectors(end - begin, [=](size_t j, auto lanes) { Store(out + j, Set(0.0f), lanes); });
  size_t k = 0;
  const auto prefetch = [&](size_t ahead) {
    if (ahead < count) PrefetchRow(rows, neurons[ahead], begin, end);
  };
  for (size_t ahead = 0; ahead < 2 * kSumRows; ++ahead) prefetch(ahead);
  for (; k + kSumRows <= count; k += kSumRows) {
    for (size_t r = 0; r < kSumRows; ++r) prefetch(k + 2 * kSumRows + r);
    AddRows<kSumRows>(rows, neurons + k, factors + k, begin, end, out);
  }
  for (; k < count; ++k) AddRows<1>(rows, neurons + k, factors + k, begin, end, out);
}

// Elements [begin, end) of a row as they are.
inline void UnpackRow(const NeuronRows& rows, size_t neuron, size_t begin, size_t end, float* out) {
  const uint8_t* row = RowOf(rows, neuron);
  switch (rows.format) {
    case NeuronFormat::kF32:
      ForVectors(end - begin, [=](size_t j, auto lanes) {
        Store(out + j, Load(reinterpret_cast<const float*>(row) + begin + j, lanes), lanes);
      });
      return;
    case NeuronFormat::kInt8: {
      const F32 scale = Set(static_cast<const float*>(rows.scales)[neuron]);
      ForVectors(end - begin, [=](size_t j, auto lanes) {
        const F32 code = Load(reinterpret_cast<const int8_t*>(row) + begin + j, lanes);
        Store(out + j, scale * code, lanes);
      });
      return;
    }
    case NeuronFormat::kInt4: {
      const uint16_t* scales = BlockScales(rows, neuron);
      for (size_t b = begin / kBlock; b < end / kBlock; ++b, out += kBlock) {
        F32 elements[kBlockVectors];
        UnpackInt4(row + b * (kBlock / 2), elements);
        const F32 scale = Set(Bf16ToFloat(scales[b]));
        for (size_t v = 0; v < kBlockVectors; ++v) Store(out + v * kLanes, scale * elements[v]);
      }
      return;
    }
  }
}

// sums[j] += sum_k factors[k] * tile[neurons[k] % kNeuronBlock][j] for j < kSumOutputs.
inline void AddTile(const float* tile, const uint32_t* neurons, const float* factors, size_t count,
                    float* sums) {
  F32 v[kSumVectors];
#pragma GCC unroll 16
  for (size_t i = 0; i < kSumVectors; ++i) v[i] = Load(sums + i * kLanes);
  for (size_t k = 0; k < count; ++k) {
    const float* row = tile + neurons[k] % kNeuronBlock * kSumOutputs;
    const F32 factor = Set(factors[k]);
#pragma GCC unroll 16
    for (size_t i = 0; i < kSumVectors; ++i) v[i] = MulAdd(factor, Load(row + i * kLanes), v[i]);
  }
#pragma GCC unroll 16
  for (size_t i = 0; i < kSumVectors; ++i) Store(sums + i * kLanes, v[i]);
}

// The neurons of a block that one of the tokens needs: there may be none, or no such neuron.
inline uint64_t NeededNeurons(const NeuronSums& sums, size_t block, size_t first_token,
                              size_t last_token) {
  static_assert(kNeuronBlock == 64);
  const uint32_t* starts = sums.starts + block * (sums.num_tokens + 1);
  const uint32_t* neurons = sums.neurons + block * sums.block_stride;
  uint64_t needed = 0;
  for (size_t k = starts[first_token]; k < starts[last_token]; ++k) {
    needed |= uint64_t{1} << (neurons[k] % kNeuronBlock);
  }
  return needed;
}

// Calls body(neuron) for every neuron of a block that is needed.
template <typename Body>
inline void ForNeeded(uint64_t needed, size_t block, Body body) {
  for (; needed != 0; needed &= needed - 1) {
    body(block * kNeuronBlock + static_cast<size_t>(__builtin_ctzll(needed)));
  }
}

// At most kSumOutputs outputs of at most kSumTokens tokens, block after block; the next block's
// rows are on their way meanwhile. Sums are here, because rows of `out` collide in the caches.
inline void SumPart(const NeuronSums& sums, size_t begin, size_t end, size_t first_token,
                    size_t last_token) {
  alignas(64) float tile[kNeuronBlock * kSumOutputs];
  alignas(64) float part[kSumTokens * kSumOutputs];
  const size_t num_tokens = last_token - first_token;
  const auto clear = [](float* values, size_t n) {
    ForVectors(n, [=](size_t i, auto lanes) { Store(values + i, Set(0.0f), lanes); });
  };
  clear(part, num_tokens * kSumOutputs);
  // Of a narrower part, what lies beside it is added up as well.
  if (end - begin < kSumOutputs) clear(tile, kNeuronBlock * kSumOutputs);
  uint64_t next = sums.num_blocks != 0 ? NeededNeurons(sums, 0, first_token, last_token) : 0;
  for (size_t block = 0; block < sums.num_blocks; ++block) {
    const uint64_t needed = next;
    if (block + 1 < sums.num_blocks) {
      next = NeededNeurons(sums, block + 1, first_token, last_token);
      ForNeeded(next, block + 1, [&](size_t n) { PrefetchRow(sums.rows, n, begin, end); });
    }
    ForNeeded(needed, block, [&](size_t n) {
      UnpackRow(sums.rows, n, begin, end, tile + n % kNeuronBlock * kSumOutputs);
    });
    const uint32_t* starts = sums.starts + block * (sums.num_tokens + 1);
    const uint32_t* neurons = sums.neurons + block * sums.block_stride;
    const float* factors = sums.factors + block * sums.block_stride;
    for (size_t t = first_token; t < last_token; ++t) {
      const size_t k = starts[t], count = starts[t + 1] - k;
      if (count == 0) continue;
      AddTile(tile, neurons + k, factors + k, count, part + (t - first_token) * kSumOutputs);
    }
  }
  for (size_t t = first_token; t < last_token; ++t) {
    const float* from = part + (t - first_token) * kSumOutputs;
    float* out = sums.out + t * sums.rows.width + begin;
    ForVectors(end - begin,
               [=](size_t j, auto lanes) { Store(out + j, Load(from + j, lanes), lanes); });
  }
}

void SumOfTokensSimd(const NeuronSums& sums) {
  for (size_t token = 0; token < sums.num_tokens; token += kSumTokens) {
    const size_t last = token + kSumTokens < sums.num_tokens ? token + kSumTokens : sums.num_tokens;
    for (size_t begin = sums.begin; begin < sums.end; begin += kSumOutputs) {
      const size_t end = begin + kSumOutputs < sums.end ? begin + kSumOutputs : sums.end;
      SumPart(sums, begin, end, token, last);
    }
  }
}

}  // namespace
}  // namespace nestling::kernels
