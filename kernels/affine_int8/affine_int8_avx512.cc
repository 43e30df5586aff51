// SPDX-License-Identifier: Apache-2.0
#include "kernels/affine_int8/affine_int8_simd.h"
#include "kernels/isa.h"

namespace nestling::kernels {

const AffineInt8Kernel kAffineInt8Avx512 = {"avx512", kIsaAvx512, &WidenRangeSimd, &QuantizeSimd};

}  // namespace nestling::kernels
