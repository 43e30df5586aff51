// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <string>
#include <string_view>
#include <unordered_set>

#include "base/math.h"
#include "container/header_codec.h"

namespace nestling {
namespace {

struct Range {
  uint64_t begin;
  uint64_t end;
  const TensorInfo* tensor;
};

Status ValidateSections(const std::vector<SectionInfo>& sections, uint64_t header_end,
                        uint64_t file_bytes) {
  for (const SectionInfo& section : sections) {
    const char* name = SectionName(section.kind);
    if (section.offset % kSectionAlignment != 0) {
      return BadModel("section ", name, ": offset ", section.offset, ", want a multiple of ",
                      kSectionAlignment);
    }
    if (section.bytes == 0) return BadModel("section ", name, ": empty");
    if (section.offset < header_end || section.offset > file_bytes ||
        section.bytes > file_bytes - section.offset) {
      return BadModel("section ", name, ": ", section.bytes, " bytes at ", section.offset,
                      ", want within [", header_end, ", ", file_bytes, ") of the file");
    }
    for (const SectionInfo& other : sections) {
      if (&other == &section) break;
      if (other.kind == section.kind) return BadModel("section ", name, ": there are two");
      // Neither sum overflows: `other` was checked before.
      if (section.offset < other.offset + other.bytes &&
          other.offset < section.offset + section.bytes) {
        return BadModel("sections ", SectionName(other.kind), " and ", name, " overlap");
      }
    }
  }
  return OkStatus();
}

bool IsTensorName(std::string_view name) {
  return !name.empty() &&
         std::all_of(name.begin(), name.end(), [](char c) { return c > 0x20 && c < 0x7f; });
}

// Rows of scales that the tensor says it has: only the layer knows how many are right.
uint32_t ClaimedShells(const TensorInfo& tensor) {
  const bool per_shell =
      (tensor.layout == Layout::kTransposed || tensor.layout == Layout::kTiled) &&
      (tensor.dtype == DType::kQ8C || tensor.dtype == DType::kQ4C);
  if (!per_shell || tensor.shape.empty() || tensor.shape[0] == 0 || tensor.shape[0] > UINT32_MAX) {
    return 1;
  }
  const uint64_t rows = tensor.scales_bytes / (tensor.shape[0] * sizeof(float));
  return static_cast<uint32_t>(std::clamp<uint64_t>(rows, 1, kMaxShells));
}

Status CheckSize(const char* what, uint64_t found, uint64_t wanted) {
  if (found == wanted) return OkStatus();
  return BadModel(found, " bytes of ", what, ", want ", wanted);
}

Status CheckSpan(const char* what, uint64_t offset, uint64_t bytes, const SectionInfo& section) {
  if (offset % kTensorAlignment != 0) {
    return BadModel("offset of ", what, ": ", offset, ", want a multiple of ", kTensorAlignment);
  }
  if (offset > section.bytes || bytes > section.bytes - offset) {
    return BadModel(bytes, " bytes of ", what, " at ", offset, ", but section ",
                    SectionName(section.kind), " has ", section.bytes);
  }
  return OkStatus();
}

Status ValidateTensor(const TensorInfo& tensor, const SectionInfo* section) {
  if (section == nullptr || tensor.section >= SectionKind::kTokenizer) {
    return BadModel("in section ", SectionName(tensor.section), ", which ",
                    section == nullptr ? "the container does not have" : "holds no tensors");
  }
  ASSIGN_OR_RETURN(const StorageSize size, ComputeStorageSize(tensor.dtype, tensor.layout,
                                                              tensor.shape, ClaimedShells(tensor)));
  RETURN_IF_ERROR(CheckSize("elements", tensor.bytes, size.bytes));
  RETURN_IF_ERROR(CheckSize("scales", tensor.scales_bytes, size.scales_bytes));
  if (tensor.layout == Layout::kPacked) return OkStatus();  // it has no place
  RETURN_IF_ERROR(CheckSpan("elements", tensor.offset, tensor.bytes, *section));
  if (tensor.scales_bytes == 0) return OkStatus();
  return CheckSpan("scales", tensor.scales_offset, tensor.scales_bytes, *section);
}

const SectionInfo* FindSection(const ContainerHeader& header, SectionKind kind) {
  const auto found = std::find_if(header.sections.begin(), header.sections.end(),
                                  [&](const SectionInfo& section) { return section.kind == kind; });
  return found == header.sections.end() ? nullptr : &*found;
}

// Elements for each byte of packed weights. Most take 4 bits or more; what is derived from a matrix
// can be smaller than itself (an audio tower's positions).
constexpr uint64_t kMaxElementsPerPackedByte = 256;

// Packed weights belong to a section of tensors, and to tensors of those sections only. The header
// of a small file cannot claim large tensors.
Status ValidatePacked(const ContainerHeader& header) {
  std::array<uint64_t, kNumSections> claimed = {};
  for (const TensorInfo& tensor : header.tensors) {
    if (tensor.layout != Layout::kPacked) continue;
    ASSIGN_OR_RETURN(const uint64_t count, CountElements(tensor.shape));
    uint64_t& sum = claimed[static_cast<size_t>(tensor.section)];
    if (!CheckedAdd(sum, count, &sum)) sum = UINT64_MAX;
  }
  for (const PackedPart& part : kPackedParts) {
    const SectionInfo* packed = FindSection(header, part.packed);
    if (packed != nullptr && FindSection(header, part.section) == nullptr) {
      return BadModel("section ", SectionName(part.packed), " without ", SectionName(part.section));
    }
    uint64_t& sum = claimed[static_cast<size_t>(part.section)];
    const uint64_t bytes = packed == nullptr ? 0 : packed->bytes;
    if (sum / kMaxElementsPerPackedByte > bytes || (sum != 0 && bytes == 0)) {
      return BadModel("packed tensors of section ", SectionName(part.section), " have ", sum,
                      " elements, but section ", SectionName(part.packed), " has ", bytes,
                      " bytes");
    }
    sum = 0;
  }
  for (size_t i = 0; i < kNumSections; ++i) {
    if (claimed[i] == 0) continue;
    return BadModel("packed tensors in section ", SectionName(static_cast<SectionKind>(i)));
  }
  return OkStatus();
}

}  // namespace

Status ValidateDirectory(const ContainerHeader& header, uint64_t header_end, uint64_t file_bytes) {
  RETURN_IF_ERROR(ValidateSections(header.sections, header_end, file_bytes));
  std::unordered_set<std::string_view> names;
  std::vector<Range> ranges;  // from the start of the file
  for (const TensorInfo& tensor : header.tensors) {
    if (!IsTensorName(tensor.name)) {
      return BadModel("tensor ", &tensor - header.tensors.data(),
                      ": its name is empty or not printable ASCII");
    }
    if (!names.insert(tensor.name).second) {
      return BadModel("tensor \"", tensor.name, "\": there are two of this name");
    }
    const SectionInfo* const section = FindSection(header, tensor.section);
    if (Status status = ValidateTensor(tensor, section); !status.ok()) {
      return BadModel("tensor \"", tensor.name, "\": ", status.message());
    }
    if (tensor.layout == Layout::kPacked) continue;
    const uint64_t start = section->offset + tensor.offset;
    ranges.push_back({start, start + tensor.bytes, &tensor});
    if (tensor.scales_bytes != 0) {
      const uint64_t scales = section->offset + tensor.scales_offset;
      ranges.push_back({scales, scales + tensor.scales_bytes, &tensor});
    }
  }
  RETURN_IF_ERROR(ValidatePacked(header));
  std::sort(ranges.begin(), ranges.end(),
            [](const Range& a, const Range& b) { return a.begin < b.begin; });
  for (size_t i = 1; i < ranges.size(); ++i) {
    if (ranges[i].begin < ranges[i - 1].end) {
      return BadModel("tensors \"", ranges[i - 1].tensor->name, "\" and \"", ranges[i].tensor->name,
                      "\" overlap");
    }
  }
  return OkStatus();
}

}  // namespace nestling
