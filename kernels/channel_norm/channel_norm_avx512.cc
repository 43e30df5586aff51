// SPDX-License-Identifier: Apache-2.0
#include "kernels/channel_norm/channel_norm_simd.h"
#include "kernels/isa.h"

namespace nestling::kernels {

const ChannelNormKernel kChannelNormAvx512 = {
    "avx512", kIsaAvx512, &RmsNormGeluSimd, &RmsNormResidualSimd, &ScaleResidualSimd};

}  // namespace nestling::kernels
