// SPDX-License-Identifier: Apache-2.0
#include "kernels/isa.h"
#include "kernels/laurel/laurel_simd.h"

namespace nestling::kernels {

const LaurelKernel kLaurelAvx2 = {"avx2", kIsaAvx2, &CombineSimd};

}  // namespace nestling::kernels
