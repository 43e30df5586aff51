// SPDX-License-Identifier: Apache-2.0
#include "kernels/convert/convert_simd.h"
#include "kernels/isa.h"

namespace nestling::kernels {

const ConvertKernel kConvertAvx2 = {"avx2",
                                    kIsaAvx2,
                                    &WidenHalfSimd,
                                    &NarrowHalfSimd,
                                    &WidenBf16Simd,
                                    &DequantizeInt8Simd,
                                    &QuantizeInt8Simd,
                                    &DequantizeInt4Simd,
                                    &DequantizeInt4BlocksSimd};

}  // namespace nestling::kernels
