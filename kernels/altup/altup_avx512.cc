// SPDX-License-Identifier: Apache-2.0
#include "kernels/altup/altup_simd.h"
#include "kernels/isa.h"

namespace nestling::kernels {

const AltupKernel kAltupAvx512 = {"avx512", kIsaAvx512, &AltupRouterSimd, &AltupPredictSimd,
                                  &AltupCorrectSimd};

}  // namespace nestling::kernels
