// SPDX-License-Identifier: Apache-2.0
#include "tests/support/gguf_builder.h"

#include <algorithm>
#include <cstdlib>
#include <limits>
#include <map>

#include "base/math.h"
#include "model/tensor_names.h"

namespace nestling::testing {
namespace {

// From the name in a container, behind "layers.N." for those of a layer, to GGUF's.
const std::map<std::string, std::string> kGgufNames = {
    {"embed_tokens", "token_embd"},
    {"embed_tokens_per_layer", "per_layer_token_embd"},
    {"per_layer_model_projection", "per_layer_model_proj"},
    {"per_layer_projection_norm", "per_layer_proj_norm"},
    {"norm", "output_norm"},
    {"input_layernorm", "attn_norm"},
    {"self_attn.q_proj", "attn_q"},
    {"self_attn.k_proj", "attn_k"},
    {"self_attn.v_proj", "attn_v"},
    {"self_attn.o_proj", "attn_output"},
    {"self_attn.q_norm", "attn_q_norm"},
    {"self_attn.k_norm", "attn_k_norm"},
    {"post_attention_layernorm", "post_attention_norm"},
    {"pre_feedforward_layernorm", "ffn_norm"},
    {"mlp.gate_proj", "ffn_gate"},
    {"mlp.up_proj", "ffn_up"},
    {"mlp.down_proj", "ffn_down"},
    {"post_feedforward_layernorm", "post_ffw_norm"},
    {"per_layer_input_gate", "inp_gate"},
    {"per_layer_projection", "proj"},
    {"post_per_layer_input_norm", "post_norm"},
    {"altup.correction_coefs", "altup_correct_coef"},
    {"altup.correct_output_scale", "altup_correct_scale"},
    {"altup.prediction_coefs", "altup_predict_coef"},
    {"altup.modality_router", "altup_router"},
    {"altup.router_norm", "altup_router_norm"},
    {"laurel.linear_left", "laurel_l"},
    {"laurel.linear_right", "laurel_r"},
    {"laurel.post_laurel_norm", "laurel_post_norm"},
};

std::string GgufName(const std::string& name) {
  const std::string kLayers = "layers.";
  if (!name.starts_with(kLayers)) return kGgufNames.at(name) + ".weight";
  const size_t dot = name.find('.', kLayers.size());
  return "blk." + name.substr(kLayers.size(), dot - kLayers.size()) + "." +
         kGgufNames.at(name.substr(dot + 1)) + ".weight";
}

}  // namespace

void GgufBuilder::Set(const std::string& key, uint32_t type, const std::string& bytes) {
  Remove(key);
  pairs_.push_back({key, type, bytes});
}

void GgufBuilder::SetStrings(const std::string& key, const std::vector<std::string>& values) {
  std::string bytes = Bytes<uint32_t>(kString) + Bytes<uint64_t>(values.size());
  for (const std::string& value : values) bytes += Text(value);
  Set(key, kArray, bytes);
}

void GgufBuilder::Remove(const std::string& key) {
  std::erase_if(pairs_, [&](const Pair& pair) { return pair.key == key; });
}

void GgufBuilder::AddFloats(const std::string& name, const std::vector<uint64_t>& shape,
                            const std::vector<float>& values) {
  Tensor tensor{.name = name, .shape = shape, .type = 0, .data = {}};
  tensor.data.assign(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float));
  Add(std::move(tensor));
}

GgufBuilder::Tensor& GgufBuilder::Find(const std::string& name) {
  const auto it = std::find_if(tensors.begin(), tensors.end(),
                               [&](const Tensor& tensor) { return tensor.name == name; });
  if (it == tensors.end()) std::abort();  // the test's own mistake
  return *it;
}

void GgufBuilder::RemoveTensor(const std::string& name) {
  std::erase_if(tensors, [&](const Tensor& tensor) { return tensor.name == name; });
}

