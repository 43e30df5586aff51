// SPDX-License-Identifier: Apache-2.0
#include "kernels/convert/convert.h"
#include "kernels/dispatch.h"

namespace nestling::kernels {
namespace {

constexpr const ConvertKernel* kTable[] = {
// best first
#if defined(__x86_64__)
    &kConvertAvx512, &kConvertAvx2,
#elif defined(__aarch64__)
    &kConvertNeon,
#endif
    &kConvertScalar,  // the definition of correct; always last
};

const ConvertKernel& Best() {
  static const ConvertKernel& best = SelectKernel<ConvertKernel>(kTable, AvailableIsa());
  return best;
}

}  // namespace

std::span<const ConvertKernel* const> ConvertKernels() { return kTable; }

void WidenHalf(const uint16_t* half, float* out, size_t n) { Best().widen_half(half, out, n); }

void NarrowHalf(const float* x, uint16_t* half, size_t n) { Best().narrow_half(x, half, n); }

void WidenBf16(const uint16_t* bf16, float* out, size_t n) { Best().widen_bf16(bf16, out, n); }

void DequantizeInt8(const int8_t* codes, float scale, float* out, size_t n) {
  Best().dequantize_int8(codes, scale, out, n);
}

void QuantizeInt8(const float* x, int8_t* codes, float* scale, size_t n) {
  Best().quantize_int8(x, codes, scale, n);
}

void DequantizeInt4(const uint8_t* nibbles, float scale, float* out, size_t n) {
  Best().dequantize_int4(nibbles, scale, out, n);
}

void DequantizeInt4Blocks(const uint8_t* nibbles, const uint16_t* bf16_scales, float factor,
                          float* out, size_t n) {
  Best().dequantize_int4_blocks(nibbles, bf16_scales, factor, out, n);
}

}  // namespace nestling::kernels
