// SPDX-License-Identifier: Apache-2.0
#include "kernels/conformer/conformer_simd.h"
#include "kernels/isa.h"

namespace nestling::kernels {

const ConformerKernel kConformerAvx512 = {"avx512", kIsaAvx512,         &SiluSimd,
                                          &GluSimd, &DepthwiseStepSimd, &LocalAttentionSimd};

}  // namespace nestling::kernels
