// SPDX-License-Identifier: Apache-2.0
#include "model/tensor_names.h"

#include <algorithm>
#include <utility>

namespace nestling {
namespace names {

std::string AltupProjection(uint32_t k) { return StrCat("altup_projections.", k); }
std::string AltupUnembedProjection(uint32_t k) { return StrCat("altup_unembed_projections.", k); }
std::string Layer(uint32_t layer, const char* tensor) {
  return StrCat("layers.", layer, ".", tensor);
}

}  // namespace names

namespace {

enum class Care { kF32, kSensitive, kNormal };

class SpecList {
 public:
  void Add(std::string name, std::vector<uint64_t> shape, Care care,
           SectionKind section = SectionKind::kText, Layout layout = Layout::kRowMajor,
           uint32_t num_shells = 1) {
    specs_.push_back({.name = std::move(name),
                      .section = section,
                      .layout = layout,
                      .shape = std::move(shape),
                      .keep_f32 = care == Care::kF32,
                      .sensitive = care == Care::kSensitive,
                      .num_shells = num_shells});
  }
  std::vector<TensorSpec> Take() { return std::move(specs_); }

 private:
  std::vector<TensorSpec> specs_;
};

// In the order of use, so that a step reads its layer front to back.
void AddLayer(const TextConfig& c, uint32_t index, SpecList* list) {
  const LayerConfig& layer = c.layers[index];
  const uint64_t hidden = c.hidden_size;
  const uint64_t streams = c.altup_num_inputs;
  const uint64_t q_dim = uint64_t{c.num_heads} * c.head_dim;
  const uint64_t kv_dim = uint64_t{c.num_kv_heads} * c.head_dim;
  const uint64_t width = layer.ffn_width();
  const auto add = [&](const char* tensor, std::vector<uint64_t> shape, Care care = Care::kF32) {
    list->Add(names::Layer(index, tensor), std::move(shape), care);
  };
  add("altup.router_norm", {hidden});
  add("altup.modality_router", {streams, hidden});
  add("altup.prediction_coefs", {streams * streams, streams});
  add("input_layernorm", {hidden});
  add("laurel.linear_left", {c.laurel_rank, hidden}, Care::kSensitive);
  add("laurel.linear_right", {hidden, c.laurel_rank}, Care::kSensitive);
  add("laurel.post_laurel_norm", {hidden});
  add("self_attn.q_proj", {q_dim, hidden}, Care::kNormal);
  add("self_attn.q_norm", {c.head_dim});
  if (index < c.first_kv_shared_layer()) {
    add("self_attn.k_proj", {kv_dim, hidden}, Care::kNormal);
    add("self_attn.k_norm", {c.head_dim});
    add("self_attn.v_proj", {kv_dim, hidden}, Care::kNormal);
  }
  add("self_attn.o_proj", {hidden, q_dim}, Care::kNormal);
  add("post_attention_layernorm", {hidden});
  add("pre_feedforward_layernorm", {hidden});
  add("mlp.gate_proj", {width, hidden}, Care::kNormal);
  add("mlp.up_proj", {width, hidden}, Care::kNormal);
  list->Add(names::Layer(index, "mlp.down_proj"), {hidden, width}, Care::kNormal,
            SectionKind::kText, Layout::kTransposed,
            static_cast<uint32_t>(layer.shell_ends.size()));
  add("post_feedforward_layernorm", {hidden});
  add("altup.correction_coefs", {streams, streams});
  add("altup.correct_output_scale", {hidden});
  add("per_layer_input_gate", {c.ple_dim, hidden}, Care::kSensitive);
  add("per_layer_projection", {hidden, c.ple_dim}, Care::kSensitive);
  add("post_per_layer_input_norm", {hidden});
}

std::string ShapeText(std::span<const uint64_t> shape) {
  std::string text = "[";
  for (const uint64_t size : shape) text += StrCat(text.size() > 1 ? ", " : "", size);
  return text + "]";
}

constexpr const char* kLayoutNames[] = {"row_major",   "transposed",     "ple_rows", "tiled",
                                        "neuron_rows", "neuron_columns", "packed"};

// Whether a tensor may lie in tiles instead, or be packed: matrices that need not be f32.
bool MayBeTiled(const TensorSpec& spec) {
  return spec.layout != Layout::kPleRows && !spec.keep_f32 && spec.shape.size() == 2;
}

// The layout that an up or down projection may have instead in layers of few active neurons.
Layout NeuronLayout(const TensorSpec& spec) {
  if (spec.name.ends_with(".mlp.up_proj")) return Layout::kNeuronRows;
  if (spec.name.ends_with(".mlp.down_proj")) return Layout::kNeuronColumns;
  return spec.layout;
}

// Both projections of a layer are read by neuron, or none; and only where a gate cuts neurons off.
Status CheckNeurons(const ContainerReader& reader, uint32_t index) {
  const auto layout = [&](const char* tensor) {
    return reader.FindTensor(names::Layer(index, tensor))->layout;
  };
  const bool up = layout("mlp.up_proj") == Layout::kNeuronRows;
  const bool down = layout("mlp.down_proj") == Layout::kNeuronColumns;
  if (up != down) {
    return BadModel("\"", reader.file().name(), "\": layer ", index, ": ",
                    up ? "up_proj" : "down_proj", " lies by neuron and ",
                    up ? "down_proj" : "up_proj", " does not");
  }
  if (up && !(reader.header().text.layers[index].activation_sparsity > 0)) {
    return BadModel("\"", reader.file().name(), "\": layer ", index,
                    ": its projections lie by neuron, but its activations are not sparse");
  }
  return OkStatus();
}

// What lies along shells does not cross them: rows of scales, blocks of scales, tiles.
Status CheckShells(const TensorSpec& spec, const TensorInfo& tensor,
                   std::span<const uint32_t> shell_ends) {
  ASSIGN_OR_RETURN(const StorageSize size,
                   ComputeStorageSize(tensor.dtype, tensor.layout, tensor.shape, spec.num_shells));
  if (tensor.scales_bytes != size.scales_bytes) {
    return BadModel(tensor.scales_bytes, " bytes of scales, want ", size.scales_bytes, " for ",
                    spec.num_shells, " shells");
  }
  const bool tiled = tensor.layout == Layout::kTiled;
  if (tensor.dtype != DType::kQ4B32 && !tiled) return OkStatus();
  for (const uint32_t end : shell_ends) {
    if (end % kBlockSize != 0) {
      return BadModel(tiled ? "tiles" : "q4b32", " with a shell that ends at ", end,
                      ", want multiples of ", kBlockSize);
    }
  }
  return OkStatus();
}

Status CheckTensor(const TensorSpec& spec, const TensorInfo& tensor) {
  if (tensor.section != spec.section) {
    return BadModel("in section ", SectionName(tensor.section), ", want ",
                    SectionName(spec.section));
  }
  if (tensor.layout != spec.layout && tensor.layout != NeuronLayout(spec) &&
      !((tensor.layout == Layout::kTiled || tensor.layout == Layout::kPacked) &&
        MayBeTiled(spec))) {
    return BadModel("layout ", kLayoutNames[static_cast<size_t>(tensor.layout)], ", want ",
                    kLayoutNames[static_cast<size_t>(spec.layout)]);
  }
  if (tensor.shape != spec.shape) {
    return BadModel("shape ", ShapeText(tensor.shape), ", want ", ShapeText(spec.shape));
  }
  if (spec.keep_f32 && tensor.dtype != DType::kF32) {
    return BadModel("element type ", DTypeName(tensor.dtype), ", want f32");
  }
  return OkStatus();
}

}  // namespace

std::vector<TensorSpec> TextTensors(const TextConfig& c) {
  SpecList list;
  const uint64_t hidden = c.hidden_size;
  list.Add(names::kEmbedTokens, {c.vocab_size, hidden}, Care::kNormal, SectionKind::kEmbed);
  list.Add(names::kPleTable, {c.ple_vocab_size, c.num_layers(), c.ple_dim}, Care::kNormal,
           SectionKind::kPle, Layout::kPleRows);
  list.Add(names::kPleProjection, {uint64_t{c.num_layers()} * c.ple_dim, hidden}, Care::kSensitive);
  list.Add(names::kPleProjectionNorm, {c.ple_dim}, Care::kF32);
  for (uint32_t k = 0; k + 1 < c.altup_num_inputs; ++k) {
    list.Add(names::AltupProjection(k), {hidden, hidden}, Care::kSensitive);
  }
  for (uint32_t i = 0; i < c.num_layers(); ++i) AddLayer(c, i, &list);
  for (uint32_t k = 0; k + 1 < c.altup_num_inputs; ++k) {
    list.Add(names::AltupUnembedProjection(k), {hidden, hidden}, Care::kSensitive);
  }
  list.Add(names::kNorm, {hidden}, Care::kF32);
  return list.Take();
}

Status CheckTextTensors(const ContainerReader& reader) {
  const TextConfig& text = reader.header().text;
  for (const TensorSpec& spec : TextTensors(text)) {
    const std::string where = StrCat("\"", reader.file().name(), "\": tensor \"", spec.name, "\"");
    const TensorInfo* tensor = reader.FindTensor(spec.name);
    if (tensor == nullptr) return BadModel(where, " is missing");
    Status status = CheckTensor(spec, *tensor);
    const std::span<const uint32_t> cuts = CutsOf(spec.name, text);
    if (status.ok() && !IsByNeuron(tensor->layout) &&
        (spec.layout == Layout::kTransposed || tensor->layout == Layout::kTiled)) {
      status = CheckShells(spec, *tensor, cuts);
    }
    if (status.ok() && tensor->layout == Layout::kTiled && spec.name == names::kPleProjection &&
        text.ple_dim % kTileOutputs != 0) {
      status =
          BadModel("tiles with ", text.ple_dim, " rows a layer, want multiples of ", kTileOutputs);
    }
    if (!status.ok()) return BadModel(where, ": ", status.message());
  }
  for (uint32_t i = 0; i < text.num_layers(); ++i) RETURN_IF_ERROR(CheckNeurons(reader, i));
  return OkStatus();
}

std::span<const uint32_t> CutsOf(std::string_view name, const TextConfig& text) {
  constexpr std::string_view kPrefix = "layers.";
  if (!name.starts_with(kPrefix) || name.find(".mlp.") == std::string_view::npos) return {};
  uint32_t layer = 0;
  for (const char c : name.substr(kPrefix.size())) {
    if (c < '0' || c > '9') break;
    layer = layer * 10 + static_cast<uint32_t>(c - '0');
  }
  if (layer >= text.num_layers()) return {};
  return text.layers[layer].shell_ends;
}

uint64_t EffectiveParameters(const TextConfig& c, const SliceConfig& slice) {
  const uint64_t hidden = c.hidden_size;
  const uint64_t streams = c.altup_num_inputs;
  const uint64_t q_dim = uint64_t{c.num_heads} * c.head_dim;
  const uint64_t kv_dim = uint64_t{c.num_kv_heads} * c.head_dim;
  const uint64_t norms = 5 * hidden;
  const uint64_t attention = 2 * hidden * q_dim + 2 * hidden * kv_dim + 2 * c.head_dim;
  const uint64_t altup =
      streams * hidden + hidden + streams * streams * streams + streams * streams + hidden;
  const uint64_t laurel = 2 * hidden * c.laurel_rank + hidden;
  const uint64_t ple = 2 * hidden * c.ple_dim;
  const uint64_t per_layer = norms + attention + altup + laurel + ple + hidden * c.ple_dim;
  uint64_t total = slice.ffn.size() * per_layer;
  for (const uint32_t width : slice.ffn) total += 3 * hidden * width;
  return total + 2 * (streams - 1) * hidden * hidden + hidden + c.ple_dim;
}

}  // namespace nestling
