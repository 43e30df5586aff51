// SPDX-License-Identifier: Apache-2.0
#include <cmath>

#include "kernels/isa.h"
#include "kernels/rms_norm/rms_norm.h"

namespace nestling::kernels {
namespace {

float MeanSquareScalar(const float* x, size_t n) {
  float sum = 0.0f;
  for (size_t i = 0; i < n; ++i) sum += x[i] * x[i];
  return sum / static_cast<float>(n);
}

float InverseRms(const float* x, size_t n, float eps) {
  return 1.0f / std::sqrt(MeanSquareScalar(x, n) + eps);
}

void RmsNormScalar(const float* x, const float* w, float* y, size_t n, float eps) {
  const float scale = InverseRms(x, n, eps);
  for (size_t i = 0; i < n; ++i) y[i] = x[i] * scale * (w != nullptr ? w[i] : 1.0f);
}

void RmsNormAddScalar(const float* x, const float* w, float* y, size_t n, float eps) {
  const float scale = InverseRms(x, n, eps);
  for (size_t i = 0; i < n; ++i) y[i] += x[i] * scale * (w != nullptr ? w[i] : 1.0f);
}

void ScaleScalar(float* x, float factor, size_t n) {
  for (size_t i = 0; i < n; ++i) x[i] *= factor;
}

}  // namespace

const RmsNormKernel kRmsNormScalar = {"scalar",          kIsaNone,          &RmsNormScalar,
                                      &RmsNormAddScalar, &MeanSquareScalar, &ScaleScalar};

}  // namespace nestling::kernels
