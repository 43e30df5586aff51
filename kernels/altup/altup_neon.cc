// SPDX-License-Identifier: Apache-2.0
#include "kernels/altup/altup_simd.h"
#include "kernels/isa.h"

namespace nestling::kernels {

const AltupKernel kAltupNeon = {"neon", kIsaNeon, &AltupRouterSimd, &AltupPredictSimd,
                                &AltupCorrectSimd};

}  // namespace nestling::kernels
