// SPDX-License-Identifier: Apache-2.0
#include "pack/checkpoint_tensors.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <set>
#include <string_view>
#include <utility>

#include "model/tensor_names.h"
#include "pack/formats.h"
#include "pack/ggml_blocks.h"

namespace nestling {
namespace {

// Multimodal checkpoints, older ones, text-only ones.
constexpr std::string_view kTextPrefixes[] = {"model.language_model.", "language_model.model.",
                                              "model."};
constexpr std::string_view kWeightSuffix = ".weight";

bool StartsWithAny(std::string_view name, std::initializer_list<std::string_view> prefixes) {
  return std::any_of(prefixes.begin(), prefixes.end(),
                     [name](std::string_view prefix) { return name.starts_with(prefix); });
}

std::string WithoutSuffix(std::string_view name) {
  if (name.ends_with(kWeightSuffix)) name.remove_suffix(kWeightSuffix.size());
  return std::string(name);
}

// What newer versions neither save nor read: keys and values of layers that share them.
bool IsSharedKv(const std::string& name, const TextConfig& text) {
  const std::optional<uint32_t> layer = LayerOfTensor(name);
  if (!layer || *layer < text.first_kv_shared_layer() || *layer >= text.num_layers()) return false;
  return name == names::Layer(*layer, "self_attn.k_proj") ||
         name == names::Layer(*layer, "self_attn.v_proj") ||
         name == names::Layer(*layer, "self_attn.k_norm");
}

// Constants that some tools save although they follow from the configuration, and the output head,
// which is the token embedding.
bool IsRedundant(std::string_view name) {
  return name.ends_with("inv_freq") || name.ends_with("embed_scale") ||
         name.ends_with("router_input_scale") || name == "lm_head.weight" ||
         name.ends_with("language_model.lm_head.weight");
}

// The names of a block's tensors in GGUF, "blk.3.<first>.weight", and in a container.
constexpr std::pair<std::string_view, const char*> kGgufLayerNames[] = {
    {"attn_norm", "input_layernorm"},
    {"attn_q", "self_attn.q_proj"},
    {"attn_k", "self_attn.k_proj"},
    {"attn_v", "self_attn.v_proj"},
    {"attn_output", "self_attn.o_proj"},
    {"attn_q_norm", "self_attn.q_norm"},
    {"attn_k_norm", "self_attn.k_norm"},
    {"post_attention_norm", "post_attention_layernorm"},
    {"ffn_norm", "pre_feedforward_layernorm"},
    {"ffn_gate", "mlp.gate_proj"},
    {"ffn_up", "mlp.up_proj"},
    {"ffn_down", "mlp.down_proj"},
    {"post_ffw_norm", "post_feedforward_layernorm"},
    {"inp_gate", "per_layer_input_gate"},
    {"proj", "per_layer_projection"},
    {"post_norm", "post_per_layer_input_norm"},
    {"altup_correct_coef", "altup.correction_coefs"},
    {"altup_correct_scale", "altup.correct_output_scale"},
    {"altup_predict_coef", "altup.prediction_coefs"},
    {"altup_router", "altup.modality_router"},
    {"altup_router_norm", "altup.router_norm"},
    {"laurel_l", "laurel.linear_left"},
    {"laurel_r", "laurel.linear_right"},
    {"laurel_post_norm", "laurel.post_laurel_norm"},
};
constexpr std::pair<std::string_view, const char*> kGgufNames[] = {
    {kGgufEmbedding, names::kEmbedTokens},
    {kGgufPleTable, names::kPleTable},
    {"per_layer_model_proj.weight", names::kPleProjection},
    {"per_layer_proj_norm.weight", names::kPleProjectionNorm},
    {"output_norm.weight", names::kNorm},
};
constexpr std::string_view kGgufAltupProjections = "altup_proj.weight";
constexpr std::string_view kGgufAltupUnembedProjections = "altup_unembd_proj.weight";
constexpr std::string_view kGgufOutput = "output.weight";

// Empty for a name that is not one of Gemma 3n.
std::string NameOfGguf(std::string_view name) {
  for (const auto& [gguf, container] : kGgufNames) {
    if (name == gguf) return container;
  }
  constexpr std::string_view kBlock = "blk.";
  if (!name.starts_with(kBlock) || !name.ends_with(kWeightSuffix)) return {};
  name.remove_prefix(kBlock.size());
  name.remove_suffix(kWeightSuffix.size());
  uint32_t layer = 0;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), layer);
  if (error != std::errc() || end == name.data() + name.size() || *end != '.') return {};
  // One spelling for each number: two names must not become one.
  const std::string digits = StrCat(layer);
  if (name.substr(0, digits.size() + 1) != digits + ".") return {};
  name.remove_prefix(digits.size() + 1);
  for (const auto& [gguf, container] : kGgufLayerNames) {
    if (name == gguf) return names::Layer(layer, container);
  }
  return {};
}

