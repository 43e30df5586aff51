// SPDX-License-Identifier: Apache-2.0
#include "kernels/channel_norm/channel_norm_simd.h"
#include "kernels/isa.h"

namespace nestling::kernels {

const ChannelNormKernel kChannelNormNeon = {
    "neon", kIsaNeon, &RmsNormGeluSimd, &RmsNormResidualSimd, &ScaleResidualSimd};

}  // namespace nestling::kernels
