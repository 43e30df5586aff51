// SPDX-License-Identifier: Apache-2.0
#include "kernels/isa.h"
#include "kernels/rms_norm/rms_norm_simd.h"

namespace nestling::kernels {

const RmsNormKernel kRmsNormAvx512 = {"avx512",        kIsaAvx512,      &RmsNormSimd,
                                      &RmsNormAddSimd, &MeanSquareSimd, &ScaleSimd};

}  // namespace nestling::kernels
