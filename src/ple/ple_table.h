// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/file.h"
#include "base/status.h"
#include "container/reader.h"

namespace nestling {

// [begin, end) of a row.
struct ByteRange {
  size_t begin;
  size_t end;
};

// The parts of every row that a slice reads.
struct PleSelection {
  uint64_t layers = 0;           // that the parts cover, one bit each; all bits: the whole row
  std::vector<ByteRange> parts;  // ascending, with gaps between them
  size_t bytes = 0;              // of all parts
};

// The PLE table on storage: [vocab][layer] spans of ple_dim values with their scales. Immutable,
// thread-safe.
class PleTable {
 public:
  // `reader` is borrowed and must outlive the table; its tensors were checked.
  static Result<std::unique_ptr<PleTable>> Create(const ContainerReader& reader);

  // Bytes of one token's row, all layers.
  size_t row_bytes() const { return row_bytes_; }

  uint32_t num_rows() const { return num_rows_; }
  const File& file() const { return *file_; }

  // The row of a token id. Ids outside the table (image and audio positions) take row 0, as the
  // reference does.
  uint32_t RowOf(int32_t id) const {
    return id >= 0 && static_cast<uint32_t>(id) < num_rows_ ? static_cast<uint32_t>(id) : 0;
  }
  // Of a row, in the descriptor's file.
  uint64_t RowOffset(uint32_t row) const {
    return file_->start() + offset_ + row * uint64_t{row_bytes_};
  }

  // What to read for `layers` (ascending, as numbered in the file). Everything between the first
  // and the last, but for gaps that cost more to read than another request: with the usual
  // formats the skipped layers of E2B in E4B's rows (720 bytes at q4b32, 2.5 KB at f16) do not
  // even free a page of storage.
  PleSelection Select(std::span<const uint32_t> layers) const;

  // Reads one row per id into `rows` [ids.size(), row_bytes()], one after the other and without a
  // cache: sessions use PleBatch. May block on storage.
  Status ReadRows(std::span<const int32_t> ids, std::byte* rows) const;

  // y[i] = factor * value i of `layer` (numbered as in the file) in a row, i < ple_dim.
  void DequantizeSpan(const std::byte* row, uint32_t layer, float factor, float* y) const;

 private:
  PleTable() = default;

  const File* file_ = nullptr;
  DType dtype_ = DType::kF32;
  uint64_t offset_ = 0;  // of the table in the file
  uint32_t num_rows_ = 0;
  uint32_t num_layers_ = 0;
  size_t ple_dim_ = 0;
  size_t value_bytes_ = 0;  // of a span, before its scales
  size_t span_bytes_ = 0;
  size_t row_bytes_ = 0;
};

}  // namespace nestling
