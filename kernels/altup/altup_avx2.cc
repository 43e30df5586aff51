// SPDX-License-Identifier: Apache-2.0
#include "kernels/altup/altup_simd.h"
#include "kernels/isa.h"

namespace nestling::kernels {

const AltupKernel kAltupAvx2 = {"avx2", kIsaAvx2, &AltupRouterSimd, &AltupPredictSimd,
                                &AltupCorrectSimd};

}  // namespace nestling::kernels
