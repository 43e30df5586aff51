// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

namespace nestling::cli {

// Whole contents; ToolError if it cannot be read.
std::string ReadTextFile(const std::string& path);
std::string ReadStandardInput();

}  // namespace nestling::cli
