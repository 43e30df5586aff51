// SPDX-License-Identifier: Apache-2.0
#include "pack/hf_tensors.h"

#include <algorithm>
#include <set>
#include <string_view>

#include "model/tensor_names.h"
#include "pack/formats.h"

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

}  // namespace

std::string ShapeText(std::span<const uint64_t> shape) {
  std::string text = "[";
  for (const uint64_t size : shape) text += StrCat(text.size() > 1 ? ", " : "", size);
  return text + "]";
}

Result<HfTensors> HfTensors::Create(const SafetensorsReader& reader) {
  std::string_view text_prefix;
  for (const std::string_view prefix : kTextPrefixes) {
    const std::string embedding = StrCat(prefix, names::kEmbedTokens, kWeightSuffix);
    if (text_prefix.empty() && reader.Find(embedding) != nullptr) text_prefix = prefix;
  }
  if (text_prefix.empty()) {
    return BadModel("no tensor \"", kTextPrefixes[0], names::kEmbedTokens, kWeightSuffix,
                    "\", nor with one of the other prefixes of Gemma 3n");
  }
  HfTensors tensors;
  for (const SourceTensor& source : reader.tensors()) {
    std::string_view name = source.name;
    if (name.starts_with("model.")) name.remove_prefix(std::string_view("model.").size());
    std::map<std::string, const SourceTensor*>* group = nullptr;
    if (StartsWithAny(name, {"vision_tower.", "embed_vision."})) {
      group = &tensors.vision_;
    } else if (StartsWithAny(name, {"audio_tower.", "embed_audio."})) {
      group = &tensors.audio_;
    } else if (source.name.starts_with(text_prefix)) {
      group = &tensors.text_;
      name = std::string_view(source.name).substr(text_prefix.size());
    } else {
      tensors.others_.push_back(&source);
      continue;
    }
    if (!group->emplace(WithoutSuffix(name), &source).second) {
      return BadModel("tensor \"", source.name, "\" is there twice, with another prefix or suffix");
    }
  }
  return tensors;
}

const SourceTensor* HfTensors::Find(const std::string& name) const {
  for (const auto* group : {&text_, &vision_, &audio_}) {
    const auto it = group->find(name);
    if (it != group->end()) return it->second;
  }
  return nullptr;
}

Result<const SourceTensor*> HfTensors::Get(const std::string& name,
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

std::vector<HfTensors::TowerTensor> HfTensors::Tower(SectionKind section) const {
  std::vector<TowerTensor> tower;
  const auto& group = section == SectionKind::kVision ? vision_ : audio_;
  for (const auto& [name, source] : group) tower.push_back({name, source});
  return tower;
}

Status HfTensors::CheckUnused(const TextConfig& text, bool allow_unknown,
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
