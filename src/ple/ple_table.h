// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "base/file.h"
#include "base/status.h"
#include "container/reader.h"

namespace nestling {

// The PLE table on storage: [vocab][layer] spans of ple_dim values with their scales. Immutable,
// thread-safe.
class PleTable {
 public:
  // `reader` is borrowed and must outlive the table; its tensors were checked.
  static Result<std::unique_ptr<PleTable>> Create(const ContainerReader& reader);

  // Bytes of one token's row, all layers.
  size_t row_bytes() const { return row_bytes_; }

  // Reads one row per id into `rows` [ids.size(), row_bytes()]. Ids outside the table (image and
  // audio positions) take row 0, as the reference does. May block on storage.
  Status ReadRows(std::span<const int32_t> ids, std::byte* rows) const;

  // y[i] = factor * value i of `layer` (numbered as in the file) in a row, i < ple_dim.
  void DequantizeSpan(const std::byte* row, uint32_t layer, float factor, float* y) const;

 private:
  PleTable() = default;

  const File* file_ = nullptr;
  DType dtype_ = DType::kF32;
  uint64_t offset_ = 0;  // of the table in the file
  uint32_t num_rows_ = 0;
  size_t ple_dim_ = 0;
  size_t value_bytes_ = 0;  // of a span, before its scales
  size_t span_bytes_ = 0;
  size_t row_bytes_ = 0;
};

}  // namespace nestling
