// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace nestling {

// What the operating system says of this process, in bytes; zero where it does not say.
struct ProcessMemory {
  uint64_t resident = 0;
  uint64_t peak_resident = 0;
  uint64_t anonymous = 0;    // of `resident`
  uint64_t file_backed = 0;  // of `resident`
};

ProcessMemory ReadProcessMemory();

// Gives memory that was freed, and that the C library keeps for later, back to the system.
void ReturnFreeMemory();

}  // namespace nestling
