// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

namespace nestling::cli {

// What a person calls the CPU; the machine type where the system does not say.
std::string CpuName();

// Resident bytes of this process, of pages that several processes map its share only ("PSS"); 0
// where the system does not say.
uint64_t ProportionalBytes();

// From now on the peak of resident memory is that of later times. False: the system has no such
// thing.
bool ForgetPeakResident();

// Asks the system to forget what it caches of a file, and returns how many bytes of it are still
// in memory (another process may use them).
uint64_t DropFromPageCache(const std::string& path);

}  // namespace nestling::cli
