// SPDX-License-Identifier: Apache-2.0
#include "kernels/at_least/at_least_simd.h"
#include "kernels/isa.h"

namespace nestling::kernels {

const AtLeastKernel kAtLeastNeon = {"neon", kIsaNeon, &FindAtLeastSimd};

}  // namespace nestling::kernels
