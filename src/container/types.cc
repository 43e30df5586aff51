// SPDX-License-Identifier: Apache-2.0
#include "container/types.h"

#include <string>

#include "base/math.h"

namespace nestling {
namespace {

constexpr const char* kDTypeNames[kNumDTypes] = {"f32", "f16", "bf16", "q8c", "q4c", "q4b32"};
constexpr const char* kSectionNames[kNumSections] = {
    "TEXT",      "EMBED",       "PLE",           "VISION",      "AUDIO",
    "TOKENIZER", "PACKED_TEXT", "PACKED_VISION", "PACKED_AUDIO"};

std::string ShapeText(std::span<const uint64_t> shape) {
  std::string text = "[";
  for (const uint64_t size : shape) {
    if (text.size() > 1) text += ", ";
    text += std::to_string(size);
  }
  return text + "]";
}

bool Is4Bit(DType dtype) { return dtype == DType::kQ4C || dtype == DType::kQ4B32; }

// Bytes of `count` elements; `count` is even for 4 bit.
bool ElementBytes(DType dtype, uint64_t count, uint64_t* bytes) {
  switch (dtype) {
    case DType::kF32:
      return CheckedMul(count, 4, bytes);
    case DType::kF16:
    case DType::kBF16:
      return CheckedMul(count, 2, bytes);
    case DType::kQ8C:
      *bytes = count;
      return true;
    case DType::kQ4C:
    case DType::kQ4B32:
      *bytes = count / 2;
      return true;
  }
  return false;
}

Status TooLarge(std::span<const uint64_t> shape) {
  return BadModel("shape ", ShapeText(shape), ": too large");
}

Result<StorageSize> MatrixStorage(DType dtype, Layout layout, std::span<const uint64_t> shape,
                                  uint32_t num_shells) {
  const uint64_t out = shape[0];
  uint64_t in = 1;
  uint64_t count = 0;
  for (const uint64_t size : shape.subspan(1)) {
    if (!CheckedMul(in, size, &in)) return TooLarge(shape);
  }
  if (!CheckedMul(out, in, &count)) return TooLarge(shape);
  const bool transposed = layout == Layout::kTransposed;
  const bool per_shell = transposed || layout == Layout::kTiled;
  if (dtype == DType::kQ4B32 && in % kBlockSize != 0) {
    return BadModel("shape ", ShapeText(shape), ": q4b32 needs inputs in blocks of ", kBlockSize);
  }
  if (Is4Bit(dtype) && (transposed ? out : in) % 2 != 0) {
    return BadModel("shape ", ShapeText(shape), ": ", DTypeName(dtype),
                    " needs an even number of elements in a stored row");
  }
  StorageSize size;
  if (!ElementBytes(dtype, count, &size.bytes)) return TooLarge(shape);
  if (dtype == DType::kQ4B32) {
    size.scales_bytes = count / kBlockSize * 2;  // below `count`: no overflow
  } else if (dtype == DType::kQ8C || dtype == DType::kQ4C) {
    const uint64_t rows = per_shell ? num_shells : 1;
    if (!CheckedMul(out, rows * sizeof(float), &size.scales_bytes)) return TooLarge(shape);
  }
  return size;
}

// Vectors of neurons: the rows of an up projection, the columns of a down projection.
Result<StorageSize> NeuronStorage(DType dtype, Layout layout, std::span<const uint64_t> shape) {
  if (shape.size() != 2 ||
      (dtype != DType::kF32 && dtype != DType::kQ8C && dtype != DType::kQ4B32)) {
    return BadModel("shape ", ShapeText(shape), " of ", DTypeName(dtype),
                    ": the layout of neurons needs [out, in] of f32, q8c or q4b32");
  }
  const bool rows = layout == Layout::kNeuronRows;
  const uint64_t neurons = shape[rows ? 0 : 1], length = shape[rows ? 1 : 0];
  if (dtype != DType::kF32 && length % kBlockSize != 0) {
    return BadModel("shape ", ShapeText(shape),
                    ": quantised neurons need vectors of a multiple of ", kBlockSize);
  }
  uint64_t count = 0;
  StorageSize size;
  if (!CheckedMul(neurons, length, &count) || !ElementBytes(dtype, count, &size.bytes)) {
    return TooLarge(shape);
  }
  if (dtype == DType::kQ4B32) {
    size.scales_bytes = count / kBlockSize * 2;  // below `count`: no overflow
  } else if (dtype == DType::kQ8C && !CheckedMul(neurons, sizeof(float), &size.scales_bytes)) {
    return TooLarge(shape);
  }
  return size;
}

}  // namespace

const char* DTypeName(DType dtype) {
  const size_t index = static_cast<size_t>(dtype);
  return index < kNumDTypes ? kDTypeNames[index] : "?";
}

Result<DType> ParseDType(std::string_view name) {
  std::string known;
  for (size_t i = 0; i < kNumDTypes; ++i) {
    if (name == kDTypeNames[i]) return static_cast<DType>(i);
    known += StrCat(i == 0 ? "" : ", ", kDTypeNames[i]);
  }
  return InvalidArgument("element type \"", name, "\", want one of ", known);
}

const char* SectionName(SectionKind section) {
  const size_t index = static_cast<size_t>(section);
  return index < kNumSections ? kSectionNames[index] : "?";
}

Result<uint64_t> CountElements(std::span<const uint64_t> shape) {
  uint64_t count = 1, bytes = 0;
  for (const uint64_t size : shape) {
    if (!CheckedMul(count, size, &count)) return TooLarge(shape);
  }
  if (!CheckedMul(count, sizeof(float), &bytes)) return TooLarge(shape);
  return count;
}

Result<StorageSize> ComputeStorageSize(DType dtype, Layout layout, std::span<const uint64_t> shape,
                                       uint32_t num_shells) {
  if (shape.empty() || shape.size() > kMaxRank) {
    return BadModel("rank ", shape.size(), ", want 1 to ", kMaxRank);
  }
  for (const uint64_t size : shape) {
    if (size == 0) return BadModel("shape ", ShapeText(shape), ": no dimension may be zero");
  }
  const bool quantised = dtype == DType::kQ8C || dtype == DType::kQ4C || dtype == DType::kQ4B32;
  switch (layout) {
    case Layout::kRowMajor:
      if (quantised && shape.size() < 2) {
        return BadModel("shape ", ShapeText(shape), ": ", DTypeName(dtype), " needs a matrix");
      }
      return MatrixStorage(dtype, layout, shape, 1);
    case Layout::kTransposed:
      if (shape.size() != 2) {
        return BadModel("shape ", ShapeText(shape), ": the transposed layout needs [out, in]");
      }
      if (num_shells == 0 || num_shells > kMaxShells) {
        return BadModel("shells: ", num_shells, ", want 1 to ", kMaxShells);
      }
      return MatrixStorage(dtype, layout, shape, num_shells);
    case Layout::kTiled:
      if (shape.size() != 2 || !quantised) {
        return BadModel("shape ", ShapeText(shape), " of ", DTypeName(dtype),
                        ": the tiled layout needs [out, in] of q8c, q4c or q4b32");
      }
      if (shape[0] % kTileOutputs != 0 || shape[1] % kBlockSize != 0) {
        return BadModel("shape ", ShapeText(shape), ": the tiled layout needs multiples of [",
                        kTileOutputs, ", ", kBlockSize, "]");
      }
      if (num_shells == 0 || num_shells > kMaxShells) {
        return BadModel("shells: ", num_shells, ", want 1 to ", kMaxShells);
      }
      return MatrixStorage(dtype, layout, shape, num_shells);
    case Layout::kNeuronRows:
    case Layout::kNeuronColumns:
      return NeuronStorage(dtype, layout, shape);
    case Layout::kPacked:
      RETURN_IF_ERROR(CountElements(shape).status());
      return StorageSize{};
    case Layout::kPleRows: {
      if (shape.size() != 3) {
        return BadModel("shape ", ShapeText(shape), ": PLE rows need [vocab, layers, ple_dim]");
      }
      ASSIGN_OR_RETURN(const uint64_t span_bytes, PleSpanBytes(dtype, shape[2]));
      StorageSize size;
      if (!CheckedMul(shape[0], shape[1], &size.bytes) ||
          !CheckedMul(size.bytes, span_bytes, &size.bytes)) {
        return TooLarge(shape);
      }
      return size;
    }
  }
  return BadModel("layout ", static_cast<int>(layout), ", want 0 to ", kNumLayouts - 1);
}

Result<uint64_t> PleSpanBytes(DType dtype, uint64_t ple_dim) {
  if (ple_dim == 0 || ple_dim > kMaxPleDim) {
    return BadModel("ple_dim: ", ple_dim, ", want 1 to ", kMaxPleDim);
  }
  if (dtype == DType::kQ4B32 && ple_dim % kBlockSize != 0) {
    return BadModel("ple_dim: ", ple_dim, ", q4b32 needs a multiple of ", kBlockSize);
  }
  if (dtype == DType::kQ4C && ple_dim % 2 != 0) {
    return BadModel("ple_dim: ", ple_dim, ", q4c needs an even number");
  }
  uint64_t bytes = 0;
  if (!ElementBytes(dtype, ple_dim, &bytes)) {
    return BadModel("element type ", static_cast<int>(dtype), " is unknown");
  }
  if (dtype == DType::kQ8C || dtype == DType::kQ4C) bytes += sizeof(float);
  if (dtype == DType::kQ4B32) bytes += ple_dim / kBlockSize * 2;
  return bytes;
}

}  // namespace nestling
