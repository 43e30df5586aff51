// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

#include "base/file_calls.h"
#include "base/function_ref.h"
#include "base/status.h"
#include "modality/towers.h"

namespace nestling {

struct InPlaceOptions {
  // Where the container goes. Empty: it replaces the one that it was made from.
  std::string output = {};
  TowerPrecision tower_precision = TowerPrecision::kAuto;
  size_t num_threads = 0;      // 0: one for each core
  FileCalls* calls = nullptr;  // borrowed; null: the system's
};

enum class InPlaceOutcome {
  kPacked,   // the container now holds packed weights
  kNothing,  // nothing in it has to be packed
  kAlready,  // it held packed weights for this CPU before
};

// Makes a container that holds what XNNPACK packs (towers, decoders that do not lie in tiles) in
// the packed form of this process's CPU and library, instead of the canonical weights. Everything
// else is copied. The new file is looked at, then gets its name at once; an error or the end of the
// process leaves what was there before. If nothing has to be packed, a container that would replace
// itself is left alone, and `output` becomes a copy.
// A block of weights for each thread is in memory at a time. kUnsupported: packed for another CPU,
// or a tower in another precision than is asked for; kBadModel: damaged weights; kIoError: also a
// full disk. `progress` counts bytes that are read and may be empty.
Result<InPlaceOutcome> PrepareInPlace(const std::string& path, const InPlaceOptions& options,
                                      FunctionRef<void(uint64_t done, uint64_t total)> progress);

}  // namespace nestling
