// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/function_ref.h"
#include "base/thread_pool.h"
#include "graph/linear_weight.h"
#include "kernels/tiled_linear/tiled_linear.h"

namespace nestling {

// Memory that a run of tiled operators needs for its quantised inputs. Belongs to the caller's
// call, so that several may run at a time.
struct LinearWorkspace {
  std::byte* data = nullptr;  // 64-byte aligned
  size_t bytes = 0;
};

// Workspace for `num_inputs` inputs of `num_tokens` rows that are `total_channels` wide together.
size_t LinearWorkspaceBytes(size_t num_tokens, size_t total_channels, size_t num_inputs);

// One input of k channels, x [tokens, k], quantised for the kernels into the workspace.
kernels::QuantizedInputs QuantizeRows(const ThreadPool& pool, size_t num_tokens, size_t k,
                                      const float* x, const LinearWorkspace& workspace);

// Some outputs of one token, [first, first + values.size()): in the first-level cache, and gone
// after the call, which may write to them. Called by the thread of the pool that computed them.
using VisitOutputs = FunctionRef<void(size_t thread, size_t first, std::span<float> values)>;

// Fully connected operators whose weights lie in tiles and are read in place from the mapped
// container: nothing is packed. Immutable; runs may overlap.
class TiledOps {
 public:
  // `weight` is a part of a tiled matrix, cut at tiles and shells.
  void Add(const LinearWeight& weight, size_t input, size_t output);

  bool empty() const { return ops_.empty(); }
  size_t num_ops() const { return ops_.size(); }

  // outputs[op.output] = W_op inputs[op.input] for all operators, in one parallel region.
  void Run(const ThreadPool& pool, size_t num_tokens, std::span<const float* const> inputs,
           std::span<float* const> outputs, const LinearWorkspace& workspace) const;
  // Of the only operator and one token, x [in]: the same outputs block by block, in any order.
  void VisitBlocks(const ThreadPool& pool, const float* x, const LinearWorkspace& workspace,
                   VisitOutputs visit) const;

 private:
  struct Op {
    // The operator from this tile on.
    const uint8_t* CodesFrom(size_t tile) const;
    const void* ScalesFrom(size_t tile) const;

    DType dtype;
    const uint8_t* codes;
    const void* scales;
    size_t in;
    size_t out;
    size_t input;
    size_t output;
  };
  // Tiles that one task computes.
  struct Unit {
    size_t op;
    size_t tile_begin;
    size_t tile_end;
  };

  std::vector<Op> ops_;
  std::vector<Unit> units_;
  std::vector<size_t> input_channels_;  // 0: no tiled operator reads this input
};

}  // namespace nestling
