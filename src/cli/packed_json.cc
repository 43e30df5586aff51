// SPDX-License-Identifier: Apache-2.0
#include "cli/packed_json.h"

#include <cstddef>
#include <iterator>
#include <string>

namespace nestling::cli {
namespace {

constexpr const char* kStates[] = {"none", "used", "made", "failed", "held"};

const char* StateName(nestling_packed_state state) {
  const auto index = static_cast<size_t>(state);
  return index < std::size(kStates) ? kStates[index] : "unknown";
}

nlohmann::ordered_json ToJson(const nestling_packed_info& info) {
  return {{"state", StateName(info.state)},
          {"mapped_bytes", info.mapped_bytes},
          {"anonymous_bytes", info.anonymous_bytes},
          {"note", info.note}};
}

}  // namespace

nlohmann::ordered_json PackedJson(const Engine& engine) {
  constexpr struct {
    const char* name;
    nestling_packed_part part;
  } kParts[] = {{"decoder", NESTLING_PACKED_DECODER},
                {"vision", NESTLING_PACKED_VISION},
                {"audio", NESTLING_PACKED_AUDIO}};
  nlohmann::ordered_json json = nlohmann::ordered_json::object();
  for (const auto& each : kParts) json[each.name] = ToJson(engine.Packed(each.part));
  return json;
}

void AddPacked(const nestling_packed_info& info, nlohmann::ordered_json* row) {
  const nlohmann::ordered_json json = ToJson(info);
  for (const auto& [name, value] : json.items()) (*row)["packed_" + name] = value;
}

}  // namespace nestling::cli
