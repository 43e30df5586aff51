// SPDX-License-Identifier: Apache-2.0
#include "model/weights.h"

#include <cstring>

#include "base/math.h"
#include "model/tensor_names.h"

namespace nestling {
namespace {

template <typename T>
T Load(const std::byte* data, size_t index) {
  T value;
  std::memcpy(&value, data + index * sizeof(T), sizeof(T));
  return value;
}

// Two elements a byte, the even one in the low half, with zero point 8.
int Nibble(const std::byte* data, size_t index) {
  const auto pair = std::to_integer<int>(data[index / 2]);
  return (index % 2 == 0 ? pair & 15 : pair >> 4) - 8;
}

// Element at flat position `index` of the storage, without its scale.
float Unscaled(const Matrix& m, size_t index) {
  switch (m.dtype) {
    case DType::kF32:
      return Load<float>(m.data, index);
    case DType::kF16:
      return HalfToFloat(Load<uint16_t>(m.data, index));
    case DType::kBF16:
      return Bf16ToFloat(Load<uint16_t>(m.data, index));
    case DType::kQ8C:
      return static_cast<float>(Load<int8_t>(m.data, index));
    case DType::kQ4C:
    case DType::kQ4B32:
      return static_cast<float>(Nibble(m.data, index));
  }
  return 0.0f;
}

// Position in the storage of element (out, in) of a matrix that is not tiled.
size_t Position(const Matrix& m, size_t out, size_t in) {
  const bool by_input = m.layout == Layout::kTransposed || m.layout == Layout::kNeuronColumns;
  const size_t index = by_input ? in * m.out + out : out * m.in + in;
  if (!IsByNeuron(m.layout) || m.dtype != DType::kQ4B32) return index;
  // Two halves of a block share its bytes.
  const size_t in_block = index % kBlockSize;
  return index - in_block + in_block % 16 * 2 + in_block / 16;
}

// Scale of element (out, in); `shell` is the one that `in` lies in.
float Scale(const Matrix& m, size_t out, size_t in, size_t shell) {
  const bool transposed = m.layout == Layout::kTransposed;
  const bool columns = m.layout == Layout::kNeuronColumns;
  switch (m.dtype) {
    case DType::kQ8C:
    case DType::kQ4C:
      return Load<float>(m.scales, columns ? in : transposed ? shell * m.out + out : out);
    case DType::kQ4B32: {
      if (columns) return Bf16ToFloat(Load<uint16_t>(m.scales, (in * m.out + out) / kBlockSize));
      const size_t block = in / kBlockSize;
      return Bf16ToFloat(Load<uint16_t>(
          m.scales, transposed ? block * m.out + out : out * (m.in / kBlockSize) + block));
    }
    default:
      return 1.0f;
  }
}

// A row of a tiled matrix (container/FORMAT.md).
void DequantizeTiledRow(const Matrix& matrix, size_t out_index, float* y) {
  const size_t tile = out_index / kTileOutputs, lane = out_index % kTileOutputs;
  size_t begin = 0;
  for (size_t shell = 0; shell < matrix.num_shells(); ++shell) {
    const size_t end = matrix.shell_ends.empty() ? matrix.in : matrix.shell_ends[shell];
    const size_t width = end - begin;
    const size_t first = matrix.out * begin + tile * kTileOutputs * width;  // element of the tile
    if (matrix.dtype == DType::kQ8C) {
      const float scale = Load<float>(matrix.scales, shell * matrix.out + out_index);
      for (size_t i = 0; i < width; ++i) {
        y[begin + i] = scale * static_cast<float>(Load<int8_t>(
                                   matrix.data, first + i / 4 * 64 + lane * 4 + i % 4));
      }
    } else {
      const bool blocked = matrix.dtype == DType::kQ4B32;
      const float channel_scale =
          blocked ? 1.0f : Load<float>(matrix.scales, shell * matrix.out + out_index);
      const size_t first_block = first / (kTileOutputs * kBlockSize);
      for (size_t i = 0; i < width; ++i) {
        const size_t block = first_block + i / kBlockSize, in_block = i % kBlockSize;
        const int pair = std::to_integer<int>(
            matrix.data[block * 256 + in_block % 16 / 4 * 64 + lane * 4 + in_block % 4]);
        const int code = (in_block < 16 ? pair & 15 : pair >> 4) - 8;
        const float scale =
            blocked ? Bf16ToFloat(Load<uint16_t>(matrix.scales, block * kTileOutputs + lane))
                    : channel_scale;
        y[begin + i] = static_cast<float>(code) * scale;
      }
    }
    begin = end;
  }
}

bool InShells(Layout layout) { return layout == Layout::kTransposed || layout == Layout::kTiled; }

bool ScaledPerShell(const TensorInfo& tensor) {
  return InShells(tensor.layout) && (tensor.dtype == DType::kQ8C || tensor.dtype == DType::kQ4C);
}

}  // namespace

Result<Matrix> MatrixView(const TensorInfo& tensor, std::span<const std::byte> section,
                          std::span<const uint32_t> shell_ends) {
  if (tensor.layout == Layout::kPleRows || tensor.shape.size() < 2) {
    return InvalidArgument("tensor \"", tensor.name, "\" is not a matrix");
  }
  if (tensor.offset + tensor.bytes > section.size() ||
      (tensor.scales_bytes != 0 && tensor.scales_offset + tensor.scales_bytes > section.size())) {
    return InvalidArgument("tensor \"", tensor.name, "\" is not in this section of ",
                           section.size(), " bytes");
  }
  Matrix matrix;
  matrix.name = tensor.name;
  matrix.dtype = tensor.dtype;
  matrix.layout = tensor.layout;
  matrix.out = tensor.shape[0];
  matrix.in = 1;
  for (size_t i = 1; i < tensor.shape.size(); ++i) matrix.in *= tensor.shape[i];
  if (tensor.layout == Layout::kPacked) return matrix;
  matrix.data = section.data() + tensor.offset;
  matrix.data_bytes = tensor.bytes;
  if (tensor.scales_bytes != 0) {
    matrix.scales = section.data() + tensor.scales_offset;
    matrix.scales_bytes = tensor.scales_bytes;
  }
  if (InShells(tensor.layout)) matrix.shell_ends = shell_ends;
  if (ScaledPerShell(tensor)) {
    const size_t rows = tensor.scales_bytes / (matrix.out * sizeof(float));
    if (rows != matrix.num_shells() || (!shell_ends.empty() && shell_ends.back() != matrix.in)) {
      return BadModel("tensor \"", tensor.name, "\": scales of ", rows, " shells, want ",
                      matrix.num_shells(), " that end at ", matrix.in);
    }
  }
  return matrix;
}

Status RequireStored(const Matrix& matrix) {
  if (matrix.layout != Layout::kPacked) return OkStatus();
  return BadModel("tensor \"", matrix.name, "\" is packed, but the packed weights lack it");
}

void DequantizeRow(const Matrix& matrix, size_t out_index, float* y) {
  if (matrix.layout == Layout::kTiled) return DequantizeTiledRow(matrix, out_index, y);
  for (size_t i = 0; i < matrix.in; ++i) {
    y[i] = Unscaled(matrix, Position(matrix, out_index, i)) * Scale(matrix, out_index, i, 0);
  }
}

std::vector<float> DequantizeAll(const Matrix& matrix) {
  std::vector<float> all(matrix.out * matrix.in);
  if (matrix.layout != Layout::kTransposed) {
    for (size_t o = 0; o < matrix.out; ++o) DequantizeRow(matrix, o, &all[o * matrix.in]);
    return all;
  }
  size_t shell = 0;
  for (size_t i = 0; i < matrix.in; ++i) {
    if (!matrix.shell_ends.empty() && i == matrix.shell_ends[shell]) ++shell;
    for (size_t o = 0; o < matrix.out; ++o) {
      all[o * matrix.in + i] =
          Unscaled(matrix, Position(matrix, o, i)) * Scale(matrix, o, i, shell);
    }
  }
  return all;
}

Result<std::unique_ptr<ModelWeights>> ModelWeights::Create(const ContainerReader& reader) {
  RETURN_IF_ERROR(CheckTextTensors(reader));
  std::unique_ptr<ModelWeights> weights(new ModelWeights(reader));
  ASSIGN_OR_RETURN(weights->text_, reader.MapSection(SectionKind::kText));
  ASSIGN_OR_RETURN(weights->embed_, reader.MapSection(SectionKind::kEmbed));
  const std::vector<LayerConfig>& layers = reader.header().text.layers;
  for (uint32_t i = 0; i < layers.size(); ++i) {
    weights->shell_ends_.emplace(names::Layer(i, "mlp.down_proj"), layers[i].shell_ends);
  }
  return weights;
}

const MappedRegion* ModelWeights::Region(SectionKind section) const {
  if (section == SectionKind::kText) return &text_;
  if (section == SectionKind::kEmbed) return &embed_;
  return nullptr;
}

Result<Matrix> ModelWeights::GetMatrix(std::string_view name) const {
  const TensorInfo* tensor = reader_.FindTensor(name);
  const MappedRegion* region = tensor == nullptr ? nullptr : Region(tensor->section);
  if (region == nullptr) return NotFound("no weight \"", name, "\" in TEXT or EMBED");
  const auto shells = shell_ends_.find(tensor->name);
  return MatrixView(*tensor, region->bytes(),
                    shells == shell_ends_.end() ? std::span<const uint32_t>() : shells->second);
}

Result<std::span<const float>> ModelWeights::GetVector(std::string_view name) const {
  const TensorInfo* tensor = reader_.FindTensor(name);
  const MappedRegion* region = tensor == nullptr ? nullptr : Region(tensor->section);
  if (region == nullptr) return NotFound("no weight \"", name, "\" in TEXT or EMBED");
  if (tensor->dtype != DType::kF32 || tensor->layout != Layout::kRowMajor) {
    return InvalidArgument("tensor \"", name, "\" is ", DTypeName(tensor->dtype),
                           ", want f32 in rows");
  }
  // Aligned for float: sections, tensors and the container's own start are (ContainerReader).
  const auto* values = reinterpret_cast<const float*>(region->bytes().data() + tensor->offset);
  return std::span<const float>(values, tensor->bytes / sizeof(float));
}

void ModelWeights::ReleasePages(const Matrix& matrix) const {
  for (const MappedRegion* region : {&text_, &embed_}) {
    const std::byte* begin = region->bytes().data();
    const std::byte* end = begin + region->bytes().size();
    if (matrix.data < begin || matrix.data >= end) continue;
    region->ReleasePages({matrix.data, matrix.data_bytes});
    if (matrix.scales != nullptr) region->ReleasePages({matrix.scales, matrix.scales_bytes});
  }
}

}  // namespace nestling
