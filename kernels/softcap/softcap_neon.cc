// SPDX-License-Identifier: Apache-2.0
#include "kernels/isa.h"
#include "kernels/softcap/softcap_simd.h"

namespace nestling::kernels {

const SoftCapKernel kSoftCapNeon = {"neon", kIsaNeon, &SoftCapSimd};

}  // namespace nestling::kernels
