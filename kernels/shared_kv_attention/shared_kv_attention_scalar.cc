// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>

#include "kernels/isa.h"
#include "kernels/shared_kv_attention/shared_kv_attention.h"

namespace nestling::kernels {
namespace {

float Score(const SharedKvArgs& args, const float* q, size_t key) {
  const float* column = args.packed_keys + key / kSharedKvTile * kSharedKvTile * args.dim +
                        key % kSharedKvTile;
  float sum = 0.0f;
  for (size_t d = 0; d < args.dim; ++d) sum += q[d] * column[d * kSharedKvTile];
  return sum * args.scale;
}

void AttentionScalar(const SharedKvArgs& args) {
  float* weights = args.scratch;
  for (size_t r = 0; r < args.num_rows; ++r) {
    const float* q = args.q + r * args.dim;
    float* out = args.out + r * args.dim;
    for (size_t j = 0; j < args.num_keys; ++j) weights[j] = Score(args, q, j);
    const float highest = *std::max_element(weights, weights + args.num_keys);
    float total = 0.0f;
    for (size_t j = 0; j < args.num_keys; ++j) {
      weights[j] = std::exp(weights[j] - highest);
      total += weights[j];
    }
    std::fill(out, out + args.dim, 0.0f);
    for (size_t j = 0; j < args.num_keys; ++j) {
      const float weight = weights[j] / total;
      for (size_t d = 0; d < args.dim; ++d) out[d] += weight * args.values[j * args.dim + d];
    }
  }
}

}  // namespace

const SharedKvKernel kSharedKvScalar = {"scalar", kIsaNone, &AttentionScalar};

}  // namespace nestling::kernels
