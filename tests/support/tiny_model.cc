// SPDX-License-Identifier: Apache-2.0
#include "tests/support/tiny_model.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <span>
#include <string_view>
#include <system_error>

#include "base/math.h"
#include "container/writer.h"

namespace nestling::testing {
namespace {

// SplitMix64: the value at a position does not depend on the ones before it.
uint64_t Mix(uint64_t x) {
  x += 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

uint64_t NameSeed(std::string_view name, uint64_t seed) {
  uint64_t hash = Mix(seed);
  for (const char c : name) hash = Mix(hash ^ static_cast<unsigned char>(c));
  return hash;
}

// Uniform with mean 0 and variance 1.
float Noise(uint64_t seed, uint64_t index) {
  const float unit = static_cast<float>(Mix(seed ^ Mix(index)) >> 40) * 0x1p-24f;
  return (2.0f * unit - 1.0f) * std::sqrt(3.0f);
}

float Middle(std::string_view name) {
  // Below 1, so that rounding noise does not grow through the layers.
  if (name.ends_with("q_norm") || name.ends_with("k_norm")) return 0.6f;
  if (name.ends_with("post_attention_layernorm")) return 0.6f;
  if (name.ends_with("post_per_layer_input_norm")) return 0.5f;
  if (name.ends_with("post_feedforward_layernorm")) return 0.4f;
  return 1.0f;
}

template <typename T>
void Store(T value, size_t index, std::vector<std::byte>* to) {
  std::memcpy(to->data() + index * sizeof(T), &value, sizeof(T));
}

bool Is4Bit(DType dtype) { return dtype == DType::kQ4C || dtype == DType::kQ4B32; }

// One element at flat position `index` of the storage.
void StoreElement(float value, float scale, DType dtype, size_t index, std::vector<std::byte>* to) {
  switch (dtype) {
    case DType::kF32:
      return Store(value, index, to);
    case DType::kF16:
      return Store(FloatToHalf(value), index, to);
    case DType::kBF16:
      return Store(FloatToBf16(value), index, to);
    case DType::kQ8C: {
      const float steps = std::clamp(std::nearbyint(value / scale), -127.0f, 127.0f);
      return Store(static_cast<int8_t>(steps), index, to);
    }
    case DType::kQ4C:
    case DType::kQ4B32: {
      const float steps = std::clamp(std::nearbyint(value / scale), -8.0f, 7.0f);
      const auto nibble = static_cast<unsigned>(static_cast<int>(steps) + 8);
      (*to)[index / 2] |= static_cast<std::byte>(nibble << (index % 2 * 4));
      return;
    }
  }
}

// The scale with which the largest of `count` values is the last step.
float ScaleOf(const float* values, size_t count, DType dtype) {
  float most = 0.0f;
  for (size_t i = 0; i < count; ++i) most = std::max(most, std::abs(values[i]));
  if (most == 0.0f) return 1.0f;
  const float scale = most / (dtype == DType::kQ8C ? 127.0f : 7.0f);
  return dtype == DType::kQ4B32 ? Bf16ToFloat(FloatToBf16(scale)) : scale;
}

void EncodePleSpan(const float* values, size_t ple_dim, DType dtype, std::vector<std::byte>* to) {
  std::vector<std::byte> elements(Is4Bit(dtype)          ? ple_dim / 2
                                  : dtype == DType::kQ8C ? ple_dim
                                  : dtype == DType::kF32 ? ple_dim * 4
                                                         : ple_dim * 2);
  std::vector<std::byte> scales;
  const size_t block = dtype == DType::kQ4B32 ? kBlockSize : ple_dim;
  for (size_t begin = 0; begin < ple_dim; begin += block) {
    const float scale = ScaleOf(values + begin, block, dtype);
    for (size_t i = begin; i < begin + block; ++i) {
      StoreElement(values[i], scale, dtype, i, &elements);
    }
    if (dtype == DType::kQ4B32) {
      scales.resize(scales.size() + 2);
      Store(FloatToBf16(scale), scales.size() / 2 - 1, &scales);
    } else if (dtype == DType::kQ8C || dtype == DType::kQ4C) {
      scales.resize(sizeof(float));
      Store(scale, 0, &scales);
    }
  }
  to->insert(to->end(), elements.begin(), elements.end());
  to->insert(to->end(), scales.begin(), scales.end());
}

// Where element (o, i) and its scale lie in tiles, written down once more from FORMAT.md. A shell
// of the inputs begins at `begin` and is `width` wide.
size_t TiledNibble(size_t out, size_t begin, size_t width, size_t o, size_t i) {
  const size_t block = (out * begin + o / 16 * 16 * width) / 512 + i / 32;
  return 2 * (256 * block + 64 * (i % 16 / 4) + 4 * (o % 16) + i % 4) + i % 32 / 16;
}
size_t TiledByte(size_t out, size_t begin, size_t width, size_t o, size_t i) {
  return out * begin + o / 16 * 16 * width + i / 4 * 64 + 4 * (o % 16) + i % 4;
}

EncodedTensor EncodeTiles(const std::vector<float>& values, DType dtype,
                          const std::vector<uint64_t>& shape,
                          const std::vector<uint32_t>& shell_ends) {
  const size_t out = shape[0], in = shape[1];
  const bool int4 = Is4Bit(dtype), blocked = dtype == DType::kQ4B32;
  EncodedTensor encoded;
  encoded.elements.resize(int4 ? out * in / 2 : out * in);
  encoded.scales.resize(blocked ? out * in / 16 : out * shell_ends.size() * sizeof(float));
  size_t begin = 0;
  for (size_t shell = 0; shell < shell_ends.size(); ++shell) {
    const size_t width = shell_ends[shell] - begin;
    const size_t group = blocked ? kBlockSize : width;  // inputs of one scale
    for (size_t o = 0; o < out; ++o) {
      for (size_t g = 0; g < width; g += group) {
        const float* x = &values[o * in + begin + g];
        const float scale = ScaleOf(x, group, dtype);
        for (size_t i = 0; i < group; ++i) {
          StoreElement(x[i], scale, dtype,
                       int4 ? TiledNibble(out, begin, width, o, g + i)
                            : TiledByte(out, begin, width, o, g + i),
                       &encoded.elements);
        }
        if (blocked) {
          const size_t block = (out * begin + o / 16 * 16 * width) / 512 + g / 32;
          Store(FloatToBf16(scale), block * 16 + o % 16, &encoded.scales);
        } else {
          Store(scale, shell * out + o, &encoded.scales);
        }
      }
    }
    begin = shell_ends[shell];
  }
  return encoded;
}

// Vectors of neurons, written down once more from FORMAT.md.
EncodedTensor EncodeNeurons(const std::vector<float>& values, DType dtype, bool columns,
                            const std::vector<uint64_t>& shape) {
  const size_t neurons = shape[columns ? 1 : 0], length = shape[columns ? 0 : 1];
  const size_t group = dtype == DType::kQ4B32 ? kBlockSize : length;  // elements of one scale
  const StorageSize size =
      ComputeStorageSize(dtype, columns ? Layout::kNeuronColumns : Layout::kNeuronRows, shape, 1)
          .value();
  EncodedTensor encoded;
  encoded.elements.resize(size.bytes);
  encoded.scales.resize(size.scales_bytes);
  std::vector<float> vector(length);
  for (size_t n = 0; n < neurons; ++n) {
    for (size_t i = 0; i < length; ++i) {
      vector[i] = columns ? values[i * neurons + n] : values[n * length + i];
    }
    for (size_t g = 0; g < length; g += group) {
      const float scale = ScaleOf(&vector[g], group, dtype);
      const size_t base = n * length + g;
      for (size_t i = 0; i < group; ++i) {
        const bool int4 = dtype == DType::kQ4B32;
        StoreElement(vector[g + i], scale, dtype, base + (int4 ? i % 16 * 2 + i / 16 : i),
                     &encoded.elements);
      }
      if (dtype == DType::kQ4B32) {
        Store(FloatToBf16(scale), base / kBlockSize, &encoded.scales);
      } else if (dtype == DType::kQ8C) {
        Store(scale, n, &encoded.scales);
      }
    }
  }
  return encoded;
}

DType DTypeOf(const TensorSpec& spec, const TinyModelOptions& options) {
  if (spec.keep_f32) return DType::kF32;
  if (spec.section == SectionKind::kEmbed) return options.embed_dtype;
  if (spec.section == SectionKind::kPle) return options.ple_dtype;
  // As pack does: 4 bit for the large matrices only.
  if (spec.sensitive && Is4Bit(options.dtype)) return DType::kQ8C;
  return options.dtype;
}

}  // namespace

TextConfig TinyTextConfig(const TinyModelOptions& options) {
  TextConfig text;
  text.vocab_size = options.vocab_size;
  text.ple_vocab_size = options.ple_vocab_size;
  text.hidden_size = options.hidden_size;
  text.ple_dim = options.ple_dim;
  text.num_heads = options.num_heads;
  text.num_kv_heads = options.num_kv_heads;
  text.head_dim = options.head_dim;
  text.num_kv_shared_layers = options.num_kv_shared_layers;
  text.sliding_window = options.sliding_window;
  text.max_position_embeddings = options.max_position_embeddings;
  text.laurel_rank = options.laurel_rank;
  for (uint32_t i = 0; i < options.num_layers; ++i) {
    LayerConfig layer;
    layer.type = (i + 1) % 5 == 0 ? LayerType::kFull : LayerType::kSliding;
    layer.activation_sparsity = i < options.num_sparse_layers ? options.activation_sparsity : 0.0f;
    layer.shell_ends = options.shell_ends;
    text.layers.push_back(std::move(layer));
  }
  return text;
}

HeaderFields TinyHeaderFields(const TinyModelOptions& options) {
  HeaderFields fields;
  fields.text = TinyTextConfig(options);
  fields.slices = options.slices;
  fields.special_tokens.bos = 2;
  fields.special_tokens.eos = 1;
  fields.special_tokens.pad = 0;
  fields.special_tokens.unk = 3;
  fields.generation.stop_tokens = {1};
  fields.provenance = {"random", "tests/support/tiny_model", DTypeName(options.dtype)};
  return fields;
}

float PleIndexValue(uint64_t token, uint64_t layer, uint64_t index) {
  return static_cast<float>(token) + static_cast<float>(layer) * 0x1p-6f +
         static_cast<float>(index) * 0x1p-13f;
}

std::vector<float> TinyTensorValues(const TensorSpec& spec, const TinyModelOptions& options) {
  uint64_t count = 1;
  for (const uint64_t size : spec.shape) count *= size;
  std::vector<float> values(count);
  const uint64_t seed = NameSeed(spec.name, options.seed);
  const bool ple = spec.layout == Layout::kPleRows;
  if (ple && options.ple_values_encode_index) {
    for (uint64_t i = 0; i < count; ++i) {
      const uint64_t span = i / spec.shape[2];
      values[i] = PleIndexValue(span / spec.shape[1], span % spec.shape[1], i % spec.shape[2]);
    }
    return values;
  }
  const bool vector = spec.shape.size() == 1;
  const float middle = vector ? Middle(spec.name) : 0.0f;
  const float spread =
      vector ? 0.2f * middle : 1.0f / std::sqrt(static_cast<float>(spec.shape.back()));
  for (uint64_t i = 0; i < count; ++i) values[i] = middle + spread * Noise(seed, i);
  return values;
}

// As pack does: by neuron where the gate is sparse, tiles only of whole blocks.
Layout LayoutOf(const TensorSpec& spec, const TinyModelOptions& options) {
  const DType dtype = DTypeOf(spec, options);
  if (options.neurons && dtype != DType::kQ4C) {
    for (uint32_t i = 0; i < options.num_sparse_layers; ++i) {
      if (spec.name == names::Layer(i, "mlp.up_proj")) return Layout::kNeuronRows;
      if (spec.name == names::Layer(i, "mlp.down_proj")) return Layout::kNeuronColumns;
    }
  }
  const auto whole = [](uint64_t size) { return size % kBlockSize == 0; };
  const bool tiles = options.tiles && (dtype == DType::kQ8C || Is4Bit(dtype)) &&
                     spec.shape.size() == 2 && spec.shape[0] % kTileOutputs == 0 &&
                     whole(spec.shape[1]) && options.ple_dim % kTileOutputs == 0 &&
                     std::all_of(options.shell_ends.begin(), options.shell_ends.end(), whole);
  return tiles ? Layout::kTiled : spec.layout;
}

EncodedTensor EncodeTensor(const std::vector<float>& values, DType dtype, Layout layout,
                           const std::vector<uint64_t>& shape,
                           const std::vector<uint32_t>& shell_ends) {
  EncodedTensor encoded;
  if (layout == Layout::kPleRows) {
    for (size_t i = 0; i < values.size(); i += shape[2]) {
      EncodePleSpan(&values[i], shape[2], dtype, &encoded.elements);
    }
    return encoded;
  }
  if (layout == Layout::kTiled) {
    const std::vector<uint32_t> whole = {static_cast<uint32_t>(shape[1])};
    return EncodeTiles(values, dtype, shape, shell_ends.empty() ? whole : shell_ends);
  }
  if (IsByNeuron(layout)) {
    return EncodeNeurons(values, dtype, layout == Layout::kNeuronColumns, shape);
  }
  const bool transposed = layout == Layout::kTransposed;
  const uint32_t num_shells = transposed ? static_cast<uint32_t>(shell_ends.size()) : 1;
  const StorageSize size = ComputeStorageSize(dtype, layout, shape, num_shells).value();
  encoded.elements.resize(size.bytes);
  encoded.scales.resize(size.scales_bytes);
  const size_t out = shape[0];
  const size_t in = values.size() / out;
  // Ends of the spans of `in` that share one scale per output.
  std::vector<size_t> ends;
  if (dtype == DType::kQ4B32) {
    for (size_t end = kBlockSize; end <= in; end += kBlockSize) ends.push_back(end);
  } else if (transposed) {
    ends.assign(shell_ends.begin(), shell_ends.end());
  } else {
    ends.push_back(in);
  }
  for (size_t o = 0; o < out; ++o) {
    size_t begin = 0;
    for (size_t s = 0; s < ends.size(); ++s) {
      const float scale = ScaleOf(&values[o * in + begin], ends[s] - begin, dtype);
      for (size_t i = begin; i < ends[s]; ++i) {
        StoreElement(values[o * in + i], scale, dtype, transposed ? i * out + o : o * in + i,
                     &encoded.elements);
      }
      begin = ends[s];
      const size_t index = transposed ? s * out + o : o * ends.size() + s;
      if (dtype == DType::kQ4B32) {
        Store(FloatToBf16(scale), index, &encoded.scales);
      } else if (!encoded.scales.empty()) {
        Store(scale, index, &encoded.scales);
      }
    }
  }
  return encoded;
}

Status WriteTinyModel(const std::string& path, const TinyModelOptions& options) {
  const HeaderFields fields = TinyHeaderFields(options);
  ASSIGN_OR_RETURN(auto writer, ContainerWriter::Create(path));
  const std::vector<TensorSpec> specs = TextTensors(fields.text);
  for (const TensorSpec& spec : specs) {
    RETURN_IF_ERROR(writer->Declare({spec.name, spec.section, DTypeOf(spec, options),
                                     LayoutOf(spec, options), spec.shape, spec.num_shells}));
  }
  if (!options.tokenizer.empty()) {
    const auto bytes = std::as_bytes(std::span(options.tokenizer));
    RETURN_IF_ERROR(writer->DeclareTokenizer({bytes.begin(), bytes.end()}));
  }
  RETURN_IF_ERROR(writer->Layout(options.reserve_bytes));
  for (const TensorSpec& spec : specs) {
    const bool in_shells = spec.layout == Layout::kTransposed;
    const EncodedTensor encoded = EncodeTensor(
        TinyTensorValues(spec, options), DTypeOf(spec, options), LayoutOf(spec, options),
        spec.shape, in_shells ? options.shell_ends : std::vector<uint32_t>());
    RETURN_IF_ERROR(writer->WriteElements(spec.name, 0, encoded.elements));
    RETURN_IF_ERROR(writer->WriteScales(spec.name, 0, encoded.scales));
  }
  return writer->Finish(fields);
}

TemporaryPath::TemporaryPath(const std::string& suffix) {
  std::string folder = (std::filesystem::temp_directory_path() / "nestling-XXXXXX").string();
  // Without a folder every use of the path fails, which is what a test then shows.
  if (mkdtemp(folder.data()) != nullptr) folder_ = folder;
  path_ = folder + "/model" + suffix;
}

TemporaryPath::~TemporaryPath() {
  std::error_code ignored;
  if (!folder_.empty()) std::filesystem::remove_all(folder_, ignored);
}

Result<std::unique_ptr<ContainerReader>> OpenTinyModel(const TinyModelOptions& options) {
  const TemporaryPath temporary;
  RETURN_IF_ERROR(WriteTinyModel(temporary.path(), options));
  return ContainerReader::Open(temporary.path());
}

}  // namespace nestling::testing
