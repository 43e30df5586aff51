// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "kernels/dispatch.h"
#include "kernels/shared_kv_attention/shared_kv_attention.h"

namespace nestling::kernels {
namespace {

constexpr const SharedKvKernel* kTable[] = {
// best first
#if defined(__x86_64__)
    &kSharedKvAvx512, &kSharedKvAvx2,
#elif defined(__aarch64__)
    &kSharedKvNeon,
#endif
    &kSharedKvScalar,  // the definition of correct; always last
};

const SharedKvKernel& Best() {
  static const SharedKvKernel& best = SelectKernel<SharedKvKernel>(kTable, AvailableIsa());
  return best;
}

}  // namespace

std::span<const SharedKvKernel* const> SharedKvKernels() { return kTable; }

void PackKeys(const float* keys, size_t num_keys, size_t dim, float* packed) {
  for (size_t tile = 0; tile < SharedKvTiles(num_keys); ++tile) {
    const size_t first = tile * kSharedKvTile;
    const size_t count = std::min(num_keys - first, kSharedKvTile);
    for (size_t d = 0; d < dim; ++d) {
      float* row = packed + (tile * dim + d) * kSharedKvTile;
      for (size_t j = 0; j < count; ++j) row[j] = keys[(first + j) * dim + d];
      std::fill(row + count, row + kSharedKvTile, 0.0f);
    }
  }
}

void SharedKvAttention(const SharedKvArgs& args) { Best().attention(args); }

}  // namespace nestling::kernels
