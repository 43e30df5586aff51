// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <memory>

#include "base/aligned_buffer.h"
#include "base/function_ref.h"
#include "base/lazy_memory.h"
#include "base/status.h"
#include "base/thread_pool.h"
#include "graph/linear_block.h"
#include "modality/audio/audio_config.h"
#include "modality/audio/audio_weights.h"
#include "modality/audio/float_memory.h"

namespace nestling {

// What one block keeps of a stream's past: the keys and values of the steps that later ones may
// see, and the last inputs of the light convolution. Rows are right-aligned: the newest is the
// last.
struct ConformerState {
  FloatMemory keys, values;  // [attention_window - 1, size]
  FloatMemory convolved;     // [conv_kernel - 1, size], zeros at the beginning
};
Result<ConformerState> MakeConformerState(const AudioConfig& config);

// Working memory of a stream, shared by all blocks.
class ConformerScratch {
 public:
  static Result<ConformerScratch> Create(const AudioConfig& config, size_t max_steps);

  float* normed = nullptr;  // [max_steps, size]
  float* wide = nullptr;    // [max_steps, the widest of the operators]
  float* out = nullptr;     // [max_steps, size]
  float* history[2] = {};   // keys and values, or convolution inputs: [past + max_steps, size]
  LinearWorkspace workspace;
  size_t bytes() const { return memory_.size(); }

 private:
  LazyMemory memory_;
};

// Sees the rows [num_steps, size] after a part of the block: "ffw_start", "attention", "lconv",
// "ffw_end", "" (the whole block).
using ConformerObserver = FunctionRef<void(const char* part, const float* rows)>;

// One block of the conformer (gemma3n.md 5.4, 5.5). Causal: steps may come in pieces of any length.
// Thread-safe; `pool` is borrowed.
class ConformerBlock {
 public:
  static Result<std::unique_ptr<ConformerBlock>> Create(const AudioConfig& config, size_t layer,
                                                        const ContainerReader& reader,
                                                        AudioWeights* weights,
                                                        GraphContext& context,
                                                        const ThreadPool& pool);

  // x [num_steps, size], in place; an AlignedBuffer or the like. The first row is step
  // `first_step` of the stream, and `state` what the steps before it left.
  Status Run(size_t first_step, size_t num_steps, ConformerScratch* scratch, ConformerState* state,
             float* x, ConformerObserver observer) const;

 private:
  struct FeedForward {
    AlignedBuffer<float> pre_norm;
    AlignedBuffer<float> post_norm;  // times the residual weight
    std::unique_ptr<LinearBlock> up, down;
  };

  ConformerBlock(const AudioConfig& config, const ThreadPool& pool)
      : config_(config), pool_(pool) {}
  Status Load(size_t layer, const ContainerReader& reader, AudioWeights* weights,
              GraphContext& context);
  Status MakePositions(size_t layer, const ContainerReader& reader, const AudioWeights& weights);
  Status ProjectPositions(const Matrix& projection, float* positions) const;
  Status LoadFeedForward(size_t layer, const char* part, const ContainerReader& reader,
                         AudioWeights* weights, GraphContext& context, FeedForward* ffw);
  Status RunFeedForward(const FeedForward& ffw, size_t num_steps, ConformerScratch* scratch,
                        float* x) const;
  Status RunAttention(size_t first_step, size_t num_steps, ConformerScratch* scratch,
                      ConformerState* state, float* x) const;
  Status RunConvolution(size_t num_steps, ConformerScratch* scratch, ConformerState* state,
                        float* x) const;
  void NormRows(const AlignedBuffer<float>& norm, size_t num_steps, const float* x, float* y) const;

  const AudioConfig& config_;
  const ThreadPool& pool_;
  FeedForward ffw_start_, ffw_end_;
  AlignedBuffer<float> pre_attention_norm_, post_attention_norm_, pre_conv_norm_, conv_norm_;
  AlignedBuffer<float> final_norm_;
  std::unique_ptr<LinearBlock> qkv_, attention_out_, conv_in_, conv_out_;
  AlignedBuffer<float> query_scales_;  // [size], per_dim_scale repeated for every head
  std::span<const float> positions_;   // [attention_window, size], by distance; packed
  AlignedBuffer<float> taps_;          // [conv_kernel, size]
};

}  // namespace nestling
