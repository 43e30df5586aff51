// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/aligned_buffer.h"
#include "base/file.h"
#include "base/lazy_memory.h"
#include "base/status.h"
#include "container/reader.h"
#include "graph/graph_context.h"
#include "graph/linear_block.h"

namespace nestling {

// What the fully connected operators of the tower compute with.
enum class AudioCompute {
  kAuto,  // int8 where the container holds int8 weights, f32 elsewhere
  kF32,   // whatever the container holds; int8 weights are dequantised
  kInt8,  // likewise; other weights are quantised per output channel
};

// One operator of a block: a matrix [out, in] of the AUDIO section and the input that it reads.
struct AudioLinear {
  std::string name;
  size_t input = 0;
};

// The mapped AUDIO section, after ReadAudioConfig has checked its tensors. Lives as long as the
// tower: int8 weights that lie in tiles are read in place. Everything else is packed, or has been,
// and its pages are let go.
class AudioWeights {
 public:
  // `reader` is borrowed for the calls that make blocks and copies, `packed` for good.
  static Result<AudioWeights> Create(const ContainerReader& reader, AudioCompute compute,
                                     PackedWeights& packed);

  PackedWeights& packed() const { return packed_; }

  // A tensor where it lies; a vector is one row.
  Result<Matrix> View(const ContainerReader& reader, const std::string& name) const;
  // Lets go of its resident pages; they are read again if touched.
  void ReleasePages(const Matrix& matrix) const;

  // All elements of a small tensor as f32, in rows of [shape[0], rest].
  Result<AlignedBuffer<float>> Floats(const ContainerReader& reader, const std::string& name) const;

  // A block of fully connected operators.
  Result<std::unique_ptr<LinearBlock>> Block(const ContainerReader& reader, GraphContext& context,
                                             std::span<const AudioLinear> operators);

  // Bytes of weights that blocks read in place in the container.
  uint64_t tiled_bytes() const { return tiled_bytes_; }

 private:
  AudioWeights(MappedRegion region, AudioCompute compute, PackedWeights& packed)
      : region_(std::move(region)), compute_(compute), packed_(packed) {}
  Result<LinearWeight> Prepare(const Matrix& stored, std::vector<LazyMemory>* temporary);

  MappedRegion region_;
  AudioCompute compute_;
  PackedWeights& packed_;
  uint64_t tiled_bytes_ = 0;
};

// A block with one operator, of f32 weights [out, in] that the caller made and that are packed as
// `name`.
Result<std::unique_ptr<LinearBlock>> FloatBlock(GraphContext& context, std::string_view name,
                                                const float* weights, size_t out, size_t in);

}  // namespace nestling
