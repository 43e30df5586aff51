// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

#include "tests/support/temporary_folder.h"
#include "tests/support/tiny_model.h"

namespace nestling::testing {

// A tensor of a checkpoint; `dtype` is "F32", "F16" or "BF16".
struct HfTensor {
  std::string name;
  std::string dtype;
  std::vector<uint64_t> shape;
  std::vector<float> values;
};

// A whole .safetensors file.
std::string SafetensorsBytes(const std::vector<HfTensor>& tensors);

// The file around a header that is made by hand.
std::string SafetensorsBytes(const std::string& header, const std::string& data);

void WriteTextFile(const std::string& path, const std::string& bytes);

// The checkpoint whose conversion is the tiny model: its tensors with TinyTensorValues. `prefix`
// precedes the names; the formats of `options` do not matter.
std::vector<HfTensor> TinyCheckpoint(const TinyModelOptions& options,
                                     const std::string& prefix = "model.",
                                     const std::string& dtype = "F32");
nlohmann::json TinyConfigJson(const TinyModelOptions& options);

// config.json and model.safetensors.
void WriteHfFolder(const std::string& folder, const nlohmann::json& config,
                   const std::vector<HfTensor>& tensors);

}  // namespace nestling::testing
