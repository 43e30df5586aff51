// SPDX-License-Identifier: Apache-2.0
#include "runtime/slice_work.h"

#include <algorithm>
#include <initializer_list>
#include <string>
#include <utility>

#include "model/tensor_names.h"

namespace nestling {
namespace {

// Tensors of one container, added to a WeightWork.
class Summing {
 public:
  explicit Summing(const ContainerReader& container) : container_(container) {}

  // `part` / `whole` of a tensor; none if the model does not have it. Of one that lies by neuron,
  // the share `active` of that.
  void Add(const std::string& name, WeightWork& work, uint64_t part = 1, uint64_t whole = 1,
           double active = 1.0) const {
    const TensorInfo* info = container_.FindTensor(name);
    if (info == nullptr) return;
    const auto used = [&](uint64_t count) {
      const uint64_t used_count = Part(count, part, whole);
      if (!IsByNeuron(info->layout)) return used_count;
      return static_cast<uint64_t>(static_cast<double>(used_count) * active);
    };
    work.bytes += used(info->bytes + info->scales_bytes);
    if (info->shape.size() != 2) return;  // norms
    work.products += used(info->shape[0] * info->shape[1]);
  }

 private:
  static uint64_t Part(uint64_t count, uint64_t part, uint64_t whole) {
    return static_cast<uint64_t>(static_cast<double>(count) * static_cast<double>(part) /
                                 static_cast<double>(whole));
  }
  const ContainerReader& container_;
};

}  // namespace

SliceWork WorkOfSlice(const ContainerReader& container, const SliceConfig& slice) {
  const TextConfig& config = container.header().text;
  const Summing sum(container);
  SliceWork work;
  for (uint32_t k = 0; k + 1 < config.altup_num_inputs; ++k) {
    sum.Add(names::AltupProjection(k), work.every_token);
    sum.Add(names::AltupUnembedProjection(k), work.last_token);
  }
  sum.Add(names::kEmbedTokens, work.head);
  sum.Add(names::kNorm, work.last_token);
  sum.Add(names::kPleProjectionNorm, work.every_token);

  const uint32_t last_owner = config.first_kv_shared_layer() - 1;
  for (uint32_t layer = 0, kept = 0; layer < config.num_layers(); ++layer) {
    const auto& skipped = slice.skip_layers;
    if (std::find(skipped.begin(), skipped.end(), layer) != skipped.end()) continue;
    const uint64_t width = slice.ffn[kept++], whole = config.layers[layer].ffn_width();
    WeightWork& rest = layer < last_owner ? work.every_token : work.last_token;
    // Of the last layer with keys and values of its own, every token needs what these need.
    WeightWork& first = layer <= last_owner ? work.every_token : work.last_token;
    for (const char* tensor :
         {"altup.router_norm", "altup.modality_router", "altup.prediction_coefs", "input_layernorm",
          "self_attn.k_proj", "self_attn.k_norm", "self_attn.v_proj"}) {
      sum.Add(names::Layer(layer, tensor), first);
    }
    for (const char* tensor :
         {"laurel.linear_left", "laurel.linear_right", "laurel.post_laurel_norm",
          "self_attn.q_proj", "self_attn.q_norm", "self_attn.o_proj", "post_attention_layernorm",
          "pre_feedforward_layernorm", "post_feedforward_layernorm", "altup.correction_coefs",
          "altup.correct_output_scale", "per_layer_input_gate", "per_layer_projection",
          "post_per_layer_input_norm"}) {
      sum.Add(names::Layer(layer, tensor), rest);
    }
    for (const char* tensor : {"mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"}) {
      sum.Add(names::Layer(layer, tensor), rest, width, whole,
              1.0 - static_cast<double>(config.layers[layer].activation_sparsity));
    }
    sum.Add(names::kPleProjection, rest, 1, config.num_layers());
  }
  return work;
}

}  // namespace nestling
