// SPDX-License-Identifier: Apache-2.0
// The vector type of the instruction set that this file is compiled for.
#pragma once

#if defined(__AVX512F__)
#include "kernels/simd/vec_avx512.h"
#elif defined(__AVX2__)
#include "kernels/simd/vec_avx2.h"
#elif defined(__ARM_NEON)
#include "kernels/simd/vec_neon.h"
#else
#error "a SIMD variant is compiled without its flags; see kernels/CMakeLists.txt"
#endif
