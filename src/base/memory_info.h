// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

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

// Bytes of the pages of `memory` that this process has resident (of files: mapped, wherever else
// the page cache holds them), pages at the ends in proportion. 0 where the system does not say.
// Costs about 10 ms for each GB.
uint64_t ResidentBytes(std::span<const std::byte> memory);

}  // namespace nestling
