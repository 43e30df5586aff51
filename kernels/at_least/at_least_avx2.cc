// SPDX-License-Identifier: Apache-2.0
#include "kernels/at_least/at_least_simd.h"
#include "kernels/isa.h"

namespace nestling::kernels {

const AtLeastKernel kAtLeastAvx2 = {"avx2", kIsaAvx2, &FindAtLeastSimd};

}  // namespace nestling::kernels