// A head of its own would change the logits. Where it only repeats the token embedding, perhaps in
// another format, their first rows are alike.
Status CheckTiedOutput(const TensorSource& source, const SourceTensor& output) {
  const SourceTensor* embedding = source.Find(kGgufEmbedding);
  bool tied = embedding != nullptr && embedding->shape == output.shape;
  if (tied) {
    const size_t n = static_cast<size_t>(std::min<uint64_t>(output.num_elements, 1 << 16));
    std::vector<float> a(n), b(n);
    RETURN_IF_ERROR(source.Read(output, 0, a));
    RETURN_IF_ERROR(source.Read(*embedding, 0, b));
    double difference = 0.0, power = 0.0;
    for (size_t i = 0; i < n; ++i) {
      difference += std::pow(static_cast<double>(a[i]) - b[i], 2);
      power += std::pow(static_cast<double>(b[i]), 2);
    }
    tied = difference <= 0.05 * power;  // 4-bit formats differ by less than 0.02
  }
  if (tied) return OkStatus();
  return Unsupported("tensor \"", output.name, "\" ", ShapeText(output.shape),
                     " is not the token embedding, want a tied output head");
}

}  // namespace

std::string ShapeText(std::span<const uint64_t> shape) {
  std::string text = "[";
  for (const uint64_t size : shape) text += StrCat(text.size() > 1 ? ", " : "", size);
  return text + "]";
}

Result<CheckpointTensors> CheckpointTensors::FromHf(const TensorSource& source) {
  std::string_view text_prefix;
  for (const std::string_view prefix : kTextPrefixes) {
    const std::string embedding = StrCat(prefix, names::kEmbedTokens, kWeightSuffix);
    if (text_prefix.empty() && source.Find(embedding) != nullptr) text_prefix = prefix;
  }
  if (text_prefix.empty()) {
    return BadModel("no tensor \"", kTextPrefixes[0], names::kEmbedTokens, kWeightSuffix,
                    "\", nor with one of the other prefixes of Gemma 3n");
  }
  CheckpointTensors tensors;
  for (const SourceTensor& tensor : source.tensors()) {
    std::string_view name = tensor.name;
    if (name.starts_with("model.")) name.remove_prefix(std::string_view("model.").size());
    std::map<std::string, const SourceTensor*>* group = nullptr;
    if (StartsWithAny(name, {"vision_tower.", "embed_vision."})) {
      group = &tensors.vision_;
    } else if (StartsWithAny(name, {"audio_tower.", "embed_audio."})) {
      group = &tensors.audio_;
    } else if (tensor.name.starts_with(text_prefix)) {
      group = &tensors.text_;
      name = std::string_view(tensor.name).substr(text_prefix.size());
    } else {
      tensors.others_.push_back(&tensor);
      continue;
    }
    if (!group->emplace(WithoutSuffix(name), &tensor).second) {
      return BadModel("tensor \"", tensor.name, "\" is there twice, with another prefix or suffix");
    }
  }
  return tensors;
}

