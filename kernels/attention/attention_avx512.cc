// SPDX-License-Identifier: Apache-2.0
#include "kernels/attention/attention_simd.h"
#include "kernels/isa.h"

namespace nestling::kernels {

const AttentionKernel kAttentionAvx512 = {"avx512", kIsaAvx512, &AttentionSimd};

}  // namespace nestling::kernels
