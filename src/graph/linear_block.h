// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <xnnpack.h>

#include <cstddef>
#include <memory>
#include <span>
#include <vector>

#include "base/aligned_buffer.h"
#include "base/status.h"
#include "graph/graph_context.h"
#include "graph/linear_weight.h"
#include "graph/tiled_ops.h"

namespace nestling {

// One fully connected operator of a block.
struct LinearOp {
  LinearWeight weight;
  size_t input;  // index into the block's inputs; the operator's index is that of its output
};

// Operators that run together: outputs[i] = W_i inputs[op_i.input], rows of [tokens, channels] f32.
// Weights in tiles run in place on our own kernels, all of them in one parallel region; the others
// are one XNNPACK subgraph. Quantised operators share one quantised copy of their input.
class LinearBlock {
 public:
  static constexpr size_t kMaxInputs = 8;
  static constexpr size_t kMaxOps = 8;

  // Packs weights that do not lie in tiles; the stored ones are not needed afterwards. Tiles stay
  // where they are and must outlive the block. `context` is borrowed.
  static Result<std::unique_ptr<LinearBlock>> Create(GraphContext& context,
                                                     std::span<const LinearOp> ops);
  ~LinearBlock();
  LinearBlock(const LinearBlock&) = delete;
  LinearBlock& operator=(const LinearBlock&) = delete;

  // Inputs must have XNN_EXTRA_BYTES readable after their end (AlignedBuffer and Scratch have).
  // Thread-safe: subgraphs of a context run one at a time. Allocates only when `num_tokens` grows
  // beyond what was seen before.
  Status Run(size_t num_tokens, std::span<const float* const> inputs,
             std::span<float* const> outputs, const LinearWorkspace& workspace);

  // One operator whose weights lie in tiles: VisitBlocks may be called.
  bool has_blocks() const { return runtime_ == nullptr && tiled_.num_ops() == 1; }
  // The same outputs for one token, x [in], without room for all of them; see TiledOps.
  void VisitBlocks(const float* x, const LinearWorkspace& workspace, VisitOutputs visit) const;

  // Multiply-accumulates per token, for counters.
  size_t num_parameters() const { return num_parameters_; }

 private:
  explicit LinearBlock(GraphContext& context) : context_(context) {}
  Status Build(std::span<const LinearOp> all_ops);
  Status BuildSubgraph(std::span<const LinearOp> ops);
  Status Reshape(size_t num_rows);
  Status RunSubgraph(size_t num_rows, std::span<const float* const> inputs,
                     std::span<float* const> outputs);

  GraphContext& context_;
  TiledOps tiled_;
  xnn_runtime_t runtime_ = nullptr;  // null if all weights lie in tiles
  std::vector<size_t> input_channels_;
  // The subgraph's inputs first, then its outputs; the index is the external id.
  std::vector<xnn_external_value> values_;
  std::vector<size_t> subgraph_outputs_;  // their numbers among the block's
  size_t num_rows_ = 0;                   // of the subgraph's shape
  // Where fewer tokens than the subgraph has rows are computed; the same order. Else empty.
  std::vector<AlignedBuffer<float>> few_inputs_;
  std::vector<AlignedBuffer<float>> few_outputs_;
  size_t num_parameters_ = 0;
};

}  // namespace nestling
