// SPDX-License-Identifier: Apache-2.0
#include "pack/formats.h"

#include <algorithm>
#include <charconv>
#include <string_view>

namespace nestling {
namespace {

constexpr std::string_view kLayerPrefix = "layers.";
// Reading single neurons pays while fewer than about one in five are active in prefill, one in four
// in decode (benchmarks/sparse_ffn_bench); this keeps some distance.
constexpr float kLeastSparsityOfNeurons = 0.85f;

bool IsUnquantised(DType dtype) {
  return dtype == DType::kF32 || dtype == DType::kF16 || dtype == DType::kBF16;
}

DType WantedFormat(SectionKind section, const FormatOptions& options) {
  if (section == SectionKind::kPle) return options.ple_quant.value_or(options.quant);
  if (section == SectionKind::kEmbed) return options.embed_quant.value_or(options.quant);
  return options.quant;
}

DType TowerFormat(const FormatOptions& options) {
  const DType otherwise = options.quant == DType::kF32 ? DType::kF32 : DType::kBF16;
  return options.tower_quant.value_or(otherwise);
}

bool IsBlocked(uint64_t size) { return size % kBlockSize == 0; }

// The layout of the projections around a gate that few neurons pass.
Layout NeuronLayout(const TensorSpec& spec, const TextConfig& text) {
  const std::optional<uint32_t> layer = LayerOfTensor(spec.name);
  if (!layer || !(text.layers[*layer].activation_sparsity >= kLeastSparsityOfNeurons)) {
    return spec.layout;
  }
  if (spec.name.ends_with(".mlp.up_proj")) return Layout::kNeuronRows;
  if (spec.name.ends_with(".mlp.down_proj")) return Layout::kNeuronColumns;
  return spec.layout;
}

}  // namespace

Status CheckFormatOptions(const FormatOptions& options) {
  if (options.quant == DType::kF16 || options.quant == DType::kBF16) {
    return Unsupported("decoder format ", DTypeName(options.quant),
                       ", want f32, q8c, q4c or q4b32");
  }
  const DType towers = TowerFormat(options);
  if (IsUnquantised(towers) || towers == DType::kQ8C) return OkStatus();
  return Unsupported("tower format ", DTypeName(towers), ", want f32, f16, bf16 or q8c");
}

DType FormatFor(const TensorSpec& spec, std::span<const uint32_t> shell_ends,
                const FormatOptions& options) {
  if (spec.keep_f32) return DType::kF32;
  const DType wanted = WantedFormat(spec.section, options);
  if (IsUnquantised(wanted)) return wanted;
  if (wanted == DType::kQ8C || spec.sensitive) return DType::kQ8C;
  // Two codes share a byte of a stored row.
  const uint64_t row_length =
      spec.layout == Layout::kTransposed ? spec.shape.front() : spec.shape.back();
  if (row_length % 2 != 0) return DType::kQ8C;
  if (wanted == DType::kQ4B32) {
    const bool fits = spec.layout == Layout::kTransposed
                          ? std::all_of(shell_ends.begin(), shell_ends.end(), IsBlocked)
                          : IsBlocked(spec.shape.back());
    if (!fits) return DType::kQ8C;
  }
  return wanted;
}

Layout LayoutFor(const TensorSpec& spec, DType dtype, const TextConfig& text) {
  if (const Layout layout = NeuronLayout(spec, text);
      IsByNeuron(layout) &&
      (dtype == DType::kF32 ||
       ((dtype == DType::kQ8C || dtype == DType::kQ4B32) && IsBlocked(text.hidden_size)))) {
    return layout;
  }
  const bool tiles =
      !IsUnquantised(dtype) && spec.layout != Layout::kPleRows && spec.shape.size() == 2;
  if (!tiles || spec.shape[0] % kTileOutputs != 0 || !IsBlocked(spec.shape[1])) return spec.layout;
  // Slices cut the feed-forward matrices at their shells, and layers the PLE projection.
  const std::span<const uint32_t> cuts = CutsOf(spec.name, text);
  if (!std::all_of(cuts.begin(), cuts.end(), IsBlocked)) return spec.layout;
  if (spec.name == names::kPleProjection && text.ple_dim % kTileOutputs != 0) return spec.layout;
  return Layout::kTiled;
}

StoredForm FormFor(const TensorSpec& spec, SourceDType source, const TextConfig& text,
                   const FormatOptions& options) {
  const DType wanted = FormatFor(spec, ShellsOf(spec, text), options);
  StoredForm form = {wanted, LayoutFor(spec, wanted, text)};
  if (wanted == DType::kQ4C) {
    const Layout blocked = LayoutFor(spec, DType::kQ4B32, text);
    if (IsByNeuron(blocked)) form = {DType::kQ4B32, blocked};
  }
  const bool few_bits = source != SourceDType::kF32 && source != SourceDType::kF16 &&
                        source != SourceDType::kBF16 && source != SourceDType::kQ8_0;
  if (few_bits && form.dtype == DType::kQ4B32 && form.layout == Layout::kNeuronColumns) {
    form.dtype = DType::kQ8C;
  }
  return form;
}

DType TowerFormatFor(SectionKind section, const std::string& name, std::span<const uint64_t> shape,
                     const FormatOptions& options) {
  const DType wanted = TowerFormat(options);
  if (shape.size() < 2) return DType::kF32;
  if (IsUnquantised(wanted)) return wanted;
  // The audio tower's convolutions are small, and its table of hard embeddings is looked up.
  if (section == SectionKind::kAudio) {
    return shape.size() == 2 && !name.ends_with(".embedding") ? wanted : DType::kF32;
  }
  // The vision tower's dense convolutions, but the stem's of three channels; depthwise ones have
  // one.
  const bool dense = shape.size() == 4 && shape[1] > 3;
  const bool linear = shape.size() == 2 && !name.ends_with(".embedding");
  return dense || linear ? wanted : DType::kF32;
}

Layout TowerLayoutFor(SectionKind section, DType dtype, std::span<const uint64_t> shape) {
  const bool tiles = section == SectionKind::kAudio && dtype == DType::kQ8C && shape.size() == 2 &&
                     shape[0] % kTileOutputs == 0 && IsBlocked(shape[1]);
  return tiles ? Layout::kTiled : Layout::kRowMajor;
}

std::string DescribeFormats(const FormatOptions& options) {
  return StrCat(DTypeName(options.quant), ", ple ",
                DTypeName(WantedFormat(SectionKind::kPle, options)), ", embed ",
                DTypeName(WantedFormat(SectionKind::kEmbed, options)), ", towers ",
                DTypeName(TowerFormat(options)));
}

std::optional<uint32_t> LayerOfTensor(const std::string& name) {
  if (!name.starts_with(kLayerPrefix)) return std::nullopt;
  uint32_t layer = 0;
  const char* const end = name.data() + name.size();
  const auto [stop, error] = std::from_chars(name.data() + kLayerPrefix.size(), end, layer);
  if (error != std::errc() || stop == end || *stop != '.') return std::nullopt;
  return layer;
}

std::span<const uint32_t> ShellsOf(const TensorSpec& spec, const TextConfig& text) {
  if (spec.layout != Layout::kTransposed) return {};
  const std::optional<uint32_t> layer = LayerOfTensor(spec.name);
  NESTLING_DCHECK(layer.has_value() && *layer < text.num_layers());
  return text.layers[*layer].shell_ends;
}

}  // namespace nestling
