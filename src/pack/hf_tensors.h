// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <span>
#include <string>
#include <vector>

#include "base/status.h"
#include "container/header_fields.h"
#include "container/types.h"
#include "pack/hf_config.h"
#include "pack/safetensors.h"

namespace nestling {

// The tensors of a Hugging Face checkpoint under their names in a container (tensor_names.h),
// whatever prefix the checkpoint has. Borrows the reader.
class HfTensors {
 public:
  static Result<HfTensors> Create(const SafetensorsReader& reader);

  // nullptr if there is none.
  const SourceTensor* Find(const std::string& name) const;

  // A tensor of wanted shape; kBadModel says what is missing or how it differs.
  Result<const SourceTensor*> Get(const std::string& name,
                                  std::span<const uint64_t> shape) const;

  // The tensors of a tower and of its embedder, ordered by name.
  struct TowerTensor {
    std::string name;
    const SourceTensor* source;
  };
  std::vector<TowerTensor> Tower(SectionKind section) const;

  // Refuses text tensors that the decoder does not use (a bias, a scale, another block): they would
  // change what it computes. Those that are known to be dead weight are fine.
  Status CheckUnused(const TextConfig& text, bool allow_unknown, const WarningCallback& warn) const;

 private:
  // By name in the container.
  std::map<std::string, const SourceTensor*> text_;
  std::map<std::string, const SourceTensor*> vision_;
  std::map<std::string, const SourceTensor*> audio_;
  std::vector<const SourceTensor*> others_;
};

// "[2, 3]" for messages.
std::string ShapeText(std::span<const uint64_t> shape);

}  // namespace nestling
