// SPDX-License-Identifier: Apache-2.0
#include "ple/ple_table.h"

#include <cstring>

#include "kernels/convert/convert.h"
#include "kernels/rms_norm/rms_norm.h"
#include "model/tensor_names.h"

namespace nestling {

Result<std::unique_ptr<PleTable>> PleTable::Create(const ContainerReader& reader) {
  const TensorInfo* info = reader.FindTensor(names::kPleTable);
  const SectionInfo* section = reader.FindSection(SectionKind::kPle);
  if (info == nullptr || section == nullptr) return BadModel("the container has no PLE table");
  std::unique_ptr<PleTable> table(new PleTable);
  table->file_ = &reader.file();
  table->dtype_ = info->dtype;
  table->offset_ = section->offset + info->offset;
  table->num_rows_ = static_cast<uint32_t>(info->shape[0]);
  table->ple_dim_ = static_cast<size_t>(info->shape[2]);
  ASSIGN_OR_RETURN(const uint64_t span_bytes, PleSpanBytes(info->dtype, table->ple_dim_));
  table->span_bytes_ = static_cast<size_t>(span_bytes);
  table->row_bytes_ = table->span_bytes_ * static_cast<size_t>(info->shape[1]);
  switch (info->dtype) {
    case DType::kF32:
      table->value_bytes_ = table->ple_dim_ * 4;
      break;
    case DType::kF16:
    case DType::kBF16:
      table->value_bytes_ = table->ple_dim_ * 2;
      break;
    case DType::kQ8C:
      table->value_bytes_ = table->ple_dim_;
      break;
    case DType::kQ4C:
    case DType::kQ4B32:
      table->value_bytes_ = table->ple_dim_ / 2;
      break;
  }
  return table;
}

Status PleTable::ReadRows(std::span<const int32_t> ids, std::byte* rows) const {
  for (size_t i = 0; i < ids.size(); ++i) {
    const bool in_table = ids[i] >= 0 && static_cast<uint32_t>(ids[i]) < num_rows_;
    const uint64_t row = in_table ? static_cast<uint64_t>(ids[i]) : 0;
    RETURN_IF_ERROR(
        file_->ReadAt(offset_ + row * row_bytes_, {rows + i * row_bytes_, row_bytes_}));
  }
  return OkStatus();
}

void PleTable::DequantizeSpan(const std::byte* row, uint32_t layer, float factor, float* y) const {
  const std::byte* span = row + layer * span_bytes_;
  // Spans of odd sizes leave 16-bit and 32-bit parts unaligned: copied out before use.
  float scale = 0.0f;
  if (dtype_ == DType::kQ8C || dtype_ == DType::kQ4C) {
    std::memcpy(&scale, span + value_bytes_, sizeof scale);
  }
  switch (dtype_) {
    case DType::kF32:
      std::memcpy(y, span, value_bytes_);
      kernels::Scale(y, factor, ple_dim_);
      break;
    case DType::kF16:
      kernels::WidenHalf(reinterpret_cast<const uint16_t*>(span), y, ple_dim_);
      kernels::Scale(y, factor, ple_dim_);
      break;
    case DType::kBF16:
      kernels::WidenBf16(reinterpret_cast<const uint16_t*>(span), y, ple_dim_);
      kernels::Scale(y, factor, ple_dim_);
      break;
    case DType::kQ8C:
      kernels::DequantizeInt8(reinterpret_cast<const int8_t*>(span), scale * factor, y, ple_dim_);
      break;
    case DType::kQ4C:
      kernels::DequantizeInt4(reinterpret_cast<const uint8_t*>(span), scale * factor, y, ple_dim_);
      break;
    case DType::kQ4B32:
      // 16 bytes of codes per 2 bytes of scale: always 2-byte aligned in an aligned row.
      kernels::DequantizeInt4Blocks(reinterpret_cast<const uint8_t*>(span),
                                    reinterpret_cast<const uint16_t*>(span + value_bytes_), factor,
                                    y, ple_dim_);
      break;
  }
}

}  // namespace nestling
