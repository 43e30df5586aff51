// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

#include "base/function_ref.h"
#include "base/status.h"
#include "runtime/engine.h"

namespace nestling {

// Makes the files of packed weights that engines of these options will look for, so that nothing is
// packed when they start: of the decoder's slice and of both towers, as far as XNNPACK packs them.
// Files that are there are verified, damaged and stale ones made anew. Without a folder in
// `options.packed_cache` they go beside the container. One tower is in memory at a time.
// `progress` counts the container's bytes and may be empty. An error of a file is this call's, too.
Status Prepare(const std::string& path, EngineOptions options,
               FunctionRef<void(uint64_t done, uint64_t total)> progress);

}  // namespace nestling
