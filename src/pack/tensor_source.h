// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace nestling {

// How a checkpoint stores elements. All but the first three are GGUF's blocks (ggml_blocks.h).
enum class SourceDType : uint8_t {
  kF32,
  kF16,
  kBF16,
  kQ8_0,
  kQ4_0,
  kQ4_1,
  kQ5_0,
  kQ5_1,
  kQ4_K,
  kQ5_K,
  kQ6_K
};

// A tensor of a checkpoint. Its elements lie inside its file, and no other tensor's overlap them.
struct SourceTensor {
  std::string name;  // as in the file
  SourceDType dtype = SourceDType::kF32;
  std::vector<uint64_t> shape;  // slowest dimension first: [out, in] for matrices
  uint64_t num_elements = 0;
  size_t file = 0;      // which of the source's files
  uint64_t offset = 0;  // from the start of that file
};

// Where the converter takes weights from. Reads are positional into the caller's memory, so that no
// page of a large checkpoint stays resident in this process. Immutable, thread-safe.
class TensorSource {
 public:
  virtual ~TensorSource() = default;

  // In the order of the files and offsets.
  virtual std::span<const SourceTensor> tensors() const = 0;
  // nullptr if there is none.
  virtual const SourceTensor* Find(std::string_view name) const = 0;
  // Elements [first, first + out.size()) of the flattened tensor as f32. `tensor` is one of
  // tensors(), or has fewer rows than that.
  virtual Status Read(const SourceTensor& tensor, uint64_t first, std::span<float> out) const = 0;
};

}  // namespace nestling
