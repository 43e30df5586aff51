// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace nestling::kernels {

// The sum after attention, with the LAuReL branch (arXiv:2411.07501), of one token:
//   u = (pred + RMSNorm(attn; attn_norm_w) + x + RMSNorm(laurel; laurel_norm_w)) / sqrt(2)
// pred: active AltUp stream; attn: output projection; x: the normed input of the layer, LAuReL's
// skip; laurel: its low-rank product. All [d], d >= 1. u may equal any input, else no overlap.
// No alignment needed; touches only [0, d).
void CombineAttentionLaurel(const float* pred, const float* attn, const float* attn_norm_w,
                            const float* x, const float* laurel, const float* laurel_norm_w,
                            float* u, size_t d, float eps);

struct LaurelKernel {
  const char* name;
  uint32_t needs_isa;
  void (*combine)(const float* pred, const float* attn, const float* attn_norm_w, const float* x,
                  const float* laurel, const float* laurel_norm_w, float* u, size_t d, float eps);
};

// Every variant that is compiled in, best first; the last is scalar, the definition of correct.
std::span<const LaurelKernel* const> LaurelKernels();

extern const LaurelKernel kLaurelScalar;
extern const LaurelKernel kLaurelAvx2;
extern const LaurelKernel kLaurelAvx512;
extern const LaurelKernel kLaurelNeon;

}  // namespace nestling::kernels
