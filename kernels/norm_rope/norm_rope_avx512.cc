// SPDX-License-Identifier: Apache-2.0
#include "kernels/isa.h"
#include "kernels/norm_rope/norm_rope_simd.h"

namespace nestling::kernels {

const NormRopeKernel kNormRopeAvx512 = {"avx512", kIsaAvx512, &NormRopeSimd};

}  // namespace nestling::kernels
