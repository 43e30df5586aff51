// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/status.h"
#include "container/header_fields.h"
#include "pack/formats.h"
#include "pack/pack.h"

namespace nestling {

struct SynthOptions {
  std::string preset = "tiny";
  std::string output;
  FormatOptions formats;
  uint64_t seed = 1;
  size_t jobs = 0;  // threads; 0: one per core. The bytes do not depend on it
};

// The header of a preset: "e2b" and "e4b" are the real shapes with both towers, "tiny" is a
// 10-layer text model with every feature of the decoder. kInvalidArgument for another name.
Result<HeaderFields> PresetFields(std::string_view preset);

// Writes a container with random weights, made in the target format without a source. They are
// scaled so that activations stay finite and logits have a standard deviation of about 2. There is
// no tokenizer: token ids can be evaluated, text cannot.
Status Synthesize(const SynthOptions& options, const ProgressCallback& progress);

}  // namespace nestling
