// SPDX-License-Identifier: Apache-2.0
#include <cmath>

#include "kernels/isa.h"
#include "kernels/tiled_linear/tiled_linear.h"

namespace nestling::kernels {
namespace {

float Bf16(uint16_t bits) {
  const uint32_t wide = static_cast<uint32_t>(bits) << 16;
  float value;
  __builtin_memcpy(&value, &wide, sizeof value);
  return value;
}

void QuantizeScalar(const float* x, size_t k, int8_t* codes, float* scale, int32_t* offsets,
                    int32_t* total) {
  float largest = 0.0f;
  for (size_t i = 0; i < k; ++i) largest = std::fmax(largest, std::fabs(x[i]));
  const float inverse = largest > 0.0f ? 127.0f / largest : 0.0f;
  *scale = largest / 127.0f;
  *total = 0;
  for (size_t block = 0; block < k / kTileInputs; ++block) {
    int32_t sum = 0;
    for (size_t i = block * kTileInputs; i < (block + 1) * kTileInputs; ++i) {
      codes[i] = static_cast<int8_t>(std::nearbyint(x[i] * inverse));
      sum += codes[i];
    }
    offsets[block] = -8 * sum;
    *total += sum;
  }
}

// Products of a block's codes (256 bytes of a tile) for one output, with its 32 inputs.
int32_t BlockProducts(const uint8_t* codes, size_t output, const int8_t* x) {
  int32_t products = 0;
  for (size_t v = 0; v < 4; ++v) {
    for (size_t j = 0; j < 4; ++j) {
      const int pair = codes[64 * v + 4 * output + j];
      const int8_t* inputs = x + 4 * v + j;
      products += (pair & 15) * inputs[0] + (pair >> 4) * inputs[16];
    }
  }
  return products;
}

void Int4Scalar(const TiledArgs& args) {
  const size_t blocks = args.k / kTileInputs;
  const uint16_t* scales = static_cast<const uint16_t*>(args.scales);
  for (size_t row = 0; row < args.rows; ++row) {
    const int8_t* x = args.x.codes + row * args.k;
    for (size_t tile = args.tile_begin; tile < args.tile_end; ++tile) {
      for (size_t output = 0; output < kTileOutputs; ++output) {
        float sum = 0.0f;
        for (size_t block = 0; block < blocks; ++block) {
          const int32_t products = args.x.offsets[row * blocks + block] +
                                   BlockProducts(args.codes + (tile * blocks + block) * 256, output,
                                                 x + block * kTileInputs);
          sum += static_cast<float>(products) *
                 Bf16(scales[(tile * blocks + block) * kTileOutputs + output]);
        }
        args.out[row * args.out_stride + tile * kTileOutputs + output] = sum * args.x.scales[row];
      }
    }
  }
}

void Int4ChannelScalar(const TiledArgs& args) {
  const size_t blocks = args.k / kTileInputs;
  const float* scales = static_cast<const float*>(args.scales);
  for (size_t row = 0; row < args.rows; ++row) {
    const int8_t* x = args.x.codes + row * args.k;
    for (size_t tile = args.tile_begin; tile < args.tile_end; ++tile) {
      for (size_t output = 0; output < kTileOutputs; ++output) {
        int32_t products = -8 * args.x.totals[row];
        for (size_t block = 0; block < blocks; ++block) {
          products += BlockProducts(args.codes + (tile * blocks + block) * 256, output,
                                    x + block * kTileInputs);
        }
        const size_t o = tile * kTileOutputs + output;
        args.out[row * args.out_stride + o] =
            static_cast<float>(products) * (scales[o] * args.x.scales[row]);
      }
    }
  }
}

void Int8Scalar(const TiledArgs& args) {
  const float* scales = static_cast<const float*>(args.scales);
  const int8_t* codes = reinterpret_cast<const int8_t*>(args.codes);
  for (size_t row = 0; row < args.rows; ++row) {
    const int8_t* x = args.x.codes + row * args.k;
    for (size_t tile = args.tile_begin; tile < args.tile_end; ++tile) {
      for (size_t output = 0; output < kTileOutputs; ++output) {
        int32_t products = 0;
        for (size_t i = 0; i < args.k; ++i) {
          products += x[i] * codes[tile * kTileOutputs * args.k + i / 4 * 64 + output * 4 + i % 4];
        }
        const size_t o = tile * kTileOutputs + output;
        args.out[row * args.out_stride + o] =
            static_cast<float>(products) * (scales[o] * args.x.scales[row]);
      }
    }
  }
}

}  // namespace

const TiledLinearKernel kTiledLinearScalar = {"scalar",    kIsaNone,           &QuantizeScalar,
                                              &Int4Scalar, &Int4ChannelScalar, &Int8Scalar};

}  // namespace nestling::kernels
