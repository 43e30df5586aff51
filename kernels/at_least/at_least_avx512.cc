// SPDX-License-Identifier: Apache-2.0
#include "kernels/at_least/at_least_simd.h"
#include "kernels/isa.h"

namespace nestling::kernels {

const AtLeastKernel kAtLeastAvx512 = {"avx512", kIsaAvx512, &FindAtLeastSimd};

}  // namespace nestling::kernels
