// SPDX-License-Identifier: Apache-2.0
#include "kernels/dispatch.h"
#include "kernels/tiled_linear/tiled_linear.h"

namespace nestling::kernels {
namespace {

constexpr const TiledLinearKernel* kTable[] = {
// best first
#if defined(__x86_64__)
    &kTiledLinearAvx512vnni, &kTiledLinearAvx2,
#elif defined(__aarch64__)
    &kTiledLinearNeoni8mm, &kTiledLinearNeondot,
#endif
    &kTiledLinearScalar,  // the definition of correct; always last
};

const TiledLinearKernel& Best() {
  static const TiledLinearKernel& best = SelectKernel<TiledLinearKernel>(kTable, AvailableIsa());
  return best;
}

}  // namespace

std::span<const TiledLinearKernel* const> TiledLinearKernels() { return kTable; }

void QuantizeInputs(const float* x, size_t k, int8_t* codes, float* scale, int32_t* offsets,
                    int32_t* total) {
  Best().quantize(x, k, codes, scale, offsets, total);
}

void TiledLinearInt4(const TiledArgs& args) { Best().int4(args); }

void TiledLinearInt4Channel(const TiledArgs& args) { Best().int4_channel(args); }

void TiledLinearInt8(const TiledArgs& args) { Best().int8(args); }

}  // namespace nestling::kernels
