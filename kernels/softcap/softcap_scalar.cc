// SPDX-License-Identifier: Apache-2.0
#include <cmath>

#include "kernels/isa.h"
#include "kernels/softcap/softcap.h"

namespace nestling::kernels {
namespace {

void SoftCapScalar(float* x, size_t n, float cap) {
  for (size_t i = 0; i < n; ++i) x[i] = cap * std::tanh(x[i] / cap);
}

}  // namespace

const SoftCapKernel kSoftCapScalar = {"scalar", kIsaNone, &SoftCapScalar};

}  // namespace nestling::kernels
