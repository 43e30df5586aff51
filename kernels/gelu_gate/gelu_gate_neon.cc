// SPDX-License-Identifier: Apache-2.0
#include "kernels/gelu_gate/gelu_gate_simd.h"
#include "kernels/isa.h"

namespace nestling::kernels {

const GeluGateKernel kGeluGateNeon = {
    "neon", kIsaNeon, &GeluGateSimd, &SparseGeluGateSimd, &SumSimd, &SumSquaredDeviationSimd};

}  // namespace nestling::kernels
