// SPDX-License-Identifier: Apache-2.0
#include <cmath>

#include "kernels/altup/altup.h"
#include "kernels/isa.h"

namespace nestling::kernels {
namespace {

void AltupRouterScalar(const float* x, const float* norm_w, const float* router, float* modalities,
                       size_t n, size_t d, float eps) {
  float sum = 0.0f;
  for (size_t i = 0; i < d; ++i) sum += x[i] * x[i];
  const float width = static_cast<float>(d);
  const float scale = 1.0f / std::sqrt(sum / width + eps);
  for (size_t k = 0; k < n; ++k) {
    float dot = 0.0f;
    for (size_t i = 0; i < d; ++i) dot += router[k * d + i] * (x[i] * scale * norm_w[i]);
    modalities[k] = std::tanh(dot / width);
  }
}

void AltupPredictScalar(float* const* streams, const float* coefs, size_t n, size_t d) {
  for (size_t j = 0; j < d; ++j) {
    float old[kMaxAltupStreams];
    for (size_t k = 0; k < n; ++k) old[k] = streams[k][j];
    for (size_t i = 0; i < n; ++i) {
      float mix = 0.0f;
      for (size_t k = 0; k < n; ++k) mix += coefs[i * n + k] * old[k];
      streams[i][j] = old[i] + mix;
    }
  }
}

void AltupCorrectScalar(float* const* streams, const float* activated, const float* coefs, size_t n,
                        size_t active, const float* scale, float* gate_input, size_t d) {
  for (size_t j = 0; j < d; ++j) {
    const float innovation = activated[j] - streams[active][j];
    for (size_t i = 0; i < n; ++i) streams[i][j] += coefs[i] * innovation;
    gate_input[j] = streams[active][j] * (scale != nullptr ? scale[j] : 1.0f);
  }
}

}  // namespace

const AltupKernel kAltupScalar = {"scalar", kIsaNone, &AltupRouterScalar, &AltupPredictScalar,
                                  &AltupCorrectScalar};

}  // namespace nestling::kernels
