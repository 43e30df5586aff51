// SPDX-License-Identifier: Apache-2.0
#include "kernels/shared_kv_attention/shared_kv_attention_simd.h"
#include "kernels/isa.h"

namespace nestling::kernels {

const SharedKvKernel kSharedKvAvx2 = {"avx2", kIsaAvx2, &AttentionSimd};

}  // namespace nestling::kernels
