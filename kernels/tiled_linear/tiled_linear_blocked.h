// SPDX-License-Identifier: Apache-2.0
// The loops that the SIMD variants share: tiles outside, so that a tile's weights stay in the
// first-level cache while blocks of rows pass over them.
#pragma once

#include <stddef.h>

#include "kernels/tiled_linear/tiled_linear.h"

namespace nestling::kernels {
namespace {

// Calls Micro::template Run<rows, kTiles>(args, row, tile, last) for 1 <= rows <= kMaxRows. `last`:
// no more rows will pass over these tiles, the next ones may be asked for.
template <typename Micro, size_t kTiles, size_t kRows>
inline void RunRows(const TiledArgs& args, size_t rows, size_t row, size_t tile, bool last) {
  if (rows == kRows) {
    Micro::template Run<kRows, kTiles>(args, row, tile, last);
  } else if constexpr (kRows > 1) {
    RunRows<Micro, kTiles, kRows - 1>(args, rows, row, tile, last);
  }
}

// All rows of kTiles neighbouring tiles.
template <typename Micro, size_t kTiles>
inline void RunAllRows(const TiledArgs& args, size_t tile) {
  // Blocks of nearly equal height: a last block of one row would waste its weights.
  const size_t num_blocks = (args.rows + Micro::kMaxRows - 1) / Micro::kMaxRows;
  size_t row = 0;
  for (size_t block = 0; block < num_blocks; ++block) {
    const size_t rows = (args.rows - row + num_blocks - block - 1) / (num_blocks - block);
    RunRows<Micro, kTiles, Micro::kMaxRows>(args, rows, row, tile, block + 1 == num_blocks);
    row += rows;
  }
}

template <typename Micro>
inline void RunTiles(const TiledArgs& args) {
  size_t tile = args.tile_begin;
  // One stream of weights, in the order of memory, is read faster than several side by side.
  if (args.rows == 1) {
    for (; tile < args.tile_end; ++tile) Micro::template Run<1, 1>(args, 0, tile, /*last=*/true);
    return;
  }
  for (; tile + Micro::kMaxTiles <= args.tile_end; tile += Micro::kMaxTiles) {
    RunAllRows<Micro, Micro::kMaxTiles>(args, tile);
  }
  for (; tile < args.tile_end; ++tile) RunAllRows<Micro, 1>(args, tile);
}

}  // namespace
}  // namespace nestling::kernels
