// SPDX-License-Identifier: Apache-2.0
// y = W x with quantised weights in tiles: one layout that decode and prefill, and every processor
// family, read in place.
//
// A tile is 16 outputs; within it blocks of 32 inputs follow one another (container/FORMAT.md,
// layout "tiled"). Inputs are quantised per token to int8, symmetrically. Sums of products are
// exact in int32; blocks with scales of their own are added in f32, in the order of the inputs.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace nestling::kernels {

inline constexpr size_t kTileOutputs = 16;
inline constexpr size_t kTileInputs = 32;

// Inputs of several tokens. k is a multiple of 32.
struct QuantizedInputs {
  const int8_t* codes;     // [rows, k]
  const float* scales;     // [rows] x = code * scale
  const int32_t* offsets;  // [rows, k / 32] -8 * sum of the block's codes
  const int32_t* totals;   // [rows] sum of the row's codes
};

// One row: codes = round(x / scale), scale = max|x| / 127 (0 for a row of zeros).
void QuantizeInputs(const float* x, size_t k, int8_t* codes, float* scale, int32_t* offsets,
                    int32_t* total);

struct TiledArgs {
  QuantizedInputs x;
  size_t rows;           // tokens, >= 1
  size_t k;              // inputs, a multiple of 32, below 2^20: sums stay in int32
  const uint8_t* codes;  // of the whole matrix
  const void* scales;    // likewise
  size_t tile_begin;     // outputs [16 * tile_begin, 16 * tile_end) are computed
  size_t tile_end;
  float* out;  // [rows, outputs], rows out_stride floats apart
  size_t out_stride;
};

// 4-bit codes with zero point 8, scale bf16 per output and block of 32 inputs.
//   codes  [tile][block][256]: byte 64 v + 4 output + j holds the inputs 4 v + j (low half) and
//          16 + 4 v + j (high half), v < 4, j < 4
//   scales [tile][block][16] bf16
void TiledLinearInt4(const TiledArgs& args);

// The same codes with one f32 scale per output: all products of an output are one sum in int32.
//   scales [16 * tiles] f32
void TiledLinearInt4Channel(const TiledArgs& args);

// int8 codes, -127..127, f32 scale per output.
//   codes  [tile][k / 4][16][4]: output after output, four inputs each
//   scales [16 * tiles] f32
void TiledLinearInt8(const TiledArgs& args);

struct TiledLinearKernel {
  const char* name;
  uint32_t needs_isa;
  void (*quantize)(const float* x, size_t k, int8_t* codes, float* scale, int32_t* offsets,
                   int32_t* total);
  void (*int4)(const TiledArgs& args);
  void (*int4_channel)(const TiledArgs& args);
  void (*int8)(const TiledArgs& args);
};

// Best first, the scalar definition of correct last.
std::span<const TiledLinearKernel* const> TiledLinearKernels();

extern const TiledLinearKernel kTiledLinearScalar;
extern const TiledLinearKernel kTiledLinearAvx2;
extern const TiledLinearKernel kTiledLinearAvx512vnni;
extern const TiledLinearKernel kTiledLinearNeondot;
extern const TiledLinearKernel kTiledLinearNeoni8mm;

}  // namespace nestling::kernels
