// SPDX-License-Identifier: Apache-2.0
#include <arm_neon.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/isa.h"
#include "kernels/tiled_linear/tiled_linear_neon.h"

namespace nestling::kernels {
namespace {

// Matrix instructions multiply two rows of eight inputs with two outputs at once: twice as many
// products as a dot instruction, but weights have to be brought into their order first. A panel of
// a tile is brought into it once for all rows.
constexpr size_t kMaxRows = 4;
constexpr size_t kPanelBlocks = 16;  // of 32 inputs: 8 KiB
constexpr size_t kEights = kTileInputs / 8;

constexpr size_t Min(size_t a, size_t b) { return a < b ? a : b; }

// Eight inputs of the outputs 0, 1 and of the outputs 2, 3 of a quarter.
struct Eight {
  int8x16_t outputs[2];
};
struct Panel {
  Eight blocks[kPanelBlocks][kQuarters][kEights];
};

// Of vectors with four inputs of each of four outputs.
inline Eight Zip(int8x16_t first_inputs, int8x16_t last_inputs) {
  const int32x4_t a = vreinterpretq_s32_s8(first_inputs), b = vreinterpretq_s32_s8(last_inputs);
  return {{vreinterpretq_s8_s32(vzip1q_s32(a, b)), vreinterpretq_s8_s32(vzip2q_s32(a, b))}};
}

void UnpackInt4(const uint8_t* codes, size_t blocks, Panel* panel) {
  const uint8x16_t low_half = vdupq_n_u8(15);
  for (size_t block = 0; block < blocks; ++block, codes += 256) {
    for (size_t q = 0; q < kQuarters; ++q) {
      Eight* const eights = panel->blocks[block][q];
      for (size_t i = 0; i < kEights / 2; ++i) {
        const uint8x16_t a = vld1q_u8(codes + 128 * i + 16 * q);
        const uint8x16_t b = vld1q_u8(codes + 128 * i + 64 + 16 * q);
        eights[i] = Zip(vreinterpretq_s8_u8(vandq_u8(a, low_half)),
                        vreinterpretq_s8_u8(vandq_u8(b, low_half)));
        eights[kEights / 2 + i] =
            Zip(vreinterpretq_s8_u8(vshrq_n_u8(a, 4)), vreinterpretq_s8_u8(vshrq_n_u8(b, 4)));
      }
    }
  }
}

void UnpackInt8(const uint8_t* codes, size_t blocks, Panel* panel) {
  for (size_t block = 0; block < blocks; ++block, codes += 512) {
    for (size_t q = 0; q < kQuarters; ++q) {
      for (size_t i = 0; i < kEights; ++i) {
        const uint8_t* inputs = codes + 128 * i + 16 * q;
        panel->blocks[block][q][i] =
            Zip(vreinterpretq_s8_u8(vld1q_u8(inputs)), vreinterpretq_s8_u8(vld1q_u8(inputs + 64)));
      }
    }
  }
}

// Rows go in pairs; the last of an odd number is its own partner.
template <size_t kRows>
constexpr size_t kPairs = (kRows + 1) / 2;
template <size_t kRows>
constexpr size_t Second(size_t pair) {
  return Min(2 * pair + 1, kRows - 1);
}

// The inputs of a block.
template <size_t kRows>
struct Inputs {
  Inputs(const int8_t* x, size_t k) {
    for (size_t i = 0; i < kEights; ++i) {
      for (size_t p = 0; p < kPairs<kRows>; ++p) {
        pairs[i][p] =
            vcombine_s8(vld1_s8(x + 2 * p * k + 8 * i), vld1_s8(x + Second<kRows>(p) * k + 8 * i));
      }
    }
  }
  int8x16_t pairs[kEights][kPairs<kRows>];
};

// Sums of a pair of rows with the outputs 0, 1 and 2, 3 of a quarter.
struct PairSums {
  int32x4_t outputs[2];

