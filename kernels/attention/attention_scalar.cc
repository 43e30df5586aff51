// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <limits>

#include "kernels/attention/attention.h"
#include "kernels/isa.h"
#include "kernels/simd/scalar_half.h"

namespace nestling::kernels {
namespace {

// Element d of row j, without the row's scale.
float ElementAt(const void* rows, KvType type, size_t index) {
  switch (type) {
    case KvType::kF32:
      return static_cast<const float*>(rows)[index];
    case KvType::kF16:
      return HalfToFloat(static_cast<const uint16_t*>(rows)[index]);
    case KvType::kInt8:
      break;
  }
  return static_cast<float>(static_cast<const int8_t*>(rows)[index]);
}

// Softmax over keys as they come: `max` and `total` describe the keys so far, out their weighted
// sum, both relative to exp(max).
void AttentionRow(const AttentionArgs& args, size_t row) {
  const size_t dim = args.head_dim;
  const float* q = args.q + row * args.q_stride;
  float* out = args.out + row * args.out_stride;
  for (size_t d = 0; d < dim; ++d) out[d] = 0.0f;
  float max = -std::numeric_limits<float>::infinity();
  float total = 0.0f;
  for (size_t s = 0; s < args.num_spans; ++s) {
    const KvSpan& span = args.spans[s];
    for (size_t j = 0; j < span.count; ++j) {
      const int64_t position = span.first_position + static_cast<int64_t>(j);
      if (position < args.first_key[row] || position > args.last_key[row]) continue;
      const bool scaled = args.type == KvType::kInt8;
      float score = 0.0f;
      for (size_t d = 0; d < dim; ++d) score += q[d] * ElementAt(span.k, args.type, j * dim + d);
      score *= scaled ? args.scale * span.k_scales[j] : args.scale;
      if (score > max) {
        const float shrink = std::exp(max - score);  // 0 for the first key
        total *= shrink;
        for (size_t d = 0; d < dim; ++d) out[d] *= shrink;
        max = score;
      }
      const float weight = std::exp(score - max);
      total += weight;
      const float factor = scaled ? weight * span.v_scales[j] : weight;
      for (size_t d = 0; d < dim; ++d) out[d] += factor * ElementAt(span.v, args.type, j * dim + d);
    }
  }
  const float inverse = total > 0.0f ? 1.0f / total : 0.0f;
  for (size_t d = 0; d < dim; ++d) out[d] *= inverse;
}

void AttentionScalar(const AttentionArgs& args) {
  for (size_t row = 0; row < args.num_rows; ++row) AttentionRow(args, row);
}

}  // namespace

const AttentionKernel kAttentionScalar = {"scalar", kIsaNone, &AttentionScalar};

}  // namespace nestling::kernels
