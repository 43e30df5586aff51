// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

namespace nestling::cli {

// Resident bytes of this process, by what is mapped; all zero where the system has no
// /proc/self/smaps.
struct MemoryMap {
  uint64_t model = 0;      // the file `model`
  uint64_t code = 0;       // programs and libraries, their data and whatever other files
  uint64_t heap = 0;       // the main thread's: tokenizer, operators, lists
  uint64_t anonymous = 0;  // all other memory: buffers, stacks, other threads' heaps
  uint64_t total() const { return model + code + heap + anonymous; }
};

MemoryMap ReadMemoryMap(const std::string& model);

}  // namespace nestling::cli
