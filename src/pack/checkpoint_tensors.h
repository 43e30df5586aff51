// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <deque>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "base/status.h"
#include "container/header_fields.h"
#include "container/types.h"
#include "pack/hf_config.h"
#include "pack/tensor_source.h"

namespace nestling {

// Tensors of a GGUF file that decide about the configuration.
inline constexpr const char* kGgufEmbedding = "token_embd.weight";
inline constexpr const char* kGgufPleTable = "per_layer_token_embd.weight";

// The tensors of a checkpoint under their names in a container (tensor_names.h), whatever the
// checkpoint calls them. Borrows the source.
class CheckpointTensors {
 public:
  // Hugging Face names, with one of the prefixes that models were published with.
  static Result<CheckpointTensors> FromHf(const TensorSource& source);

  // GGUF names. Stacked AltUp projections are taken apart, and the PLE table ends with the last row
  // of `text`.
  static Result<CheckpointTensors> FromGguf(const TensorSource& source, const TextConfig& text);

  // nullptr if there is none.
  const SourceTensor* Find(const std::string& name) const;

  // A tensor of wanted shape; kBadModel says what is missing or how it differs.
  Result<const SourceTensor*> Get(const std::string& name, std::span<const uint64_t> shape) const;

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
  // Parts of tensors of the source; a deque never moves its elements.
  std::deque<SourceTensor> parts_;
  // By name in the container.
  std::map<std::string, const SourceTensor*> text_;
  std::map<std::string, const SourceTensor*> vision_;
  std::map<std::string, const SourceTensor*> audio_;
  std::vector<const SourceTensor*> others_;
};

// "[2, 3]" for messages.
std::string ShapeText(std::span<const uint64_t> shape);

}  // namespace nestling
