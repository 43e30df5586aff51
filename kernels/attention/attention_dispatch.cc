// SPDX-License-Identifier: Apache-2.0
#include "kernels/attention/attention.h"
#include "kernels/dispatch.h"

namespace nestling::kernels {
namespace {

constexpr const AttentionKernel* kTable[] = {
// best first
#if defined(__x86_64__)
    &kAttentionAvx512, &kAttentionAvx2,
#elif defined(__aarch64__)
    &kAttentionNeon,
#endif
    &kAttentionScalar,  // the definition of correct; always last
};

const AttentionKernel& Best() {
  static const AttentionKernel& best = SelectKernel<AttentionKernel>(kTable, AvailableIsa());
  return best;
}

}  // namespace

std::span<const AttentionKernel* const> AttentionKernels() { return kTable; }

// Two widened tiles (k and v), and per row the scores of a tile and three running values. The
// spare floats let a variant round its parts up to whole vectors and align them.
size_t AttentionScratchFloats(size_t num_rows, size_t head_dim) {
  return 2 * kAttentionTile * head_dim + num_rows * (kAttentionTile + 3) + 64;
}

void Attention(const AttentionArgs& args) { Best().attention(args); }

}  // namespace nestling::kernels
