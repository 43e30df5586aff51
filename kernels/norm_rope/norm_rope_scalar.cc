// SPDX-License-Identifier: Apache-2.0
#include <cmath>

#include "kernels/isa.h"
#include "kernels/norm_rope/norm_rope.h"

namespace nestling::kernels {
namespace {

void NormRopeScalar(const float* x, const float* w, const float* cos, const float* sin, float* y,
                    size_t head_dim, float eps) {
  float sum = 0.0f;
  for (size_t i = 0; i < head_dim; ++i) sum += x[i] * x[i];
  const float scale = 1.0f / std::sqrt(sum / static_cast<float>(head_dim) + eps);
  const size_t half = head_dim / 2;
  for (size_t i = 0; i < half; ++i) {
    const float low = x[i] * scale * w[i];
    const float high = x[i + half] * scale * w[i + half];
    y[i] = low * cos[i] - high * sin[i];
    y[i + half] = high * cos[i] + low * sin[i];
  }
}

}  // namespace

const NormRopeKernel kNormRopeScalar = {"scalar", kIsaNone, &NormRopeScalar};

}  // namespace nestling::kernels
