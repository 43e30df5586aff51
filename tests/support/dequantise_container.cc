// SPDX-License-Identifier: Apache-2.0
#include "tests/support/dequantise_container.h"

#include <vector>

#include "container/reader.h"
#include "container/writer.h"
#include "model/tensor_names.h"
#include "model/weights.h"
#include "ple/ple_table.h"

namespace nestling::testing {
namespace {

// [ple_vocab, layers, ple_dim] f32.
Result<std::vector<float>> PleValues(const ContainerReader& reader) {
  ASSIGN_OR_RETURN(const auto table, PleTable::Create(reader));
  const std::vector<uint64_t>& shape = reader.FindTensor(names::kPleTable)->shape;
  std::vector<float> values(shape[0] * shape[1] * shape[2]);
  std::vector<std::byte> row(table->row_bytes());
  for (uint64_t token = 0; token < shape[0]; ++token) {
    const int32_t id = static_cast<int32_t>(token);
    RETURN_IF_ERROR(table->ReadRows({&id, 1}, row.data()));
    for (uint64_t layer = 0; layer < shape[1]; ++layer) {
      table->DequantizeSpan(row.data(), static_cast<uint32_t>(layer), 1.0f,
                            values.data() + (token * shape[1] + layer) * shape[2]);
    }
  }
  return values;
}

// The layout that XNNPACK packs: the dense operators are what a graph is compared with.
Layout StoredLayout(const TensorInfo& tensor) {
  if (!IsReadInPlace(tensor.layout)) return tensor.layout;
  return tensor.name.ends_with("mlp.down_proj") ? Layout::kTransposed : Layout::kRowMajor;
}

// The tensor in the file order of its new layout.
Result<std::vector<float>> StoredValues(const ContainerReader& reader, const ModelWeights& weights,
                                        const TensorInfo& tensor) {
  if (tensor.layout == Layout::kPleRows) return PleValues(reader);
  if (tensor.shape.size() == 1) {  // vectors are never quantised
    ASSIGN_OR_RETURN(const std::span<const float> vector, weights.GetVector(tensor.name));
    return std::vector<float>(vector.begin(), vector.end());
  }
  ASSIGN_OR_RETURN(const Matrix matrix, weights.GetMatrix(tensor.name));
  std::vector<float> values = DequantizeAll(matrix);  // [out, in]
  if (StoredLayout(tensor) != Layout::kTransposed) return values;
  std::vector<float> transposed(values.size());
  for (size_t o = 0; o < matrix.out; ++o) {
    for (size_t i = 0; i < matrix.in; ++i) {
      transposed[i * matrix.out + o] = values[o * matrix.in + i];
    }
  }
  return transposed;
}

}  // namespace

Status DequantiseContainer(const std::string& source, const std::string& target) {
  ASSIGN_OR_RETURN(const auto reader, ContainerReader::Open(source));
  ASSIGN_OR_RETURN(const auto weights, ModelWeights::Create(*reader));
  ASSIGN_OR_RETURN(const auto writer, ContainerWriter::Create(target));
  for (const TensorInfo& tensor : reader->tensors()) {
    RETURN_IF_ERROR(writer->Declare({.name = tensor.name,
                                     .section = tensor.section,
                                     .dtype = DType::kF32,
                                     .layout = StoredLayout(tensor),
                                     .shape = tensor.shape}));
  }
  RETURN_IF_ERROR(writer->Layout());
  for (const TensorInfo& tensor : reader->tensors()) {
    ASSIGN_OR_RETURN(const std::vector<float> values, StoredValues(*reader, *weights, tensor));
    RETURN_IF_ERROR(writer->WriteElements(tensor.name, 0, std::as_bytes(std::span(values))));
  }
  return writer->Finish(reader->header());
}

}  // namespace nestling::testing
