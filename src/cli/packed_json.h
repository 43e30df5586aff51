// SPDX-License-Identifier: Apache-2.0
// What became of packed weights, in reports: "none", "used" or "made" or "failed" (of a file), or
// "held" by the container; bytes in a file's pages and in memory of their own; why there is no
// file.
#pragma once

#include <nlohmann/json.hpp>

#include "nestling/nestling.hpp"

namespace nestling::cli {

// An object for each of decoder, vision and audio.
nlohmann::ordered_json PackedJson(const Engine& engine);

// Columns "packed_..." of a row.
void AddPacked(const nestling_packed_info& info, nlohmann::ordered_json* row);

}  // namespace nestling::cli
