// SPDX-License-Identifier: Apache-2.0
#include "modality/vision/vision_weights.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "kernels/convert/convert.h"

namespace nestling {

Result<VisionWeights> VisionWeights::Create(const ContainerReader& reader, PackedWeights& packed) {
  ASSIGN_OR_RETURN(MappedRegion region, reader.MapSection(SectionKind::kVision));
  return VisionWeights(reader, packed, std::move(region));
}

Result<const TensorInfo*> VisionWeights::Find(const std::string& name) const {
  const TensorInfo* tensor = reader_.FindTensor(name);
  if (tensor == nullptr || tensor->section != SectionKind::kVision) {
    return BadModel("tensor \"", name, "\" is missing from the vision tower");
  }
  const bool usable = tensor->dtype != DType::kQ4C && tensor->dtype != DType::kQ4B32;
  const bool rows = tensor->layout == Layout::kRowMajor || tensor->layout == Layout::kPacked;
  if (!rows || !usable) {
    return Unsupported("tensor \"", name, "\": ", DTypeName(tensor->dtype),
                       " or its layout, want rows of f32, f16, bf16 or q8c");
  }
  return tensor;
}

Result<const TensorInfo*> VisionWeights::FindStored(const std::string& name) const {
  ASSIGN_OR_RETURN(const TensorInfo* tensor, Find(name));
  if (tensor->layout != Layout::kPacked) return tensor;
  return BadModel("tensor \"", name, "\" is packed, but the packed weights lack it");
}

Result<PackBuffer<float>> VisionWeights::Floats(const std::string& name) const {
  ASSIGN_OR_RETURN(const TensorInfo* tensor, FindStored(name));
  size_t count = 1;
  for (const uint64_t size : tensor->shape) count *= size;
  ASSIGN_OR_RETURN(PackBuffer<float> floats, PackBuffer<float>::Create(count));
  const std::byte* data = region_.bytes().data() + tensor->offset;
  const auto* halves = reinterpret_cast<const uint16_t*>(data);
  switch (tensor->dtype) {
    case DType::kF32:
      std::memcpy(floats.data(), data, count * sizeof(float));
      break;
    case DType::kF16:
      kernels::WidenHalf(halves, floats.data(), count);
      break;
    case DType::kBF16:
      kernels::WidenBf16(halves, floats.data(), count);
      break;
    default: {  // q8c
      const auto* codes = reinterpret_cast<const int8_t*>(data);
      const auto* scales =
          reinterpret_cast<const float*>(region_.bytes().data() + tensor->scales_offset);
      const size_t out = tensor->shape[0], in = count / out;
      for (size_t o = 0; o < out; ++o) {
        kernels::DequantizeInt8(codes + o * in, scales[o], floats.data() + o * in, in);
      }
    }
  }
  return floats;
}

Result<AlignedBuffer<float>> VisionWeights::Vector(const std::string& name) const {
  ASSIGN_OR_RETURN(const TensorInfo* tensor, Find(name));
  size_t count = 1;
  for (const uint64_t size : tensor->shape) count *= size;
  ASSIGN_OR_RETURN(AlignedBuffer<float> vector, AlignedBuffer<float>::Create(count));
  ASSIGN_OR_RETURN(const std::span<const std::byte> packed,
                   packed_.Blob(name + " f32 vector", vector.size_bytes(),
                                [&](std::span<std::byte> out) -> Status {
                                  ASSIGN_OR_RETURN(const PackBuffer<float> floats, Floats(name));
                                  std::memcpy(out.data(), floats.data(), out.size());
                                  return OkStatus();
                                }));
  std::memcpy(vector.data(), packed.data(), packed.size());
  return vector;
}

Result<VisionWeights::Int8> VisionWeights::Codes(const std::string& name) const {
  ASSIGN_OR_RETURN(const TensorInfo* tensor, FindStored(name));
  size_t count = 1;
  for (const uint64_t size : tensor->shape) count *= size;
  const size_t out = tensor->shape[0], in = count / out;
  Int8 int8;
  ASSIGN_OR_RETURN(int8.codes, PackBuffer<int8_t>::Create(count));
  ASSIGN_OR_RETURN(int8.scales, PackBuffer<float>::Create(out));
  if (tensor->dtype == DType::kQ8C) {
    std::memcpy(int8.codes.data(), region_.bytes().data() + tensor->offset, count);
    std::memcpy(int8.scales.data(), region_.bytes().data() + tensor->scales_offset,
                out * sizeof(float));
  } else {
    ASSIGN_OR_RETURN(const PackBuffer<float> floats, Floats(name));
    for (size_t o = 0; o < out; ++o) {
      kernels::QuantizeInt8(floats.data() + o * in, int8.codes.data() + o * in, &int8.scales[o],
                            in);
    }
  }
  // XNNPACK wants scales above 0; the codes of such a row are zeros (or the file is hostile, and
  // then any value will do).
  for (float& scale : int8.scales.span()) {
    if (!(scale > 1e-30f && scale < 1e30f)) scale = 1e-30f;
  }
  return int8;
}

void VisionWeights::ReleasePages(const std::string& prefix) const {
  for (const TensorInfo& tensor : reader_.tensors()) {
    if (tensor.section != SectionKind::kVision || !tensor.name.starts_with(prefix)) continue;
    region_.ReleasePages(region_.bytes().subspan(tensor.offset, tensor.bytes));
  }
}

}  // namespace nestling
