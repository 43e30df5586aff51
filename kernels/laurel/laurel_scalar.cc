// SPDX-License-Identifier: Apache-2.0
#include <cmath>

#include "kernels/isa.h"
#include "kernels/laurel/laurel.h"

namespace nestling::kernels {
namespace {

float InverseRms(const float* x, size_t d, float eps) {
  float sum = 0.0f;
  for (size_t i = 0; i < d; ++i) sum += x[i] * x[i];
  return 1.0f / std::sqrt(sum / static_cast<float>(d) + eps);
}

void CombineScalar(const float* pred, const float* attn, const float* attn_norm_w, const float* x,
                   const float* laurel, const float* laurel_norm_w, float* u, size_t d, float eps) {
  constexpr float kInverseSqrt2 = 0.70710678f;
  const float attn_scale = InverseRms(attn, d, eps);
  const float laurel_scale = InverseRms(laurel, d, eps);
  for (size_t i = 0; i < d; ++i) {
    const float attn_normed = attn[i] * attn_scale * attn_norm_w[i];
    const float laurel_normed = laurel[i] * laurel_scale * laurel_norm_w[i];
    u[i] = ((pred[i] + attn_normed) + (x[i] + laurel_normed)) * kInverseSqrt2;
  }
}

}  // namespace

const LaurelKernel kLaurelScalar = {"scalar", kIsaNone, &CombineScalar};

}  // namespace nestling::kernels