  // One of the rows.
  int32x4_t Row(size_t second) const {
    const int64x2_t low = vreinterpretq_s64_s32(outputs[0]);
    const int64x2_t high = vreinterpretq_s64_s32(outputs[1]);
    return vreinterpretq_s32_s64(second == 0 ? vzip1q_s64(low, high) : vzip2q_s64(low, high));
  }
};

// The products of a block with the four outputs of a quarter, added to start[r] for row r.
template <size_t kRows>
__attribute__((always_inline)) inline void Multiply(const Eight* weights,
                                                    const Inputs<kRows>& inputs,
                                                    const int32_t* start, PairSums* sums) {
  for (size_t p = 0; p < kPairs<kRows>; ++p) {
    const int32x4_t both =
        vcombine_s32(vdup_n_s32(start[2 * p]), vdup_n_s32(start[Second<kRows>(p)]));
    sums[p] = {{both, both}};
  }
  for (size_t i = 0; i < kEights; ++i) {
    for (size_t p = 0; p < kPairs<kRows>; ++p) {
      for (size_t half = 0; half < 2; ++half) {
        sums[p].outputs[half] =
            vmmlaq_s32(sums[p].outputs[half], inputs.pairs[i][p], weights[i].outputs[half]);
      }
    }
  }
}

// A panel's place in the product; sums wait in the outputs from one panel to the next.
struct Part {
  const TiledArgs& args;
  const Panel& panel;
  size_t tile;
  size_t block;   // the panel's first
  size_t blocks;  // of the panel

