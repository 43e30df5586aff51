// SPDX-License-Identifier: Apache-2.0
#include "cli/json_rows.h"

#include <cstdio>
#include <utility>

namespace nestling::cli {
namespace {

using Json = nlohmann::ordered_json;

void PrintCsvRow(const Json& row, bool header) {
  std::string names, values;
  for (const auto& [name, value] : row.items()) {
    if (!names.empty()) {
      names += ',';
      values += ',';
    }
    names += name;
    if (!value.is_null()) values += value.dump();  // strings in quotes
  }
  if (header) std::printf("%s\n", names.c_str());
  std::printf("%s\n", values.c_str());
}

}  // namespace

void PrintJsonRows(const Json& conditions, const std::vector<Json>& rows,
                   const std::string& format) {
  if (format == "json") {
    Json json = conditions;
    json["tests"] = rows;
    std::printf("%s\n", json.dump(2).c_str());
    return;
  }
  bool header = true;
  for (Json row : rows) {
    row.update(conditions);
    if (format == "csv") {
      PrintCsvRow(row, std::exchange(header, false));
    } else {
      std::printf("%s\n", row.dump().c_str());
    }
  }
}

}  // namespace nestling::cli
