// SPDX-License-Identifier: Apache-2.0
#include "kernels/shared_kv_attention/shared_kv_attention_simd.h"
#include "kernels/isa.h"

namespace nestling::kernels {

const SharedKvKernel kSharedKvAvx512 = {"avx512", kIsaAvx512, &AttentionSimd};

}  // namespace nestling::kernels
