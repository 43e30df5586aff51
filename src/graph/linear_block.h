// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <xnnpack.h>

#include <cstddef>
#include <memory>
#include <span>
#include <vector>

#include "base/status.h"
#include "graph/graph_context.h"
#include "graph/linear_weight.h"

namespace nestling {

// One fully connected operator of a block.
struct LinearOp {
  LinearWeight weight;
  size_t input;  // index into the block's inputs; the operator's index is that of its output
};

// One XNNPACK subgraph: outputs[i] = W_i inputs[op_i.input], rows of [tokens, channels] f32.
// Operators with quantised weights share one dynamically quantised copy of their input.
class LinearBlock {
 public:
  static constexpr size_t kMaxInputs = 8;
  static constexpr size_t kMaxOps = 8;

  // Packs the weights; the stored ones are not needed afterwards. `context` is borrowed.
  static Result<std::unique_ptr<LinearBlock>> Create(GraphContext& context,
                                                     std::span<const LinearOp> ops);
  ~LinearBlock();
  LinearBlock(const LinearBlock&) = delete;
  LinearBlock& operator=(const LinearBlock&) = delete;

  // Inputs must have XNN_EXTRA_BYTES readable after their end (AlignedBuffer has). Thread-safe:
  // one run of the context's blocks at a time. Allocates only when `num_tokens` grows beyond
  // what was seen before.
  Status Run(size_t num_tokens, std::span<const float* const> inputs,
             std::span<float* const> outputs);

  // Multiply-accumulates per token, for counters.
  size_t num_parameters() const { return num_parameters_; }

 private:
  explicit LinearBlock(GraphContext& context) : context_(context) {}
  Status Build(std::span<const LinearOp> ops);
  Status Reshape(size_t num_tokens);

  GraphContext& context_;
  xnn_runtime_t runtime_ = nullptr;
  std::vector<size_t> input_channels_;
  std::vector<size_t> output_channels_;
  // Inputs first, then outputs; the index is the external id.
  std::vector<xnn_external_value> values_;
  size_t num_tokens_ = 0;
  size_t num_parameters_ = 0;
};

}  // namespace nestling
