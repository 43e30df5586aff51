// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/file.h"
#include "base/status.h"

namespace nestling {

enum class SourceDType : uint8_t { kF32, kF16, kBF16 };

// A tensor of a checkpoint. Its elements lie inside its file, and no other tensor's overlap them.
struct SourceTensor {
  std::string name;
  SourceDType dtype = SourceDType::kF32;
  std::vector<uint64_t> shape;
  uint64_t num_elements = 0;
  size_t file = 0;      // which of the reader's files
  uint64_t offset = 0;  // from the start of that file
};

// The tensors of one .safetensors file, or of a Hugging Face folder (model.safetensors, or shards
// with model.safetensors.index.json). Reads are positional into the caller's memory, so that no
// page of a large checkpoint stays resident in this process. Immutable, thread-safe.
class SafetensorsReader {
 public:
  // Validates the headers of all files before it returns: kBadModel for a damaged or hostile one,
  // kUnsupported for an element type other than F32, F16, BF16.
  static Result<std::unique_ptr<SafetensorsReader>> Open(const std::string& path);

  // In the order of the files and offsets.
  std::span<const SourceTensor> tensors() const { return tensors_; }
  // nullptr if there is none.
  const SourceTensor* Find(std::string_view name) const;

  // Elements [first, first + out.size()) of the flattened tensor as f32.
  Status Read(const SourceTensor& tensor, uint64_t first, std::span<float> out) const;

 private:
  SafetensorsReader() = default;
  Status AddFile(const std::string& path);
  Status AddShards(const std::string& folder, const std::string& index_path);

  std::vector<std::unique_ptr<File>> files_;
  std::vector<SourceTensor> tensors_;
  std::unordered_map<std::string, size_t> by_name_;
};

}  // namespace nestling
