// SPDX-License-Identifier: Apache-2.0
#include "graph/decoder_blocks.h"

#include <string>
#include <utility>

#include "model/tensor_names.h"

namespace nestling {

Result<std::unique_ptr<DecoderBlocks>> DecoderBlocks::Create(const ModelWeights& weights,
                                                             const ThreadPool& pool,
                                                             const PackedCacheOptions& cache) {
  std::unique_ptr<DecoderBlocks> blocks(new DecoderBlocks(weights));
  ASSIGN_OR_RETURN(auto packed, PackedWeights::Create(weights.reader(), "text", "stored", cache));
  ASSIGN_OR_RETURN(blocks->context_, GraphContext::Create(pool, std::move(packed)));
  blocks->layers_.resize(weights.reader().header().text.num_layers());
  RETURN_IF_ERROR(blocks->LoadGlobals());
  return blocks;
}

Result<std::unique_ptr<LinearBlock>> DecoderBlocks::MakeBlock(std::span<const LinearOp> ops) {
  ASSIGN_OR_RETURN(auto block, LinearBlock::Create(*context_, ops));
  // Each weight is resident once: where a packed copy stays, the mapped pages go.
  for (const LinearOp& op : ops) {
    if (op.weight.matrix.layout != Layout::kTiled) weights_.ReleasePages(op.weight.matrix);
  }
  return block;
}

Status DecoderBlocks::LoadGlobals() {
  const TextConfig& config = weights_.reader().header().text;
  std::vector<LinearOp> init, merge;
  for (uint32_t k = 0; k + 1 < config.altup_num_inputs; ++k) {
    ASSIGN_OR_RETURN(const Matrix up, weights_.GetMatrix(names::AltupProjection(k)));
    ASSIGN_OR_RETURN(const Matrix down, weights_.GetMatrix(names::AltupUnembedProjection(k)));
    init.push_back({LinearWeight::All(up), 0});
    merge.push_back({LinearWeight::All(down), k});
  }
  ASSIGN_OR_RETURN(altup_init_, MakeBlock(init));
  ASSIGN_OR_RETURN(altup_merge_, MakeBlock(merge));
  loaded_parameters_ = altup_init_->num_parameters() + altup_merge_->num_parameters();
  ASSIGN_OR_RETURN(embedding_, weights_.GetMatrix(names::kEmbedTokens));
  const LinearOp head[] = {{LinearWeight::All(embedding_), 0}};
  ASSIGN_OR_RETURN(lm_head_, MakeBlock(head));
  ASSIGN_OR_RETURN(final_norm_, weights_.GetVector(names::kNorm));
  ASSIGN_OR_RETURN(ple_projection_norm_, weights_.GetVector(names::kPleProjectionNorm));
  return OkStatus();
}

Status DecoderBlocks::Load(const SliceConfig& slice) {
  const std::lock_guard lock(load_mutex_);
  size_t kept = 0, skipped = 0;
  for (uint32_t index = 0; index < layers_.size(); ++index) {
    if (skipped < slice.skip_layers.size() && slice.skip_layers[skipped] == index) {
      ++skipped;
      continue;
    }
    if (layers_[index] == nullptr) RETURN_IF_ERROR(LoadLayer(index));
    RETURN_IF_ERROR(LoadShells(index, slice.ffn[kept]));
    ++kept;
  }
  context_->packed_weights().Commit();
  return OkStatus();
}

Status DecoderBlocks::LoadLayer(uint32_t index) {
  const TextConfig& config = weights_.reader().header().text;
  const uint32_t first_shared = config.first_kv_shared_layer();
  auto layer = std::make_unique<LayerBlocks>();
  const auto matrix = [&](const char* name) {
    return weights_.GetMatrix(names::Layer(index, name));
  };
  const auto vector = [&](const char* name, std::span<const float>* out) -> Status {
    ASSIGN_OR_RETURN(*out, weights_.GetVector(names::Layer(index, name)));
    return OkStatus();
  };

  layer->owns_kv = index < first_shared;
  ASSIGN_OR_RETURN(const Matrix q, matrix("self_attn.q_proj"));
  ASSIGN_OR_RETURN(const Matrix left, matrix("laurel.linear_left"));
  std::vector<LinearOp> projections = {{LinearWeight::All(q), 0}, {LinearWeight::All(left), 0}};
  if (layer->owns_kv) {
    ASSIGN_OR_RETURN(const Matrix k, matrix("self_attn.k_proj"));
    ASSIGN_OR_RETURN(const Matrix v, matrix("self_attn.v_proj"));
    const LinearOp kv[] = {{LinearWeight::All(k), 0}, {LinearWeight::All(v), 0}};
    if (index + 1 == first_shared) {
      ASSIGN_OR_RETURN(layer->kv, MakeBlock(kv));
    } else {
      projections.insert(projections.end(), std::begin(kv), std::end(kv));
    }
    RETURN_IF_ERROR(vector("self_attn.k_norm", &layer->k_norm));
  }
  ASSIGN_OR_RETURN(layer->projections, MakeBlock(projections));
  ASSIGN_OR_RETURN(const Matrix o, matrix("self_attn.o_proj"));
  ASSIGN_OR_RETURN(const Matrix right, matrix("laurel.linear_right"));
  const LinearOp attention_out[] = {{LinearWeight::All(o), 0}, {LinearWeight::All(right), 1}};
  ASSIGN_OR_RETURN(layer->attention_out, MakeBlock(attention_out));
  ASSIGN_OR_RETURN(const Matrix gate, matrix("per_layer_input_gate"));
  ASSIGN_OR_RETURN(const Matrix all_layers, weights_.GetMatrix(names::kPleProjection));
  const size_t row = size_t{index} * config.ple_dim;
  const LinearOp ple_in[] = {{LinearWeight::All(gate), 0},
                             {LinearWeight::Outputs(all_layers, row, row + config.ple_dim), 1}};
  ASSIGN_OR_RETURN(layer->ple_in, MakeBlock(ple_in));
  ASSIGN_OR_RETURN(const Matrix projection, matrix("per_layer_projection"));
  const LinearOp ple_out[] = {{LinearWeight::All(projection), 0}};
  ASSIGN_OR_RETURN(layer->ple_out, MakeBlock(ple_out));

  RETURN_IF_ERROR(vector("input_layernorm", &layer->input_norm));
  RETURN_IF_ERROR(vector("post_attention_layernorm", &layer->post_attention_norm));
  RETURN_IF_ERROR(vector("pre_feedforward_layernorm", &layer->pre_ffn_norm));
  RETURN_IF_ERROR(vector("post_feedforward_layernorm", &layer->post_ffn_norm));
  RETURN_IF_ERROR(vector("post_per_layer_input_norm", &layer->post_ple_norm));
  RETURN_IF_ERROR(vector("laurel.post_laurel_norm", &layer->laurel_norm));
  RETURN_IF_ERROR(vector("self_attn.q_norm", &layer->q_norm));
  RETURN_IF_ERROR(vector("altup.modality_router", &layer->router));
  RETURN_IF_ERROR(vector("altup.router_norm", &layer->router_norm));
  RETURN_IF_ERROR(vector("altup.prediction_coefs", &layer->prediction_coefs));
  RETURN_IF_ERROR(vector("altup.correction_coefs", &layer->correction_coefs));
  if (config.altup_correct_scale) {
    RETURN_IF_ERROR(vector("altup.correct_output_scale", &layer->correct_output_scale));
  }
  for (const LinearBlock* block :
       {layer->kv.get(), layer->projections.get(), layer->attention_out.get(), layer->ple_in.get(),
        layer->ple_out.get()}) {
    if (block != nullptr) loaded_parameters_ += block->num_parameters();
  }
  // Room for every shell now: running sessions hold references while shells are appended.
  layer->shells.reserve(config.layers[index].shell_ends.size());
  layers_[index] = std::move(layer);
  return OkStatus();
}

Status DecoderBlocks::LoadShells(uint32_t index, uint32_t width) {
  const std::vector<uint32_t>& ends = weights_.reader().header().text.layers[index].shell_ends;
  std::vector<FfnShell>& shells = layers_[index]->shells;
  while (shells.empty() || shells.back().end < width) {
    const size_t number = shells.size();
    FfnShell shell;
    shell.begin = number == 0 ? 0 : ends[number - 1];
    shell.end = ends[number];
    const auto matrix = [&](const char* name) {
      return weights_.GetMatrix(names::Layer(index, name));
    };
    ASSIGN_OR_RETURN(const Matrix gate, matrix("mlp.gate_proj"));
    ASSIGN_OR_RETURN(const Matrix up, matrix("mlp.up_proj"));
    ASSIGN_OR_RETURN(const Matrix down, matrix("mlp.down_proj"));
    const bool sparse = IsByNeuron(up.layout);  // CheckTextTensors: so is `down`
    const LinearOp gate_up[] = {{LinearWeight::Outputs(gate, shell.begin, shell.end), 0},
                                {LinearWeight::Outputs(up, shell.begin, shell.end), 0}};
    ASSIGN_OR_RETURN(shell.gate_up, MakeBlock(std::span(gate_up, sparse ? 1 : 2)));
    if (!sparse) {
      const LinearOp down_op[] = {{LinearWeight::Shell(down, number, shell.begin, shell.end), 0}};
      ASSIGN_OR_RETURN(shell.down, MakeBlock(down_op));
    } else if (layers_[index]->sparse == nullptr) {
      layers_[index]->sparse = std::make_unique<SparseFfn>(up, down);
    }
    loaded_parameters_ += size_t{3} * gate.in * (shell.end - shell.begin);
    shells.push_back(std::move(shell));
  }
  return OkStatus();
}

uint64_t DecoderBlocks::packed_bytes() const {
  const std::lock_guard lock(load_mutex_);
  return context_->packed_weights().bytes();
}

uint64_t DecoderBlocks::loaded_parameters() const {
  const std::lock_guard lock(load_mutex_);
  return loaded_parameters_;
}

}  // namespace nestling
