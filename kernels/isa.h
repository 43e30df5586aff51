// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace nestling::kernels {

// Instruction sets that a kernel variant may need. One bit stands for what a variant file is
// compiled with as a whole, so a CPU has a bit only if it has every part of it.
enum Isa : uint32_t {
  kIsaNone = 0,
  kIsaAvx2 = 1u << 0,    // AVX2, FMA3 and F16C
  kIsaAvx512 = 1u << 1,  // AVX-512 F, BW, VL and DQ
  kIsaNeon = 1u << 2,    // AArch64 Advanced SIMD, always there
  kIsaAvx512Vnni = 1u << 3,
  kIsaNeonDot = 1u << 4,   // Armv8.2 dot products
  kIsaNeonI8mm = 1u << 5,  // Armv8.6 products of matrices of int8
};

// The instruction sets of this CPU that the operating system lets us use; found once.
// Thread-safe. Without any information (cpuinfo failed) it is kIsaNone: still correct.
uint32_t AvailableIsa();

}  // namespace nestling::kernels
