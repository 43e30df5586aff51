// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>

#include "kernels/conformer/conformer.h"
#include "kernels/isa.h"

namespace nestling::kernels {
namespace {

// exp may overflow to infinity; the quotient is then 0 (of either sign), as it should be.
float Gated(float x, float gate) { return x / (1.0f + std::exp(-gate)); }

void SiluScalar(float* x, size_t n) {
  for (size_t i = 0; i < n; ++i) x[i] = Gated(x[i], x[i]);
}

void GluScalar(const float* x, float* y, size_t n) {
  for (size_t i = 0; i < n; ++i) y[i] = Gated(x[i], x[n + i]);
}

void DepthwiseStepScalar(const float* x, size_t stride, const float* taps, size_t num_taps,
                         float* y, size_t n) {
  for (size_t i = 0; i < n; ++i) {
    float sum = 0.0f;
    for (size_t t = 0; t < num_taps; ++t) sum += taps[t * n + i] * x[t * stride + i];
    y[i] = sum;
  }
}

void LocalAttentionScalar(const LocalAttentionArgs& args) {
  float weights[kMaxLocalKeys];
  for (size_t d = 0; d < args.num_keys; ++d) {
    const float* k = args.k - d * args.stride;
    const float* p = args.positions + d * args.position_stride;
    float score = 0.0f;
    for (size_t i = 0; i < args.head_dim; ++i) score += args.q[i] * (k[i] + p[i]);
    weights[d] = args.cap * std::tanh(score / args.cap);
  }
  const float highest = *std::max_element(weights, weights + args.num_keys);
  float total = 0.0f;
  for (size_t d = 0; d < args.num_keys; ++d) {
    weights[d] = std::exp(weights[d] - highest);
    total += weights[d];
  }
  for (size_t i = 0; i < args.head_dim; ++i) {
    float sum = 0.0f;
    for (size_t d = 0; d < args.num_keys; ++d) sum += weights[d] * (args.v - d * args.stride)[i];
    args.out[i] = sum / total;
  }
}

}  // namespace

const ConformerKernel kConformerScalar = {
    "scalar", kIsaNone, &SiluScalar, &GluScalar, &DepthwiseStepScalar, &LocalAttentionScalar};

}  // namespace nestling::kernels
