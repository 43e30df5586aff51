// SPDX-License-Identifier: Apache-2.0
#include "kernels/isa.h"
#include "kernels/softcap/softcap_simd.h"

namespace nestling::kernels {

const SoftCapKernel kSoftCapAvx2 = {"avx2", kIsaAvx2, &SoftCapSimd};

}  // namespace nestling::kernels
