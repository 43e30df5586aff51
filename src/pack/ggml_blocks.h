// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>

#include "pack/tensor_source.h"

namespace nestling {

// GGUF's element types, which come in blocks of consecutive elements of a row.
struct BlockFormat {
  size_t elements;
  size_t bytes;
};

// The largest block of all.
inline constexpr size_t kMaxBlockElements = 256;

BlockFormat BlockFormatOf(SourceDType dtype);

// The type with this number in a GGUF file; empty for those that are not read.
std::optional<SourceDType> SourceDTypeOfGgml(uint32_t ggml_type);

// `num_blocks` blocks to `num_blocks` * elements values.
void DequantiseBlocks(SourceDType dtype, const std::byte* blocks, size_t num_blocks, float* out);

}  // namespace nestling
