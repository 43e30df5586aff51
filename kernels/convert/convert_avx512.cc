// SPDX-License-Identifier: Apache-2.0
#include "kernels/convert/convert_simd.h"
#include "kernels/isa.h"

namespace nestling::kernels {

const ConvertKernel kConvertAvx512 = {
    "avx512",          kIsaAvx512,          &WidenHalfSimd,
    &NarrowHalfSimd,   &WidenBf16Simd,      &DequantizeInt8Simd,
    &QuantizeInt8Simd, &DequantizeInt4Simd, &DequantizeInt4BlocksSimd};

}  // namespace nestling::kernels