  bool First() const { return block == 0; }
  bool Last() const { return (block + blocks) * kTileInputs == args.k; }
  const int8_t* Inputs(size_t row) const {
    return args.x.codes + row * args.k + block * kTileInputs;
  }
  float* Out(size_t row) const { return args.out + row * args.out_stride + tile * kTileOutputs; }
};

// Blocks have scales: sums of f32.
struct BlockScales {
  template <size_t kRows>
  static void Run(const Part& part, size_t row) {
    const TiledArgs& args = part.args;
    const size_t blocks = args.k / kTileInputs;
    const uint16_t* scales = static_cast<const uint16_t*>(args.scales) +
                             (part.tile * blocks + part.block) * kTileOutputs;
    const int32_t* offsets = args.x.offsets + row * blocks + part.block;
    const int8_t* x = part.Inputs(row);
    float32x4_t sums[kRows][kQuarters];
    for (size_t r = 0; r < kRows; ++r) {
      for (size_t q = 0; q < kQuarters; ++q) {
        sums[r][q] = part.First() ? vdupq_n_f32(0.0f) : vld1q_f32(part.Out(row + r) + 4 * q);
      }
    }
    for (size_t block = 0; block < part.blocks; ++block) {
      const Inputs<kRows> inputs(x, args.k);
      int32_t start[kRows];
      for (size_t r = 0; r < kRows; ++r) start[r] = offsets[r * blocks];
      for (size_t q = 0; q < kQuarters; ++q) {
        PairSums products[kPairs<kRows>];
        Multiply<kRows>(part.panel.blocks[block][q], inputs, start, products);
        const float32x4_t scale = Bf16Scales(scales + 4 * q);
        for (size_t r = 0; r < kRows; ++r) {
          sums[r][q] = vfmaq_f32(sums[r][q], vcvtq_f32_s32(products[r / 2].Row(r % 2)), scale);
        }
      }
      scales += kTileOutputs;
      x += kTileInputs;
      ++offsets;
    }
    if (part.Last()) {
      StoreRows<kRows>(sums, args, row, part.tile);
      return;
    }
    for (size_t r = 0; r < kRows; ++r) {
      for (size_t q = 0; q < kQuarters; ++q) vst1q_f32(part.Out(row + r) + 4 * q, sums[r][q]);
    }
  }
};

// Outputs have scales: sums of int32, whose bits wait in the outputs. They begin with kFactor times
// the sum of the inputs.
template <int32_t kFactor>
struct OutputScales {
  template <size_t kRows>
  static void Run(const Part& part, size_t row) {
    const TiledArgs& args = part.args;
    const int8_t* x = part.Inputs(row);
    int32x4_t sums[kQuarters][kRows];
    for (size_t q = 0; q < kQuarters; ++q) {
      for (size_t r = 0; r < kRows; ++r) {
        sums[q][r] = part.First() ? vdupq_n_s32(kFactor * args.x.totals[row + r])
                                  : vreinterpretq_s32_f32(vld1q_f32(part.Out(row + r) + 4 * q));
      }
    }
    constexpr int32_t kZeros[kRows] = {};
    for (size_t block = 0; block < part.blocks; ++block, x += kTileInputs) {
      const Inputs<kRows> inputs(x, args.k);
      for (size_t q = 0; q < kQuarters; ++q) {
        PairSums products[kPairs<kRows>];
        Multiply<kRows>(part.panel.blocks[block][q], inputs, kZeros, products);
        for (size_t r = 0; r < kRows; ++r) {
          sums[q][r] = vaddq_s32(sums[q][r], products[r / 2].Row(r % 2));
        }
      }
    }
    if (part.Last()) {
      StoreScaled<kRows>(sums, args, row, part.tile);
      return;
    }
    for (size_t q = 0; q < kQuarters; ++q) {
      for (size_t r = 0; r < kRows; ++r) {
        vst1q_f32(part.Out(row + r) + 4 * q, vreinterpretq_f32_s32(sums[q][r]));
      }
    }
  }
};

template <typename Sums, size_t kRows>
void RunRows(const Part& part, size_t rows, size_t row) {
  if (rows == kRows) {
    Sums::template Run<kRows>(part, row);
  } else if constexpr (kRows > 1) {
    RunRows<Sums, kRows - 1>(part, rows, row);
  }
}

using Unpack = void(const uint8_t* codes, size_t blocks, Panel* panel);

template <typename Sums>
void RunTiles(const TiledArgs& args, Unpack* unpack, size_t block_bytes) {
  const size_t blocks = args.k / kTileInputs;
  Panel panel;
  for (size_t tile = args.tile_begin; tile < args.tile_end; ++tile) {
    for (size_t block = 0; block < blocks; block += kPanelBlocks) {
      const size_t count = Min(kPanelBlocks, blocks - block);
      unpack(args.codes + (tile * blocks + block) * block_bytes, count, &panel);
      const Part part = {args, panel, tile, block, count};
      for (size_t row = 0; row < args.rows; row += kMaxRows) {
        RunRows<Sums, kMaxRows>(part, Min(kMaxRows, args.rows - row), row);
      }
    }
  }
}

// A single row has no partner, and is as fast as memory with dot instructions.
void Int4(const TiledArgs& args) {
  if (args.rows == 1) return kTiledLinearNeondot.int4(args);
  RunTiles<BlockScales>(args, &UnpackInt4, 256);
}
void Int4Channel(const TiledArgs& args) {
  if (args.rows == 1) return kTiledLinearNeondot.int4_channel(args);
  RunTiles<OutputScales<-8>>(args, &UnpackInt4, 256);
}
void Int8(const TiledArgs& args) {
  if (args.rows == 1) return kTiledLinearNeondot.int8(args);
  RunTiles<OutputScales<0>>(args, &UnpackInt8, 512);
}

void Quantize(const float* x, size_t k, int8_t* codes, float* scale, int32_t* offsets,
              int32_t* total) {
  kTiledLinearNeondot.quantize(x, k, codes, scale, offsets, total);
}

}  // namespace

const TiledLinearKernel kTiledLinearNeoni8mm = {
    "neoni8mm", kIsaNeon | kIsaNeonDot | kIsaNeonI8mm, &Quantize, &Int4, &Int4Channel, &Int8};

}  // namespace nestling::kernels
