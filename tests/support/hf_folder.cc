// SPDX-License-Identifier: Apache-2.0
#include "tests/support/hf_folder.h"

#include <cstring>
#include <fstream>

#include "base/math.h"

namespace nestling::testing {
namespace {

using Json = nlohmann::json;

void AppendValue(float value, const std::string& dtype, std::string* bytes) {
  if (dtype == "F32") {
    bytes->append(reinterpret_cast<const char*>(&value), sizeof value);
    return;
  }
  const uint16_t bits = dtype == "BF16" ? FloatToBf16(value) : FloatToHalf(value);
  bytes->append(reinterpret_cast<const char*>(&bits), sizeof bits);
}

}  // namespace

std::string SafetensorsBytes(const std::string& header, const std::string& data) {
  const uint64_t length = header.size();
  std::string bytes(reinterpret_cast<const char*>(&length), sizeof length);
  return bytes + header + data;
}

std::string SafetensorsBytes(const std::vector<HfTensor>& tensors) {
  Json header = {{"__metadata__", {{"format", "pt"}}}};
  std::string data;
  for (const HfTensor& tensor : tensors) {
    const size_t begin = data.size();
    for (const float value : tensor.values) AppendValue(value, tensor.dtype, &data);
    header[tensor.name] = {
        {"dtype", tensor.dtype}, {"shape", tensor.shape}, {"data_offsets", {begin, data.size()}}};
  }
  return SafetensorsBytes(header.dump(), data);
}

void WriteTextFile(const std::string& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

std::vector<HfTensor> TinyCheckpoint(const TinyModelOptions& options, const std::string& prefix,
                                     const std::string& dtype) {
  std::vector<HfTensor> tensors;
  for (const TensorSpec& spec : TextTensors(TinyTextConfig(options))) {
    HfTensor tensor;
    // The only parameter that is not a module's weight.
    const bool is_bare = spec.name.ends_with("correct_output_scale");
    tensor.name = prefix + spec.name + (is_bare ? "" : ".weight");
    tensor.dtype = dtype;
    tensor.shape = spec.shape;
    if (spec.layout == Layout::kPleRows) {
      tensor.shape = {spec.shape[0], spec.shape[1] * spec.shape[2]};
    }
    tensor.values = TinyTensorValues(spec, options);
    tensors.push_back(std::move(tensor));
  }
  return tensors;
}

Json TinyConfigJson(const TinyModelOptions& options) {
  const TextConfig text = TinyTextConfig(options);
  Json types = Json::array();
  Json sparsity = Json::array();
  Json widths = Json::array();
  for (const LayerConfig& layer : text.layers) {
    types.push_back(layer.type == LayerType::kFull ? "full_attention" : "sliding_attention");
    sparsity.push_back(layer.activation_sparsity);
    widths.push_back(layer.ffn_width());
  }
  return {{"model_type", "gemma3n_text"},
          {"architectures", {"Gemma3nForCausalLM"}},
          {"vocab_size", text.vocab_size},
          {"vocab_size_per_layer_input", text.ple_vocab_size},
          {"hidden_size", text.hidden_size},
          {"hidden_size_per_layer_input", text.ple_dim},
          {"num_attention_heads", text.num_heads},
          {"num_key_value_heads", text.num_kv_heads},
          {"head_dim", text.head_dim},
          {"num_hidden_layers", text.num_layers()},
          {"num_kv_shared_layers", text.num_kv_shared_layers},
          {"sliding_window", text.sliding_window},
          {"max_position_embeddings", text.max_position_embeddings},
          {"laurel_rank", text.laurel_rank},
          {"intermediate_size", widths},
          {"layer_types", types},
          {"activation_sparsity_pattern", sparsity},
          {"rope_theta", text.rope_theta_full},
          {"rope_local_base_freq", text.rope_theta_sliding},
          {"bos_token_id", 2},
          {"eos_token_id", 1},
          {"pad_token_id", 0},
          {"torch_dtype", "float32"}};
}

void WriteHfFolder(const std::string& folder, const Json& config,
                   const std::vector<HfTensor>& tensors) {
  WriteTextFile(folder + "/config.json", config.dump());
  WriteTextFile(folder + "/model.safetensors", SafetensorsBytes(tensors));
}

}  // namespace nestling::testing
