// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace nestling::kernels {

// The numbers i of all x[i] >= threshold, ascending, to `indices` [n]; returns how many there are.
// NaN is not at least anything. Fast where there are few: the candidates among many logits. Rows of
// n floats. No alignment needed; touches only x[0, n) and the indices that it returns.
size_t FindAtLeast(const float* x, size_t n, float threshold, uint32_t* indices);

struct AtLeastKernel {
  const char* name;
  uint32_t needs_isa;
  size_t (*find)(const float* x, size_t n, float threshold, uint32_t* indices);
};

// Every variant that is compiled in, best first; the last is scalar, the definition of correct.
std::span<const AtLeastKernel* const> AtLeastKernels();

extern const AtLeastKernel kAtLeastScalar;
extern const AtLeastKernel kAtLeastAvx2;
extern const AtLeastKernel kAtLeastAvx512;
extern const AtLeastKernel kAtLeastNeon;

}  // namespace nestling::kernels
