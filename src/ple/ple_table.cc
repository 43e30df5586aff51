// SPDX-License-Identifier: Apache-2.0
#include "ple/ple_table.h"

#include <cstring>

#include "kernels/convert/convert.h"
#include "kernels/rms_norm/rms_norm.h"
#include "model/tensor_names.h"

namespace nestling {
namespace {

// Storage delivers this much in the time that one more request takes (8 us at 2 GB/s; a cold
// request at depth 32: 16-22 us; a warm one: 1.5 us, in which memory delivers as much).
constexpr size_t kGapBytes = 16384;
constexpr uint32_t kMaskLayers = 64;  // of PleSelection::layers

}  // namespace

Result<std::unique_ptr<PleTable>> PleTable::Create(const ContainerReader& reader) {
  const TensorInfo* info = reader.FindTensor(names::kPleTable);
  const SectionInfo* section = reader.FindSection(SectionKind::kPle);
  if (info == nullptr || section == nullptr) return BadModel("the container has no PLE table");
  std::unique_ptr<PleTable> table(new PleTable);
  table->file_ = &reader.file();
  table->dtype_ = info->dtype;
  table->offset_ = section->offset + info->offset;
  table->num_rows_ = static_cast<uint32_t>(info->shape[0]);
  table->num_layers_ = static_cast<uint32_t>(info->shape[1]);
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

PleSelection PleTable::Select(std::span<const uint32_t> layers) const {
  PleSelection selection;
  if (layers.empty()) return selection;
  if (num_layers_ > kMaskLayers) {
    selection.parts = {{0, row_bytes_}};
  } else {
    for (const uint32_t layer : layers) {
      const ByteRange span = {layer * span_bytes_, (layer + size_t{1}) * span_bytes_};
      std::vector<ByteRange>& parts = selection.parts;
      if (!parts.empty() && span.begin - parts.back().end < kGapBytes) {
        parts.back().end = span.end;
      } else {
        parts.push_back(span);
      }
    }
  }
  for (const ByteRange& part : selection.parts) {
    selection.bytes += part.end - part.begin;
    for (size_t at = part.begin; at < part.end && num_layers_ <= kMaskLayers; at += span_bytes_) {
      selection.layers |= uint64_t{1} << (at / span_bytes_);
    }
  }
  if (selection.bytes == row_bytes_) selection.layers = ~uint64_t{0};
  return selection;
}

Status PleTable::ReadRows(std::span<const int32_t> ids, std::byte* rows) const {
  for (size_t i = 0; i < ids.size(); ++i) {
    const bool in_table = ids[i] >= 0 && static_cast<uint32_t>(ids[i]) < num_rows_;
    const uint64_t row = in_table ? static_cast<uint64_t>(ids[i]) : 0;
    RETURN_IF_ERROR(file_->ReadAt(offset_ + row * row_bytes_, {rows + i * row_bytes_, row_bytes_}));
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
