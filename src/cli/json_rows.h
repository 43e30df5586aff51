// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace nestling::cli {

// Rows of a report, which have the same keys, and what all of them share, for programs to read.
// `format`: json (one object, the rows in "tests"), jsonl (one line per row), csv.
void PrintJsonRows(const nlohmann::ordered_json& conditions,
                   const std::vector<nlohmann::ordered_json>& rows, const std::string& format);

}  // namespace nestling::cli
