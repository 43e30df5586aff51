// SPDX-License-Identifier: Apache-2.0
#include "kernels/isa.h"
#include "kernels/rms_norm/rms_norm_simd.h"

namespace nestling::kernels {

const RmsNormKernel kRmsNormAvx2 = {"avx2",          kIsaAvx2,        &RmsNormSimd,
                                    &RmsNormAddSimd, &MeanSquareSimd, &ScaleSimd};

}  // namespace nestling::kernels
