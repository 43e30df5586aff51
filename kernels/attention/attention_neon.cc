// SPDX-License-Identifier: Apache-2.0
#include "kernels/attention/attention_simd.h"
#include "kernels/isa.h"

namespace nestling::kernels {

const AttentionKernel kAttentionNeon = {"neon", kIsaNeon, &AttentionSimd};

}  // namespace nestling::kernels
