// SPDX-License-Identifier: Apache-2.0
#include <cmath>

#include "kernels/channel_norm/channel_norm.h"
#include "kernels/isa.h"

namespace nestling::kernels {
namespace {

float InverseRms(const float* x, size_t n, float eps) {
  float sum = 0.0f;
  for (size_t i = 0; i < n; ++i) sum += x[i] * x[i];
  return 1.0f / std::sqrt(sum / static_cast<float>(n) + eps);
}

// x / (1 + exp(-2u)) is 0.5 x (1 + tanh(u)) without its cancellation for negative x.
float Gelu(float x) {
  const float minus_two_u = x * (-1.59576912f - 0.0713548163f * x * x);
  return x / (1.0f + std::exp(minus_two_u));
}

void RmsNormGeluScalar(const float* x, const float* w, float* y, size_t n, float eps) {
  const float scale = InverseRms(x, n, eps);
  for (size_t i = 0; i < n; ++i) y[i] = Gelu(x[i] * scale * w[i]);
}

void RmsNormResidualScalar(const float* x, const float* w, const float* residual, float* y,
                           size_t n, float eps) {
  const float scale = InverseRms(x, n, eps);
  for (size_t i = 0; i < n; ++i) y[i] = residual[i] + x[i] * scale * w[i];
}

void ScaleResidualScalar(const float* x, const float* w, const float* residual, float* y,
                         size_t n) {
  for (size_t i = 0; i < n; ++i) y[i] = residual[i] + x[i] * w[i];
}

}  // namespace

const ChannelNormKernel kChannelNormScalar = {"scalar", kIsaNone, &RmsNormGeluScalar,
                                              &RmsNormResidualScalar, &ScaleResidualScalar};

}  // namespace nestling::kernels
