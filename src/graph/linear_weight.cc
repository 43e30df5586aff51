// SPDX-License-Identifier: Apache-2.0
#include "graph/linear_weight.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace nestling {
namespace {

// Bytes of `count` elements of one row.
size_t RowBytes(DType dtype, size_t count) {
  switch (dtype) {
    case DType::kF32:
      return count * 4;
    case DType::kF16:
    case DType::kBF16:
      return count * 2;
    case DType::kQ8C:
      return count;
    case DType::kQ4C:
    case DType::kQ4B32:
      return count / 2;
  }
  return 0;
}

// Tiles keep both the rows read and the rows written in the first-level cache.
constexpr size_t kTile = 64;

// source [rows, cols] -> target [cols, rows].
template <typename T>
void Transpose(const T* source, size_t rows, size_t cols, T* target) {
  for (size_t r0 = 0; r0 < rows; r0 += kTile) {
    for (size_t c0 = 0; c0 < cols; c0 += kTile) {
      const size_t r1 = std::min(rows, r0 + kTile), c1 = std::min(cols, c0 + kTile);
      for (size_t c = c0; c < c1; ++c) {
        for (size_t r = r0; r < r1; ++r) target[c * rows + r] = source[r * cols + c];
      }
    }
  }
}

// The same for 4-bit codes, two a byte along the last dimension; rows and cols are even.
void TransposeNibbles(const uint8_t* source, size_t rows, size_t cols, uint8_t* target) {
  const size_t source_stride = cols / 2, target_stride = rows / 2;
  for (size_t r0 = 0; r0 < rows; r0 += kTile) {
    for (size_t c0 = 0; c0 < cols; c0 += kTile) {
      const size_t r1 = std::min(rows, r0 + kTile), c1 = std::min(cols, c0 + kTile);
      for (size_t c = c0; c < c1; c += 2) {
        for (size_t r = r0; r < r1; r += 2) {
          const uint8_t upper = source[r * source_stride + c / 2];
          const uint8_t lower = source[(r + 1) * source_stride + c / 2];
          target[c * target_stride + r / 2] =
              static_cast<uint8_t>((upper & 0xf) | ((lower & 0xf) << 4));
          target[(c + 1) * target_stride + r / 2] =
              static_cast<uint8_t>((upper >> 4) | (lower & 0xf0));
        }
      }
    }
  }
}

}  // namespace

LinearWeight LinearWeight::All(const Matrix& matrix) { return Outputs(matrix, 0, matrix.out); }

LinearWeight LinearWeight::Outputs(const Matrix& matrix, size_t begin, size_t end) {
  return {.matrix = matrix, .out_begin = begin, .out = end - begin, .in = matrix.in};
}

LinearWeight LinearWeight::Shell(const Matrix& matrix, size_t shell, size_t begin, size_t end) {
  return {
      .matrix = matrix, .out = matrix.out, .in_begin = begin, .in = end - begin, .shell = shell};
}

std::string LinearWeight::PackedName() const {
  if (matrix.name.empty()) return {};
  return StrCat(matrix.name, " ", DTypeName(matrix.dtype), " out ", out_begin, "+", out, " in ",
                in_begin, "+", in);
}

PackedShape LinearWeight::packed_shape() const {
  return {.out = out, .in = in, .bits = RowBytes(matrix.dtype, 8)};
}

Result<PackSource> PackSource::Placeholder(const LinearWeight& weight) {
  PackSource source;
  // Tells the operators of a block apart: an address of its own.
  ASSIGN_OR_RETURN(source.own_elements_, LazyMemory::Create(1));
  source.elements_ = source.own_elements_.data();
  // XNNPACK looks at the scales before it asks for the packed form.
  const bool blocks = weight.matrix.dtype == DType::kQ4B32;
  if (weight.matrix.dtype == DType::kF32) return source;
  const size_t count = blocks ? weight.out * weight.in / kBlockSize : weight.out;
  ASSIGN_OR_RETURN(source.own_scales_,
                   LazyMemory::Create(count * (blocks ? sizeof(uint16_t) : sizeof(float))));
  source.scales_ = source.own_scales_.data();
  if (blocks) {
    constexpr uint16_t kOneAsBf16 = 0x3f80;
    std::fill_n(reinterpret_cast<uint16_t*>(source.own_scales_.data()), count, kOneAsBf16);
  } else {
    std::fill_n(reinterpret_cast<float*>(source.own_scales_.data()), count, 1.0f);
  }
  return source;
}

Result<PackSource> PackSource::Create(const LinearWeight& weight) {
  const Matrix& matrix = weight.matrix;
  const DType dtype = matrix.dtype;
  RETURN_IF_ERROR(RequireStored(matrix));
  PackSource source;
  if (matrix.layout == Layout::kRowMajor) {
    source.elements_ = matrix.data + weight.out_begin * RowBytes(dtype, matrix.in);
    const size_t scale_row_bytes =
        dtype == DType::kQ4B32 ? matrix.in / kBlockSize * sizeof(uint16_t) : sizeof(float);
    if (matrix.scales != nullptr) {
      source.scales_ = matrix.scales + weight.out_begin * scale_row_bytes;
    }
    return source;
  }
  // Stored [in, out]: the shell's rows are contiguous.
  const std::byte* rows = matrix.data + weight.in_begin * RowBytes(dtype, matrix.out);
  ASSIGN_OR_RETURN(source.own_elements_,
                   LazyMemory::Create(weight.in * RowBytes(dtype, matrix.out)));
  std::byte* own = source.own_elements_.data();
  switch (dtype) {
    case DType::kF32:
      Transpose(reinterpret_cast<const float*>(rows), weight.in, weight.out,
                reinterpret_cast<float*>(own));
      break;
    case DType::kQ8C:
      Transpose(rows, weight.in, weight.out, own);
      break;
    case DType::kQ4C:
    case DType::kQ4B32:
      TransposeNibbles(reinterpret_cast<const uint8_t*>(rows), weight.in, weight.out,
                       reinterpret_cast<uint8_t*>(own));
      break;
    case DType::kF16:
    case DType::kBF16:
      return Unsupported("a ", DTypeName(dtype), " matrix in the transposed layout");
  }
  source.elements_ = own;
  if (dtype == DType::kQ4B32) {
    const size_t blocks = weight.in / kBlockSize;
    ASSIGN_OR_RETURN(source.own_scales_,
                     LazyMemory::Create(blocks * weight.out * sizeof(uint16_t)));
    Transpose(reinterpret_cast<const uint16_t*>(matrix.scales) +
                  weight.in_begin / kBlockSize * matrix.out,
              blocks, weight.out, reinterpret_cast<uint16_t*>(source.own_scales_.data()));
    source.scales_ = source.own_scales_.data();
  } else if (matrix.scales != nullptr) {
    source.scales_ = matrix.scales + weight.shell * matrix.out * sizeof(float);
  }
  return source;
}

}  // namespace nestling
