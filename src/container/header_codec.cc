// SPDX-License-Identifier: Apache-2.0
#include "container/header_codec.h"

#include <flatbuffers/flatbuffers.h>

#include <algorithm>
#include <cstring>
#include <string>

#include "container/nestling_generated.h"

namespace nestling {
namespace {

// Our enums and the schema's have the same values, so that a cast converts.
static_assert(static_cast<int>(DType::kF32) == static_cast<int>(fbs::DType::f32));
static_assert(static_cast<int>(DType::kF16) == static_cast<int>(fbs::DType::f16));
static_assert(static_cast<int>(DType::kBF16) == static_cast<int>(fbs::DType::bf16));
static_assert(static_cast<int>(DType::kQ8C) == static_cast<int>(fbs::DType::q8c));
static_assert(static_cast<int>(DType::kQ4C) == static_cast<int>(fbs::DType::q4c));
static_assert(static_cast<int>(DType::kQ4B32) == static_cast<int>(fbs::DType::q4b32));
static_assert(static_cast<int>(Layout::kRowMajor) == static_cast<int>(fbs::Layout::row_major));
static_assert(static_cast<int>(Layout::kTransposed) == static_cast<int>(fbs::Layout::transposed));
static_assert(static_cast<int>(Layout::kPleRows) == static_cast<int>(fbs::Layout::ple_rows));
static_assert(static_cast<int>(Layout::kTiled) == static_cast<int>(fbs::Layout::tiled));
static_assert(static_cast<int>(Layout::kNeuronRows) == static_cast<int>(fbs::Layout::neuron_rows));
static_assert(static_cast<int>(Layout::kNeuronColumns) ==
              static_cast<int>(fbs::Layout::neuron_columns));
static_assert(static_cast<int>(Layout::kPacked) == static_cast<int>(fbs::Layout::packed));
static_assert(static_cast<int>(SectionKind::kText) == static_cast<int>(fbs::SectionKind::text));
static_assert(static_cast<int>(SectionKind::kEmbed) == static_cast<int>(fbs::SectionKind::embed));
static_assert(static_cast<int>(SectionKind::kPle) == static_cast<int>(fbs::SectionKind::ple));
static_assert(static_cast<int>(SectionKind::kVision) == static_cast<int>(fbs::SectionKind::vision));
static_assert(static_cast<int>(SectionKind::kAudio) == static_cast<int>(fbs::SectionKind::audio));
static_assert(static_cast<int>(SectionKind::kTokenizer) ==
              static_cast<int>(fbs::SectionKind::tokenizer));
static_assert(static_cast<int>(SectionKind::kPackedText) ==
              static_cast<int>(fbs::SectionKind::packed_text));
static_assert(static_cast<int>(SectionKind::kPackedVision) ==
              static_cast<int>(fbs::SectionKind::packed_vision));
static_assert(static_cast<int>(SectionKind::kPackedAudio) ==
              static_cast<int>(fbs::SectionKind::packed_audio));
static_assert(static_cast<int>(LayerType::kSliding) == static_cast<int>(fbs::LayerType::sliding));
static_assert(static_cast<int>(LayerType::kFull) == static_cast<int>(fbs::LayerType::full));

// The deepest chain of the schema is Header -> TextConfig -> Layer.
constexpr flatbuffers::uoffset_t kMaxDepth = 8;
constexpr flatbuffers::uoffset_t kMaxTables = 1 << 17;
constexpr size_t kMaxTensors = 1 << 16;
constexpr size_t kMaxSections = 64;
constexpr size_t kMaxNameBytes = 256;
constexpr size_t kMaxTextBytes = 4 << 20;  // chat template, JSON objects
constexpr size_t kMaxLayers = 1024;
constexpr size_t kMaxSlices = 256;
constexpr size_t kMaxStopTokens = 1024;

template <typename T>
size_t SizeOf(const flatbuffers::Vector<T>* vector) {
  return vector == nullptr ? 0 : vector->size();
}

Status CheckCount(const char* what, size_t found, size_t most) {
  if (found <= most) return OkStatus();
  return BadModel(what, ": ", found, " entries, at most ", most);
}

Status Assign(const char* what, const flatbuffers::String* text, size_t most, std::string* out) {
  if (text == nullptr) return OkStatus();
  if (text->size() > most) return BadModel(what, ": ", text->size(), " bytes, at most ", most);
  out->assign(text->c_str(), text->size());
  return OkStatus();
}

template <typename T>
Status Assign(const char* what, const flatbuffers::Vector<T>* vector, size_t most,
              std::vector<T>* out) {
  RETURN_IF_ERROR(CheckCount(what, SizeOf(vector), most));
  if (SizeOf(vector) == 0) return OkStatus();
  // Not by its iterators: FlatBuffers' verifier does not look at the alignment of elements.
  out->resize(vector->size());
  std::memcpy(out->data(), vector->Data(), out->size() * sizeof(T));
  for (T& element : *out) element = flatbuffers::EndianScalar(element);
  return OkStatus();
}

// ---- Decoding ----

Status Decode(const fbs::TextConfig& from, TextConfig* text) {
  text->vocab_size = from.vocab_size();
  text->ple_vocab_size = from.ple_vocab_size();
  text->hidden_size = from.hidden_size();
  text->ple_dim = from.ple_dim();
  text->num_heads = from.num_heads();
  text->num_kv_heads = from.num_kv_heads();
  text->head_dim = from.head_dim();
  text->num_kv_shared_layers = from.num_kv_shared_layers();
  text->sliding_window = from.sliding_window();
  text->max_position_embeddings = from.max_position_embeddings();
  text->rope_theta_full = from.rope_theta_full();
  text->rope_theta_sliding = from.rope_theta_sliding();
  text->rms_norm_eps = from.rms_norm_eps();
  text->final_logit_softcap = from.final_logit_softcap();
  text->altup_num_inputs = from.altup_num_inputs();
  text->altup_active_idx = from.altup_active_idx();
  text->altup_correct_scale = from.altup_correct_scale();
  text->laurel_rank = from.laurel_rank();
  RETURN_IF_ERROR(CheckCount("layers", from.layers()->size(), kMaxLayers));
  for (const fbs::Layer* layer : *from.layers()) {
    LayerConfig config;
    if (layer->type() > fbs::LayerType::MAX) {
      return BadModel("layer ", text->layers.size(), ": type ", static_cast<int>(layer->type()),
                      ", want 0 or 1");
    }
    config.type = static_cast<LayerType>(layer->type());
    config.activation_sparsity = layer->activation_sparsity();
    RETURN_IF_ERROR(Assign("shell_ends", layer->shell_ends(), kMaxShells, &config.shell_ends));
    text->layers.push_back(std::move(config));
  }
  return OkStatus();
}

Status Decode(const fbs::Slice& from, SliceConfig* slice) {
  RETURN_IF_ERROR(Assign("slice name", from.name(), kMaxNameBytes, &slice->name));
  RETURN_IF_ERROR(
      Assign("slice description", from.description(), kMaxTextBytes / 1024, &slice->description));
  RETURN_IF_ERROR(Assign("skip_layers", from.skip_layers(), kMaxLayers, &slice->skip_layers));
  RETURN_IF_ERROR(Assign("ffn", from.ffn(), kMaxLayers, &slice->ffn));
  slice->effective_parameters = from.effective_parameters();
  slice->published_accuracy = from.published_accuracy();
  return OkStatus();
}

Status Decode(const fbs::Generation& from, GenerationConfig* generation) {
  generation->do_sample = from.do_sample();
  generation->temperature = from.temperature();
  generation->top_k = from.top_k();
  generation->top_p = from.top_p();
  return Assign("stop_tokens", from.stop_tokens(), kMaxStopTokens, &generation->stop_tokens);
}

void Decode(const fbs::SpecialTokens& from, SpecialTokens* tokens) {
  tokens->bos = from.bos();
  tokens->eos = from.eos();
  tokens->pad = from.pad();
  tokens->unk = from.unk();
  tokens->start_of_image = from.start_of_image();
  tokens->end_of_image = from.end_of_image();
  tokens->image_soft = from.image_soft();
  tokens->start_of_audio = from.start_of_audio();
  tokens->end_of_audio = from.end_of_audio();
  tokens->audio_soft = from.audio_soft();
}

Status Decode(const fbs::Tower& from, TowerConfig* tower) {
  tower->present = true;
  tower->vocab_offset = from.vocab_offset();
  tower->vocab_size = from.vocab_size();
  tower->soft_tokens = from.soft_tokens();
  RETURN_IF_ERROR(
      Assign("tower config_json", from.config_json(), kMaxTextBytes, &tower->config_json));
  return Assign("tower preprocessor_json", from.preprocessor_json(), kMaxTextBytes,
                &tower->preprocessor_json);
}

Status Decode(const fbs::Header& from, HeaderFields* fields) {
  RETURN_IF_ERROR(Decode(*from.text(), &fields->text));
  RETURN_IF_ERROR(CheckCount("slices", SizeOf(from.slices()), kMaxSlices));
  if (from.slices() != nullptr) {
    for (const fbs::Slice* slice : *from.slices()) {
      RETURN_IF_ERROR(Decode(*slice, &fields->slices.emplace_back()));
    }
  }
  if (from.generation() != nullptr) {
    RETURN_IF_ERROR(Decode(*from.generation(), &fields->generation));
  }
  if (from.special_tokens() != nullptr) Decode(*from.special_tokens(), &fields->special_tokens);
  RETURN_IF_ERROR(
      Assign("chat_template", from.chat_template(), kMaxTextBytes, &fields->chat_template));
  if (from.vision() != nullptr) RETURN_IF_ERROR(Decode(*from.vision(), &fields->vision));
  if (from.audio() != nullptr) RETURN_IF_ERROR(Decode(*from.audio(), &fields->audio));
  if (const fbs::Provenance* provenance = from.provenance(); provenance != nullptr) {
    Provenance& to = fields->provenance;
    const size_t most = kMaxTextBytes / 64;
    RETURN_IF_ERROR(Assign("provenance source", provenance->source(), most, &to.source));
    RETURN_IF_ERROR(Assign("provenance tool", provenance->tool(), most, &to.tool));
    RETURN_IF_ERROR(
        Assign("provenance quantisation", provenance->quantisation(), most, &to.quantisation));
  }
  return OkStatus();
}

Status DecodeSections(const fbs::Header& from, bool newer_minor,
                      std::vector<SectionInfo>* sections) {
  RETURN_IF_ERROR(CheckCount("sections", from.sections()->size(), kMaxSections));
  for (const fbs::Section* section : *from.sections()) {
    if (section->kind() > fbs::SectionKind::MAX) {
      if (newer_minor) continue;
      return BadModel("section kind ", static_cast<int>(section->kind()), ", want 0 to ",
                      kNumSections - 1);
    }
    sections->push_back({static_cast<SectionKind>(section->kind()), section->offset(),
                         section->bytes(), section->xxh3()});
  }
  return OkStatus();
}

Status DecodeTensors(const fbs::Header& from, bool newer_minor, std::vector<TensorInfo>* tensors) {
  RETURN_IF_ERROR(CheckCount("tensors", from.tensors()->size(), kMaxTensors));
  tensors->reserve(from.tensors()->size());
  for (const fbs::Tensor* tensor : *from.tensors()) {
    TensorInfo info;
    RETURN_IF_ERROR(Assign("tensor name", tensor->name(), kMaxNameBytes, &info.name));
    if (tensor->section() > fbs::SectionKind::MAX) {
      if (newer_minor) continue;
      return BadModel("tensor \"", info.name, "\": section ", static_cast<int>(tensor->section()),
                      ", want 0 to ", kNumSections - 1);
    }
    if (tensor->dtype() > fbs::DType::MAX || tensor->layout() > fbs::Layout::MAX) {
      const std::string message =
          StrCat("tensor \"", info.name, "\": element type ", static_cast<int>(tensor->dtype()),
                 ", layout ", static_cast<int>(tensor->layout()), ", want at most ", kNumDTypes - 1,
                 " and ", static_cast<int>(fbs::Layout::MAX));
      if (newer_minor) {
        return Unsupported(message, ": the container was written by a newer version");
      }
      return BadModel(message);
    }
    info.section = static_cast<SectionKind>(tensor->section());
    info.dtype = static_cast<DType>(tensor->dtype());
    info.layout = static_cast<Layout>(tensor->layout());
    RETURN_IF_ERROR(Assign("shape", tensor->shape(), kMaxRank, &info.shape));
    info.offset = tensor->offset();
    info.bytes = tensor->bytes();
    info.scales_offset = tensor->scales_offset();
    info.scales_bytes = tensor->scales_bytes();
    tensors->push_back(std::move(info));
  }
  return OkStatus();
}

// ---- Encoding ----

using Builder = flatbuffers::FlatBufferBuilder;

flatbuffers::Offset<fbs::TextConfig> Encode(Builder& builder, const TextConfig& text) {
  std::vector<flatbuffers::Offset<fbs::Layer>> layers;
  for (const LayerConfig& layer : text.layers) {
    layers.push_back(fbs::CreateLayer(builder, static_cast<fbs::LayerType>(layer.type),
                                      layer.activation_sparsity,
                                      builder.CreateVector(layer.shell_ends)));
  }
  const auto layer_vector = builder.CreateVector(layers);
  fbs::TextConfigBuilder to(builder);
  to.add_vocab_size(text.vocab_size);
  to.add_ple_vocab_size(text.ple_vocab_size);
  to.add_hidden_size(text.hidden_size);
  to.add_ple_dim(text.ple_dim);
  to.add_num_heads(text.num_heads);
  to.add_num_kv_heads(text.num_kv_heads);
  to.add_head_dim(text.head_dim);
  to.add_num_kv_shared_layers(text.num_kv_shared_layers);
  to.add_sliding_window(text.sliding_window);
  to.add_max_position_embeddings(text.max_position_embeddings);
  to.add_rope_theta_full(text.rope_theta_full);
  to.add_rope_theta_sliding(text.rope_theta_sliding);
  to.add_rms_norm_eps(text.rms_norm_eps);
  to.add_final_logit_softcap(text.final_logit_softcap);
  to.add_altup_num_inputs(text.altup_num_inputs);
  to.add_altup_active_idx(text.altup_active_idx);
  to.add_altup_correct_scale(text.altup_correct_scale);
  to.add_laurel_rank(text.laurel_rank);
  to.add_layers(layer_vector);
  return to.Finish();
}

flatbuffers::Offset<fbs::Slice> Encode(Builder& builder, const SliceConfig& slice) {
  return fbs::CreateSlice(builder, builder.CreateString(slice.name),
                          builder.CreateString(slice.description),
                          builder.CreateVector(slice.skip_layers), builder.CreateVector(slice.ffn),
                          slice.effective_parameters, slice.published_accuracy);
}

flatbuffers::Offset<fbs::Tower> Encode(Builder& builder, const TowerConfig& tower) {
  if (!tower.present) return {};
  return fbs::CreateTower(builder, tower.vocab_offset, tower.vocab_size, tower.soft_tokens,
                          builder.CreateString(tower.config_json),
                          builder.CreateString(tower.preprocessor_json));
}

flatbuffers::Offset<fbs::Tensor> Encode(Builder& builder, const TensorInfo& tensor) {
  return fbs::CreateTensor(
      builder, builder.CreateString(tensor.name), static_cast<fbs::SectionKind>(tensor.section),
      static_cast<fbs::DType>(tensor.dtype), static_cast<fbs::Layout>(tensor.layout),
      builder.CreateVector(tensor.shape), tensor.offset, tensor.bytes, tensor.scales_offset,
      tensor.scales_bytes);
}

}  // namespace

uint16_t NeededMinorVersion(const ContainerHeader& header) {
  const bool packed =
      std::any_of(header.tensors.begin(), header.tensors.end(),
                  [](const TensorInfo& tensor) { return tensor.layout == Layout::kPacked; }) ||
      std::any_of(header.sections.begin(), header.sections.end(), [](const SectionInfo& section) {
        return section.kind >= SectionKind::kPackedText;
      });
  return packed ? 1 : 0;
}

std::vector<std::byte> EncodeHeader(const ContainerHeader& header) {
  const HeaderFields& fields = header.fields;
  Builder builder(64 << 10);
  const auto text = Encode(builder, fields.text);
  std::vector<flatbuffers::Offset<fbs::Section>> sections;
  for (const SectionInfo& section : header.sections) {
    sections.push_back(fbs::CreateSection(builder, static_cast<fbs::SectionKind>(section.kind),
                                          section.offset, section.bytes, section.xxh3));
  }
  std::vector<flatbuffers::Offset<fbs::Tensor>> tensors;
  for (const TensorInfo& tensor : header.tensors) tensors.push_back(Encode(builder, tensor));
  std::vector<flatbuffers::Offset<fbs::Slice>> slices;
  for (const SliceConfig& slice : fields.slices) slices.push_back(Encode(builder, slice));
  const auto section_vector = builder.CreateVector(sections);
  const auto tensor_vector = builder.CreateVector(tensors);
  const auto slice_vector = builder.CreateVector(slices);
  const auto generation = fbs::CreateGeneration(
      builder, fields.generation.do_sample, fields.generation.temperature, fields.generation.top_k,
      fields.generation.top_p, builder.CreateVector(fields.generation.stop_tokens));
  const SpecialTokens& tokens = fields.special_tokens;
  const auto special_tokens =
      fbs::CreateSpecialTokens(builder, tokens.bos, tokens.eos, tokens.pad, tokens.unk,
                               tokens.start_of_image, tokens.end_of_image, tokens.image_soft,
                               tokens.start_of_audio, tokens.end_of_audio, tokens.audio_soft);
  const auto chat_template = builder.CreateString(fields.chat_template);
  const auto vision = Encode(builder, fields.vision);
  const auto audio = Encode(builder, fields.audio);
  const auto provenance =
      fbs::CreateProvenance(builder, builder.CreateString(fields.provenance.source),
                            builder.CreateString(fields.provenance.tool),
                            builder.CreateString(fields.provenance.quantisation));
  fbs::FinishHeaderBuffer(builder, fbs::CreateHeader(builder, text, section_vector, tensor_vector,
                                                     slice_vector, generation, special_tokens,
                                                     chat_template, vision, audio, provenance));
  const auto* begin = reinterpret_cast<const std::byte*>(builder.GetBufferPointer());
  return std::vector<std::byte>(begin, begin + builder.GetSize());
}

Result<ContainerHeader> DecodeHeader(std::span<const std::byte> bytes, bool newer_minor) {
  flatbuffers::Verifier verifier(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size(),
                                 kMaxDepth, kMaxTables);
  if (!fbs::VerifyHeaderBuffer(verifier)) {
    return BadModel("header: not a valid flatbuffer of this format");
  }
  const fbs::Header& from = *fbs::GetHeader(bytes.data());
  ContainerHeader header;
  RETURN_IF_ERROR(Decode(from, &header.fields));
  RETURN_IF_ERROR(DecodeSections(from, newer_minor, &header.sections));
  RETURN_IF_ERROR(DecodeTensors(from, newer_minor, &header.tensors));
  return header;
}

}  // namespace nestling
