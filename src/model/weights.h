// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/file.h"
#include "base/status.h"
#include "container/reader.h"
#include "container/types.h"

namespace nestling {

// A weight matrix in a mapped section; container/FORMAT.md has the byte order. Borrowed: valid as
// long as the mapping (and, for `shell_ends`, the ContainerReader) lives.
struct Matrix {
  std::string_view name = {};  // of the tensor; borrowed from the ContainerReader
  DType dtype = DType::kF32;
  Layout layout = Layout::kRowMajor;
  size_t out = 0;
  size_t in = 0;
  const std::byte* data = nullptr;
  size_t data_bytes = 0;
  const std::byte* scales = nullptr;  // null if the dtype has none
  size_t scales_bytes = 0;
  // kTransposed and a tiled down_proj: ends of the layer's shells along `in`. Row s of the q8c and
  // q4c scales, [shells, out], belongs to the inputs [shell_ends[s - 1], shell_ends[s]).
  std::span<const uint32_t> shell_ends;

  size_t num_shells() const { return shell_ends.empty() ? 1 : shell_ends.size(); }
};

// The view of a tensor in its mapped section. Tensors of a higher rank than 2 are seen as
// [shape[0], rest]. kPleRows is not a matrix: kInvalidArgument. A transposed q8c or q4c tensor
// whose rows of scales are not those of `shell_ends` is kBadModel.
Result<Matrix> MatrixView(const TensorInfo& tensor, std::span<const std::byte> section,
                          std::span<const uint32_t> shell_ends = {});

// kBadModel unless the elements are in the container: not of a matrix in Layout::kPacked, whose
// view has a shape and no data.
Status RequireStored(const Matrix& matrix);

// y[in] = row `out_index` of a matrix that is not transposed, as f32.
void DequantizeRow(const Matrix& matrix, size_t out_index, float* y);

// [out, in] f32, whatever the layout. For tests and small matrices: it takes out * in * 4 bytes.
std::vector<float> DequantizeAll(const Matrix& matrix);

// The text decoder's weights: the TEXT and EMBED sections, mapped and checked. The PLE table stays
// on storage; the ple layer reads it with File::ReadAt. Immutable, thread-safe.
class ModelWeights {
 public:
  // `reader` is borrowed and must outlive the weights. All of TextTensors() exist afterwards.
  static Result<std::unique_ptr<ModelWeights>> Create(const ContainerReader& reader);

  const ContainerReader& reader() const { return reader_; }

  // kNotFound: no such tensor in TEXT or EMBED.
  Result<Matrix> GetMatrix(std::string_view name) const;
  // An f32 tensor of any rank, flattened. 64-byte aligned, unless the container is a span of
  // another file that begins elsewhere (then 4-byte aligned).
  Result<std::span<const float>> GetVector(std::string_view name) const;

  // The mapped sections.
  std::span<const std::byte> text() const { return text_.bytes(); }
  std::span<const std::byte> embed() const { return embed_.bytes(); }

  // Lets go of the resident pages of a matrix of this model, after it was packed elsewhere. It
  // stays usable: touching it reads the file again.
  void ReleasePages(const Matrix& matrix) const;

 private:
  explicit ModelWeights(const ContainerReader& reader) : reader_(reader) {}
  const MappedRegion* Region(SectionKind section) const;

  const ContainerReader& reader_;
  MappedRegion text_;
  MappedRegion embed_;
  // Of the down projections, by name; the spans point into the reader's configuration.
  std::unordered_map<std::string, std::span<const uint32_t>> shell_ends_;
};

}  // namespace nestling
