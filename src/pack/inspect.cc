// SPDX-License-Identifier: Apache-2.0
#include "pack/inspect.h"

#include <array>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <nlohmann/json.hpp>
#include <utility>

#include "container/packed_file.h"
#include "container/types.h"
#include "model/slices.h"
#include "pack/json_util.h"

namespace nestling {
namespace {

// Keys in the order of their insertion: for people to read.
using OrderedJson = nlohmann::ordered_json;

const char* LayerTypeName(LayerType type) {
  return type == LayerType::kFull ? "full_attention" : "sliding_attention";
}

std::string Hex(uint64_t value) {
  std::array<char, 17> text;
  std::snprintf(text.data(), text.size(), "%016llx", static_cast<unsigned long long>(value));
  return text.data();
}

// The shortest decimal that is this float: 0.95, not 0.949999988079071.
double Shortest(float value) {
  std::array<char, 32> text;
  for (int digits = 6; digits <= 9; ++digits) {
    std::snprintf(text.data(), text.size(), "%.*g", digits, static_cast<double>(value));
    if (std::strtof(text.data(), nullptr) == value) break;
  }
  return std::strtod(text.data(), nullptr);
}

OrderedJson ContainerPart(const ContainerReader& reader) {
  return {{"format_version", StrCat(kVersionMajor, ".", reader.version_minor())},
          {"content_hash", Hex(reader.content_hash())},
          {"bytes", reader.file().size()}};
}

OrderedJson TextPart(const TextConfig& text) {
  return {{"num_layers", text.num_layers()},
          {"num_kv_shared_layers", text.num_kv_shared_layers},
          {"vocab_size", text.vocab_size},
          {"ple_vocab_size", text.ple_vocab_size},
          {"hidden_size", text.hidden_size},
          {"ple_dim", text.ple_dim},
          {"num_heads", text.num_heads},
          {"num_kv_heads", text.num_kv_heads},
          {"head_dim", text.head_dim},
          {"sliding_window", text.sliding_window},
          {"max_position_embeddings", text.max_position_embeddings},
          {"rope_theta_full", Shortest(text.rope_theta_full)},
          {"rope_theta_sliding", Shortest(text.rope_theta_sliding)},
          {"rms_norm_eps", Shortest(text.rms_norm_eps)},
          {"final_logit_softcap", Shortest(text.final_logit_softcap)},
          {"altup_num_inputs", text.altup_num_inputs},
          {"altup_active_idx", text.altup_active_idx},
          {"altup_correct_scale", text.altup_correct_scale},
          {"laurel_rank", text.laurel_rank}};
}

OrderedJson LayersPart(const TextConfig& text) {
  OrderedJson layers = OrderedJson::array();
  for (const LayerConfig& layer : text.layers) {
    layers.push_back({{"type", LayerTypeName(layer.type)},
                      {"activation_sparsity", Shortest(layer.activation_sparsity)},
                      {"shell_ends", layer.shell_ends}});
  }
  return layers;
}

OrderedJson SectionsPart(const ContainerReader& reader) {
  OrderedJson sections = OrderedJson::array();
  for (size_t i = 0; i < kNumSections; ++i) {
    const SectionInfo* section = reader.FindSection(static_cast<SectionKind>(i));
    if (section == nullptr) continue;
    sections.push_back({{"name", SectionName(section->kind)},
                        {"offset", section->offset},
                        {"bytes", section->bytes},
                        {"xxh3", Hex(section->xxh3)}});
  }
  return sections;
}

uint64_t NumElements(const TensorInfo& tensor) {
  uint64_t count = 1;  // of a validated shape: no overflow
  for (const uint64_t size : tensor.shape) count *= size;
  return count;
}

struct Sum {
  uint64_t tensors = 0;
  uint64_t parameters = 0;
  uint64_t bytes = 0;
  void Add(const TensorInfo& tensor) {
    ++tensors;
    parameters += NumElements(tensor);
    bytes += tensor.bytes + tensor.scales_bytes;
  }
};

OrderedJson TensorsPart(const ContainerReader& reader) {
  std::array<Sum, kNumDTypes> sums;
  for (const TensorInfo& tensor : reader.tensors()) {
    sums[static_cast<size_t>(tensor.dtype)].Add(tensor);
  }
  OrderedJson part = OrderedJson::object();
  for (size_t i = 0; i < kNumDTypes; ++i) {
    if (sums[i].tensors == 0) continue;
    part[DTypeName(static_cast<DType>(i))] = {
        {"tensors", sums[i].tensors}, {"parameters", sums[i].parameters}, {"bytes", sums[i].bytes}};
  }
  return part;
}

// What lies packed in the container, and for what: only there does it run.
OrderedJson PackedParts(const ContainerReader& reader) {
  OrderedJson parts = OrderedJson::object();
  for (const PackedPart& part : kPackedParts) {
    const SectionInfo* section = reader.FindSection(part.packed);
    if (section == nullptr) continue;
    Sum sum;
    for (const TensorInfo& tensor : reader.tensors()) {
      if (tensor.section == part.section && tensor.layout == Layout::kPacked) sum.Add(tensor);
    }
    OrderedJson& entry = parts[part.name] = {
        {"tensors", sum.tensors}, {"parameters", sum.parameters}, {"bytes", section->bytes}};
    const Result<std::unique_ptr<PackedFile>> packed = PackedFile::OpenSection(reader, part);
    if (!packed.ok()) {
      entry["error"] = packed.status().message();
      continue;
    }
    const PackedKey& key = (*packed)->key();
    entry["compute"] = key.compute;
    entry["library"] = key.library;
    entry["cpu"] = key.cpu;
    entry["packed_from"] = Hex(key.content_hash);
  }
  return parts;
}

// Numbers and bytes per section; scales count as bytes only.
OrderedJson ParametersPart(const ContainerReader& reader) {
  constexpr const char* kGroups[] = {"decoder", "embedding", "ple", "vision", "audio"};
  std::array<Sum, std::size(kGroups)> sums;
  Sum total;
  for (const TensorInfo& tensor : reader.tensors()) {
    const size_t group = static_cast<size_t>(tensor.section);
    if (group >= sums.size()) continue;
    sums[group].Add(tensor);
    total.Add(tensor);
  }
  for (const PackedPart& packed : kPackedParts) {
    const SectionInfo* section = reader.FindSection(packed.packed);
    if (section == nullptr) continue;
    sums[static_cast<size_t>(packed.section)].bytes += section->bytes;
    total.bytes += section->bytes;
  }
  OrderedJson part = OrderedJson::object();
  // As Google counts: the decoder with the unused key and value weights of shared layers.
  part["effective"] = WholeModelSlice(reader.header().text).effective_parameters;
  for (size_t i = 0; i < sums.size(); ++i) {
    if (sums[i].tensors == 0) continue;
    part[kGroups[i]] = {{"parameters", sums[i].parameters}, {"bytes", sums[i].bytes}};
  }
  part["total"] = {{"parameters", total.parameters}, {"bytes", total.bytes}};
  return part;
}

OrderedJson SlicesPart(const HeaderFields& header) {
  OrderedJson slices = OrderedJson::array();
  const auto add = [&slices](const SliceConfig& slice) {
    OrderedJson entry = {{"name", slice.name},
                         {"description", slice.description},
                         {"effective_parameters", slice.effective_parameters},
                         {"num_layers", slice.ffn.size()},
                         {"skip_layers", slice.skip_layers},
                         {"ffn", slice.ffn}};
    if (slice.published_accuracy > 0.0f) {
      entry["published_mmlu_percent"] = Shortest(slice.published_accuracy);
    }
    slices.push_back(std::move(entry));
  };
  add(WholeModelSlice(header.text));
  for (const SliceConfig& slice : header.slices) add(slice);
  return slices;
}

OrderedJson SpecialTokensPart(const SpecialTokens& tokens) {
  OrderedJson part = OrderedJson::object();
  const std::pair<const char*, int32_t> all[] = {{"bos", tokens.bos},
                                                 {"eos", tokens.eos},
                                                 {"pad", tokens.pad},
                                                 {"unk", tokens.unk},
                                                 {"start_of_image", tokens.start_of_image},
                                                 {"end_of_image", tokens.end_of_image},
                                                 {"image_soft", tokens.image_soft},
                                                 {"start_of_audio", tokens.start_of_audio},
                                                 {"end_of_audio", tokens.end_of_audio},
                                                 {"audio_soft", tokens.audio_soft}};
  for (const auto& [name, id] : all) {
    if (id >= 0) part[name] = id;
  }
  return part;
}

OrderedJson GenerationPart(const GenerationConfig& generation) {
  return {{"do_sample", generation.do_sample},
          {"temperature", Shortest(generation.temperature)},
          {"top_k", generation.top_k},
          {"top_p", Shortest(generation.top_p)},
          {"stop_tokens", generation.stop_tokens}};
}

// A tower's own configuration as an object; as text if it does not parse, or is so deep or large
// that printing it would take all of the stack or of an afternoon: a container is untrusted.
OrderedJson ParsedOrText(const std::string& text) {
  constexpr size_t kMaxBytes = 64 << 10;
  if (text.size() > kMaxBytes || !ParseJson(text, "tower configuration").ok())
    return OrderedJson(text);
  return OrderedJson::parse(text, nullptr, /*allow_exceptions=*/false);
}

OrderedJson TowersPart(const HeaderFields& header) {
  OrderedJson part = OrderedJson::object();
  const std::pair<const char*, const TowerConfig*> towers[] = {{"vision", &header.vision},
                                                               {"audio", &header.audio}};
  for (const auto& [name, tower] : towers) {
    if (!tower->present) continue;
    part[name] = {{"vocab_offset", tower->vocab_offset},
                  {"vocab_size", tower->vocab_size},
                  {"soft_tokens", tower->soft_tokens},
                  {"config", ParsedOrText(tower->config_json)},
                  {"preprocessor", ParsedOrText(tower->preprocessor_json)}};
  }
  return part;
}

}  // namespace

std::string InspectJson(const ContainerReader& reader) {
  const HeaderFields& header = reader.header();
  OrderedJson json = OrderedJson::object();
  json["container"] = ContainerPart(reader);
  json["provenance"] = {{"source", header.provenance.source},
                        {"tool", header.provenance.tool},
                        {"quantisation", header.provenance.quantisation}};
  json["text"] = TextPart(header.text);
  json["parameters"] = ParametersPart(reader);
  json["tensors"] = TensorsPart(reader);
  json["sections"] = SectionsPart(reader);
  json["packed"] = PackedParts(reader);
  json["slices"] = SlicesPart(header);
  json["layers"] = LayersPart(header.text);
  json["special_tokens"] = SpecialTokensPart(header.special_tokens);
  json["generation"] = GenerationPart(header.generation);
  json["towers"] = TowersPart(header);
  json["chat_template"] = header.chat_template;
  // The header is valid UTF-8; a replacement character is better than an exception all the same.
  return json.dump(2, ' ', false, OrderedJson::error_handler_t::replace) + "\n";
}

}  // namespace nestling
