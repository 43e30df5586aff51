// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace nestling::cli {

// Token ids from "1,2,3", or from a text file of numbers separated by spaces, commas or newlines.
// An argument of digits and separators only is a list. ToolError: unreadable file, or something in
// it that is no token id (says where).
std::vector<int32_t> ReadTokenList(const std::string& list_or_path);

}  // namespace nestling::cli