std::string GgufBuilder::Build() const {
  std::string bytes =
      "GGUF" + Bytes(version) + Bytes<uint64_t>(tensors.size()) + Bytes<uint64_t>(pairs_.size());
  for (const Pair& pair : pairs_) bytes += Text(pair.key) + Bytes(pair.type) + pair.bytes;
  uint64_t offset = 0;
  for (const Tensor& tensor : tensors) {
    bytes += Text(tensor.name) + Bytes<uint32_t>(static_cast<uint32_t>(tensor.shape.size()));
    for (auto size = tensor.shape.rbegin(); size != tensor.shape.rend(); ++size) {
      bytes += Bytes(*size);
    }
    bytes += Bytes(tensor.type) + Bytes(offset);
    offset = RoundUp(offset + tensor.data.size(), alignment);
  }
  for (const Tensor& tensor : tensors) {
    bytes.resize(RoundUp(bytes.size(), alignment));
    bytes += tensor.data;
  }
  return bytes;
}

GgufBuilder TinyGguf(const TinyModelOptions& options) {
  const TextConfig text = TinyTextConfig(options);
  GgufBuilder gguf;
  gguf.SetString("general.architecture", "gemma3n");
  const auto set = [&gguf](const std::string& key, uint32_t value) {
    gguf.SetUint("gemma3n." + key, value);
  };
  set("context_length", text.max_position_embeddings);
  set("embedding_length", text.hidden_size);
  set("block_count", text.num_layers());
  set("attention.head_count", text.num_heads);
  set("attention.head_count_kv", text.num_kv_heads);
  set("attention.key_length", text.head_dim);
  set("attention.value_length", text.head_dim);
  set("attention.sliding_window", text.sliding_window);
  set("attention.shared_kv_layers", text.num_kv_shared_layers);
  set("altup.active_idx", text.altup_active_idx);
  set("altup.num_inputs", text.altup_num_inputs);
  set("embedding_length_per_layer_input", text.ple_dim);
  gguf.SetFloat("gemma3n.attention.layer_norm_rms_epsilon", text.rms_norm_eps);
  gguf.SetFloat("gemma3n.rope.freq_base", text.rope_theta_full);
  std::vector<uint32_t> widths;
  std::vector<float> cuts;
  std::vector<uint8_t> sliding;
  for (const LayerConfig& layer : text.layers) {
    widths.push_back(layer.ffn_width());
    // TinyModelOptions' default sparsity is 0.95.
    cuts.push_back(layer.activation_sparsity > 0.0f ? 1.6448536f
                                                    : -std::numeric_limits<float>::infinity());
    sliding.push_back(layer.type == LayerType::kSliding);
  }
  gguf.SetArray("gemma3n.feed_forward_length", GgufBuilder::kUint32, widths);
  gguf.SetArray("gemma3n.activation_sparsity_scale", GgufBuilder::kFloat32, cuts);
  gguf.SetArray("gemma3n.attention.sliding_window_pattern", GgufBuilder::kBool, sliding);
  gguf.SetUint("tokenizer.ggml.bos_token_id", 2);
  gguf.SetUint("tokenizer.ggml.eos_token_id", 1);

  std::vector<float> stacks[2];  // projections, unembed projections
  for (const TensorSpec& spec : TextTensors(text)) {
    const std::vector<float> values = TinyTensorValues(spec, options);
    if (spec.name.starts_with("altup_")) {
      std::vector<float>& stack = stacks[spec.name.starts_with("altup_unembed_") ? 1 : 0];
      stack.insert(stack.end(), values.begin(), values.end());
      continue;
    }
    std::vector<uint64_t> shape = spec.shape;
    if (spec.layout == Layout::kPleRows) shape = {spec.shape[0], spec.shape[1] * spec.shape[2]};
    gguf.AddFloats(GgufName(spec.name), shape, values);
  }
  const std::vector<uint64_t> stacked = {text.altup_num_inputs - 1, text.hidden_size,
                                         text.hidden_size};
  gguf.AddFloats("altup_proj.weight", stacked, stacks[0]);
  gguf.AddFloats("altup_unembd_proj.weight", stacked, stacks[1]);
  return gguf;
}

}  // namespace nestling::testing
