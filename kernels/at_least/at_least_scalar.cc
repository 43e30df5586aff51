// SPDX-License-Identifier: Apache-2.0
#include "kernels/at_least/at_least.h"
#include "kernels/isa.h"

namespace nestling::kernels {
namespace {

size_t FindAtLeastScalar(const float* x, size_t n, float threshold, uint32_t* indices) {
  size_t found = 0;
  for (size_t i = 0; i < n; ++i) {
    if (x[i] >= threshold) indices[found++] = static_cast<uint32_t>(i);
  }
  return found;
}

}  // namespace

const AtLeastKernel kAtLeastScalar = {"scalar", kIsaNone, &FindAtLeastScalar};

}  // namespace nestling::kernels
