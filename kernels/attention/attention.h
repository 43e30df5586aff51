// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace nestling::kernels {

enum class KvType { kF32, kF16, kInt8 };

// A run of consecutive positions of the kv cache of one kv head. Row j belongs to position
// first_position + j. k and v: [count, head_dim] contiguous, of the KvType. k_scales, v_scales:
// [count] f32, one per row, for kInt8 only (value = code * scale); ignored otherwise.
struct KvSpan {
  int64_t first_position;
  size_t count;
  const void* k;
  const void* v;
  const float* k_scales;
  const float* v_scales;
};

// A block of query rows that share one kv head. All pointers are borrowed for the call.
struct AttentionArgs {
  const float* q;  // [num_rows, head_dim], rows q_stride floats apart
  size_t q_stride;
  float* out;  // [num_rows, head_dim], rows out_stride floats apart; not q
  size_t out_stride;
  size_t num_rows;
  const int64_t* first_key;  // [num_rows] row r sees the positions first_key[r] ..
  const int64_t* last_key;   // [num_rows] .. last_key[r], both inclusive
  KvSpan spans[2];           // a ring buffer that wraps has two; disjoint, in any order
  size_t num_spans;          // 1 or 2
  size_t head_dim;           // even, 2 .. kMaxAttentionHeadDim; 256 is the fast case
  KvType type;
  float scale;     // of the scores; 1 for Gemma 3n
  float* scratch;  // AttentionScratchFloats(num_rows, head_dim) floats, any content
};

inline constexpr size_t kMaxAttentionHeadDim = 512;

// Enough for every variant.
size_t AttentionScratchFloats(size_t num_rows, size_t head_dim);

// out[r] = sum_j softmax_j(scale * q[r] . k[j]) v[j] over the positions that row r sees. Every row
// sees at least one; one that sees none gives zeros. Softmax is online, in f32. Consecutive rows
// with equal ranges (the query heads of one token) are the fast order.
// No allocation, no shared state: calls with different out and scratch may run at the same time.
void Attention(const AttentionArgs& args);

struct AttentionKernel {
  const char* name;
  uint32_t needs_isa;
  void (*attention)(const AttentionArgs& args);
};

// Every variant that is compiled in, best first; the last is scalar, the definition of correct.
std::span<const AttentionKernel* const> AttentionKernels();

extern const AttentionKernel kAttentionScalar;
extern const AttentionKernel kAttentionAvx2;
extern const AttentionKernel kAttentionAvx512;
extern const AttentionKernel kAttentionNeon;

// Positions that the SIMD variants take at a time; fixes the scratch layout.
inline constexpr size_t kAttentionTile = 64;

}  // namespace nestling::kernels