Result<CheckpointTensors> CheckpointTensors::FromGguf(const TensorSource& source,
                                                      const TextConfig& text) {
  CheckpointTensors tensors;
  for (const SourceTensor& tensor : source.tensors()) {
    const bool unembed = tensor.name == kGgufAltupUnembedProjections;
    if (unembed || tensor.name == kGgufAltupProjections) {
      // [altup_num_inputs - 1, hidden, hidden]; a part is rows, and so whole blocks.
      if (tensor.shape.size() != 3 || tensor.shape[0] != text.altup_num_inputs - 1) {
        return BadModel("tensor \"", tensor.name, "\": shape ", ShapeText(tensor.shape), ", want ",
                        text.altup_num_inputs - 1, " matrices");
      }
      const auto [elements, bytes] = BlockFormatOf(tensor.dtype);
      for (uint32_t k = 0; k + 1 < text.altup_num_inputs; ++k) {
        SourceTensor part = tensor;
        part.name = StrCat(tensor.name, "[", k, "]");
        part.shape.erase(part.shape.begin());
        part.num_elements = part.shape[0] * part.shape[1];
        part.offset += k * part.num_elements / elements * bytes;
        tensors.parts_.push_back(std::move(part));
        tensors.text_.emplace(
            unembed ? names::AltupUnembedProjection(k) : names::AltupProjection(k),
            &tensors.parts_.back());
      }
      continue;
    }
    if (tensor.name == kGgufOutput) {
      RETURN_IF_ERROR(CheckTiedOutput(source, tensor));
      continue;
    }
    const std::string name = NameOfGguf(tensor.name);
    if (name.empty()) {
      tensors.others_.push_back(&tensor);
    } else if (tensor.name == kGgufPleTable && tensor.shape.size() == 2 &&
               tensor.shape[0] > text.ple_vocab_size) {
      SourceTensor rows = tensor;
      rows.shape[0] = text.ple_vocab_size;
      rows.num_elements = rows.shape[0] * rows.shape[1];
      tensors.parts_.push_back(std::move(rows));
      tensors.text_.emplace(name, &tensors.parts_.back());
    } else {
      tensors.text_.emplace(name, &tensor);
    }
  }
  return tensors;
}

const SourceTensor* CheckpointTensors::Find(const std::string& name) const {
  for (const auto* group : {&text_, &vision_, &audio_}) {
    const auto it = group->find(name);
    if (it != group->end()) return it->second;
  }
  return nullptr;
}

Result<const SourceTensor*> CheckpointTensors::Get(const std::string& name,
                                                   std::span<const uint64_t> shape) const {
  const SourceTensor* tensor = Find(name);
  if (tensor == nullptr) {
    return BadModel("tensor \"", name, "\" is missing, want shape ", ShapeText(shape));
  }
  if (!std::equal(tensor->shape.begin(), tensor->shape.end(), shape.begin(), shape.end())) {
    return BadModel("tensor \"", tensor->name, "\": shape ", ShapeText(tensor->shape), ", want ",
                    ShapeText(shape));
  }
  return tensor;
}

std::vector<CheckpointTensors::TowerTensor> CheckpointTensors::Tower(SectionKind section) const {
  std::vector<TowerTensor> tower;
  const auto& group = section == SectionKind::kVision ? vision_ : audio_;
  for (const auto& [name, source] : group) tower.push_back({name, source});
  return tower;
}

Status CheckpointTensors::CheckUnused(const TextConfig& text, bool allow_unknown,
                                      const WarningCallback& warn) const {
  std::set<std::string> used;
  for (const TensorSpec& spec : TextTensors(text)) used.insert(spec.name);
  std::vector<const SourceTensor*> unknown;
  for (const auto& [name, source] : text_) {
    if (used.contains(name) || IsSharedKv(name, text) || IsRedundant(source->name)) continue;
    unknown.push_back(source);
  }
  for (const SourceTensor* source : others_) {
    if (!IsRedundant(source->name)) unknown.push_back(source);
  }
  for (const SourceTensor* source : unknown) {
    if (!allow_unknown) {
      return Unsupported("tensor \"", source->name, "\" ", ShapeText(source->shape),
                         " is not one of Gemma 3n; --allow-unknown-config leaves it out");
    }
    if (warn) warn(StrCat("tensor \"", source->name, "\" is left out"));
  }
  return OkStatus();
}

}  // namespace nestling
