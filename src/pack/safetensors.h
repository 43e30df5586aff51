// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/file.h"
#include "base/status.h"
#include "pack/tensor_source.h"

namespace nestling {

// The tensors of one .safetensors file, or of a Hugging Face folder (model.safetensors, or shards
// with model.safetensors.index.json).
class SafetensorsReader final : public TensorSource {
 public:
  // Validates the headers of all files before it returns: kBadModel for a damaged or hostile one,
  // kUnsupported for an element type other than F32, F16, BF16.
  static Result<std::unique_ptr<SafetensorsReader>> Open(const std::string& path);

  std::span<const SourceTensor> tensors() const override { return tensors_; }
  const SourceTensor* Find(std::string_view name) const override;
  Status Read(const SourceTensor& tensor, uint64_t first, std::span<float> out) const override;

 private:
  SafetensorsReader() = default;
  Status AddFile(const std::string& path);
  Status AddShards(const std::string& folder, const std::string& index_path);

  std::vector<std::unique_ptr<File>> files_;
  std::vector<SourceTensor> tensors_;
  std::unordered_map<std::string, size_t> by_name_;
};

}  // namespace nestling
