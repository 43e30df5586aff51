// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

namespace nestling::cli {

// What a person calls the CPU; the machine type where the system does not say.
std::string CpuName();

}  // namespace nestling::cli
