// SPDX-License-Identifier: Apache-2.0
#include "kernels/isa.h"
#include "kernels/laurel/laurel_simd.h"

namespace nestling::kernels {

const LaurelKernel kLaurelAvx512 = {"avx512", kIsaAvx512, &CombineSimd};

}  // namespace nestling::kernels
