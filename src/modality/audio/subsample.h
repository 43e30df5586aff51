// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "base/aligned_buffer.h"
#include "base/status.h"
#include "base/thread_pool.h"
#include "graph/linear_block.h"
#include "modality/audio/audio_config.h"
#include "modality/audio/audio_weights.h"
#include "modality/audio/row_queue.h"

namespace nestling {

// What the cumulative norm of one stream has seen.
struct CumulativeNormState {
  uint64_t steps = 0;
  double sum = 0.0;
  double squared_deviations = 0.0;  // each step's from its own running mean
};

// One of the two subsampling blocks (gemma3n.md 5.3): convolution, cumulative group norm, ReLU.
// Rows are time steps, [frequencies, channels] with the channel fastest. Immutable but for what
// LinearBlock locks.
class SubsampleBlock {
 public:
  // Block `index` (0 or 1) of the tower.
  static Result<std::unique_ptr<SubsampleBlock>> Create(const AudioConfig& config, size_t index,
                                                        const ContainerReader& reader,
                                                        const AudioWeights& weights,
                                                        GraphContext& context,
                                                        const ThreadPool& pool);

  size_t row_width() const { return out_frequencies_ * out_channels_; }
  // Floats of working memory for one output row.
  size_t scratch_size() const { return out_frequencies_ * patch_size_; }

  // Most rows of one Run.
  static constexpr size_t kMaxRows = 64;

  // Rows [first, first + count) of the output. Input row 2 t + 2 is the last that row t reads; rows
  // at and after inputs.end() are zeros, which only the end of the sound may make so. `scratch`
  // is an AlignedBuffer of count * scratch_size().
  Status Run(const RowQueue& inputs, size_t first, size_t count, float* scratch,
             CumulativeNormState* state, float* outputs) const;

 private:
  explicit SubsampleBlock(const ThreadPool& pool) : pool_(pool) {}
  void CopyPatches(const RowQueue& inputs, size_t row, float* patches) const;
  void Normalise(size_t count, CumulativeNormState* state, float* rows) const;

  const ThreadPool& pool_;
  size_t in_frequencies_ = 0, in_channels_ = 0, out_frequencies_ = 0, out_channels_ = 0;
  size_t patch_size_ = 0;  // inputs of one output: 3 x 3 x channels
  float eps_ = 0.0f;
  std::unique_ptr<LinearBlock> convolution_;
  AlignedBuffer<float> norm_;  // [out_channels]
};

}  // namespace nestling
