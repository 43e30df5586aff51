// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/status.h"
#include "container/header_fields.h"
#include "pack/formats.h"
#include "pack/hf_config.h"

namespace nestling {

struct PackOptions {
  std::string source;  // a Hugging Face folder, or a GGUF file
  std::string output;  // replaced only when the new file is complete
  FormatOptions formats;
  size_t jobs = 0;                      // threads; 0: one per core
  std::vector<std::string> add_slices;  // JSON files of custom slices to store
  std::string slice;                    // a name or a JSON file: write only this sub-model
  bool allow_unknown_config = false;
};

// Bytes of the container written so far, and all of them. Called from several threads, one at a
// time.
using ProgressCallback = std::function<void(uint64_t done, uint64_t total)>;

// An upper bound of what `fields` take in a header, for ContainerWriter::Layout.
uint64_t HeaderFieldsBytes(const HeaderFields& fields);

// Converts a checkpoint to a .nest container. Everything is checked (configuration, names, shapes,
// slices) before anything is written. Memory does not depend on the model: each thread holds one
// panel of a few megabytes. Blocks on storage; both callbacks may be empty.
Status Pack(const PackOptions& options, const ProgressCallback& progress,
            const WarningCallback& warn);

}  // namespace nestling
