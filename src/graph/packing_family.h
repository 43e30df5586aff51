// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

#include "base/status.h"

namespace nestling {

// What decides how XNNPACK packs weights in this process.
struct PackingFamily {
  std::string library;  // its version, and that of what this library packs itself
  std::string cpu;      // architecture and the features that XNNPACK looks at, for people too
  // Hash of a sample of every kind of operator that we use, packed here: whatever the two names
  // above miss (another build, another choice by microarchitecture) changes it.
  uint64_t layout = 0;
};

// Found once; thread-safe. An error: XNNPACK cannot run here.
Result<PackingFamily> ThisPackingFamily();

}  // namespace nestling
