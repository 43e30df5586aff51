// SPDX-License-Identifier: Apache-2.0
#include "kernels/gelu_gate/gelu_gate_simd.h"
#include "kernels/isa.h"

namespace nestling::kernels {

const GeluGateKernel kGeluGateAvx512 = {
    "avx512", kIsaAvx512, &GeluGateSimd, &SparseGeluGateSimd, &SumSimd, &SumSquaredDeviationSimd};

}  // namespace nestling::kernels
