// SPDX-License-Identifier: Apache-2.0
#include "kernels/shared_kv_attention/shared_kv_attention_simd.h"
#include "kernels/isa.h"

namespace nestling::kernels {

const SharedKvKernel kSharedKvNeon = {"neon", kIsaNeon, &AttentionSimd};

}  // namespace nestling::kernels
