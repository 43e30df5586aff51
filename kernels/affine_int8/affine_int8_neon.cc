// SPDX-License-Identifier: Apache-2.0
#include "kernels/affine_int8/affine_int8_simd.h"
#include "kernels/isa.h"

namespace nestling::kernels {

const AffineInt8Kernel kAffineInt8Neon = {"neon", kIsaNeon, &WidenRangeSimd, &QuantizeSimd};

}  // namespace nestling::kernels
