// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "base/status.h"
#include "graph/graph_context.h"
#include "graph/linear_block.h"
#include "graph/sparse_ffn.h"
#include "model/weights.h"

namespace nestling {

// One shell of a layer's feed-forward network: neurons [begin, end).
struct FfnShell {
  uint32_t begin = 0;
  uint32_t end = 0;
  // x [tokens, hidden] -> gate and, unless the layer is sparse, up; [tokens, end - begin].
  std::unique_ptr<LinearBlock> gate_up;
  // [tokens, end - begin] -> this shell's share of the output, [tokens, hidden]; null if the layer
  // is sparse.
  std::unique_ptr<LinearBlock> down;
};

// What one decoder layer needs (gemma3n.md 2.4, 2.5, 2.8). Small tensors are views of the mapped
// container.
struct LayerBlocks {
  bool owns_kv = false;
  // x -> k, v: a block of its own in the last layer that owns keys and values, because prefill
  // runs nothing else of that layer for all positions but the last. Null elsewhere.
  std::unique_ptr<LinearBlock> kv;
  // x -> q, LAuReL left; and k, v where the layer owns them and `kv` is null.
  std::unique_ptr<LinearBlock> projections;
  // attention output, LAuReL left -> o_proj, LAuReL right.
  std::unique_ptr<LinearBlock> attention_out;
  std::vector<FfnShell> shells;  // those loaded so far, in order
  // Up and down projection of all shells, where they lie by neuron; else null.
  std::unique_ptr<SparseFfn> sparse;
  // z [tokens, hidden], e [tokens, hidden] -> gate [tokens, P], PLE projection [tokens, P].
  std::unique_ptr<LinearBlock> ple_in;
  // [tokens, P] -> [tokens, hidden].
  std::unique_ptr<LinearBlock> ple_out;

  std::span<const float> input_norm, post_attention_norm, pre_ffn_norm, post_ffn_norm;  // [hidden]
  std::span<const float> post_ple_norm, laurel_norm;                                    // [hidden]
  std::span<const float> q_norm, k_norm;        // [head_dim]
  std::span<const float> router, router_norm;   // [n, hidden], [hidden]
  std::span<const float> prediction_coefs;      // [n * n, n]
  std::span<const float> correction_coefs;      // [n, n]
  std::span<const float> correct_output_scale;  // [hidden], empty if the model has none
};

// The dense operators of the text decoder. Layers and shells are packed when a slice first asks
// for them, then kept and shared by every slice and session. Thread-safe.
class DecoderBlocks {
 public:
  // `weights` and `pool` are borrowed and must outlive the blocks. Packs what every slice needs,
  // or takes it from the file of packed weights.
  static Result<std::unique_ptr<DecoderBlocks>> Create(const ModelWeights& weights,
                                                       const ThreadPool& pool,
                                                       const PackedCacheOptions& cache = {});

  // Packs what `slice` (valid for this model) needs and is not there yet. On an error everything
  // loaded before stays usable.
  Status Load(const SliceConfig& slice);

  // A layer of a loaded slice, by its number in the whole model.
  const LayerBlocks& layer(uint32_t index) const { return *layers_[index]; }

  // e [tokens, hidden] -> altup_num_inputs - 1 streams.
  LinearBlock& altup_init() const { return *altup_init_; }
  // altup_num_inputs - 1 streams -> as many.
  LinearBlock& altup_merge() const { return *altup_merge_; }
  // [tokens, hidden] -> [tokens, vocab].
  LinearBlock& lm_head() const { return *lm_head_; }
  std::span<const float> final_norm() const { return final_norm_; }
  std::span<const float> ple_projection_norm() const { return ple_projection_norm_; }
  // One row per token, [vocab, hidden], read in place.
  const Matrix& embedding() const { return embedding_; }

  uint64_t packed_bytes() const;
  PackedCacheInfo packed_info() const { return context_->packed_weights().info(); }
  // What the container holds in packed form, mapped; empty: nothing.
  std::span<const std::byte> held() const { return context_->packed_weights().held(); }
  // Matrix parameters packed so far, the LM head left out (it is the embedding).
  uint64_t loaded_parameters() const;

 private:
  DecoderBlocks(const ModelWeights& weights) : weights_(weights) {}
  Status LoadGlobals();
  Status LoadLayer(uint32_t index);
  Status LoadShells(uint32_t index, uint32_t width);
  Result<std::unique_ptr<LinearBlock>> MakeBlock(std::span<const LinearOp> ops);

  const ModelWeights& weights_;
  std::unique_ptr<GraphContext> context_;
  mutable std::mutex load_mutex_;
  std::vector<std::unique_ptr<LayerBlocks>> layers_;  // null: not loaded
  std::unique_ptr<LinearBlock> altup_init_, altup_merge_, lm_head_;
  std::span<const float> final_norm_, ple_projection_norm_;
  Matrix embedding_;
  uint64_t loaded_parameters_ = 0;
};

}  // namespace nestling
