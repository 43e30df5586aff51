// SPDX-License-Identifier: Apache-2.0
// Dense attention of many query rows over one set of keys and values, without mask: the mobile
// multi-query attention of the vision tower, where all heads of all pixels share one k and v.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace nestling::kernels {

// Keys lie in tiles of 64, transposed: packed[tile][d][64], so that a vector holds one dimension
// of several keys.
inline constexpr size_t kSharedKvTile = 64;

inline constexpr size_t SharedKvTiles(size_t num_keys) {
  return (num_keys + kSharedKvTile - 1) / kSharedKvTile;
}
inline constexpr size_t PackedKeyFloats(size_t num_keys, size_t dim) {
  return SharedKvTiles(num_keys) * kSharedKvTile * dim;
}
// keys [num_keys, dim] -> packed, the tail filled with zeros.
void PackKeys(const float* keys, size_t num_keys, size_t dim, float* packed);

struct SharedKvArgs {
  const float* q;  // [num_rows, dim]
  float* out;      // [num_rows, dim]; may be q
  size_t num_rows;
  const float* packed_keys;  // see PackKeys
  const float* values;       // [num_keys, dim]
  size_t num_keys;           // >= 1
  size_t dim;                // >= 1
  float scale;               // of the scores, > 0
  float* scratch;            // SharedKvScratchFloats(num_keys) floats, any content
};

// Rows that a variant takes at a time, at most.
inline constexpr size_t kSharedKvRows = 6;

inline constexpr size_t SharedKvScratchFloats(size_t num_keys) {
  return kSharedKvRows * SharedKvTiles(num_keys) * kSharedKvTile;
}

// out[r] = sum_j softmax_j(scale * q[r] . k[j]) v[j]. Sums and softmax in f32. No allocation, no
// shared state: calls with different out and scratch may run at the same time.
void SharedKvAttention(const SharedKvArgs& args);

struct SharedKvKernel {
  const char* name;
  uint32_t needs_isa;
  void (*attention)(const SharedKvArgs& args);
};

// Every variant that is compiled in, best first; the last is scalar, the definition of correct.
std::span<const SharedKvKernel* const> SharedKvKernels();

extern const SharedKvKernel kSharedKvScalar;
extern const SharedKvKernel kSharedKvAvx2;
extern const SharedKvKernel kSharedKvAvx512;
extern const SharedKvKernel kSharedKvNeon;

}  // namespace nestling::kernels
