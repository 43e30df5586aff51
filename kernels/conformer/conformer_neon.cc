// SPDX-License-Identifier: Apache-2.0
#include "kernels/conformer/conformer_simd.h"
#include "kernels/isa.h"

namespace nestling::kernels {

const ConformerKernel kConformerNeon = {"neon",   kIsaNeon,           &SiluSimd,
                                        &GluSimd, &DepthwiseStepSimd, &LocalAttentionSimd};

}  // namespace nestling::kernels
