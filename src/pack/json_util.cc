// SPDX-License-Identifier: Apache-2.0
#include "pack/json_util.h"

#include <cmath>
#include <limits>
#include <unordered_set>
#include <vector>

#include "base/file.h"

namespace nestling {
namespace {

constexpr int kMaxDepth = 64;
constexpr size_t kMaxMessageChars = 80;

}  // namespace

Result<Json> ParseJson(std::string_view text, std::string_view what) {
  bool too_deep = false;
  std::string repeated;
  std::vector<std::unordered_set<std::string>> keys;  // of the open objects
  const auto check = [&](int depth, Json::parse_event_t event, Json& parsed) {
    if (depth > kMaxDepth) too_deep = true;
    if (too_deep) return false;
    if (event == Json::parse_event_t::object_start) {
      keys.emplace_back();
    } else if (event == Json::parse_event_t::object_end) {
      keys.pop_back();
    } else if (event == Json::parse_event_t::key) {
      const auto& key = parsed.get_ref<const std::string&>();
      if (!keys.back().insert(key).second && repeated.empty()) repeated = key;
    }
    return true;
  };
  Json json = Json::parse(text.begin(), text.end(), check, /*allow_exceptions=*/false);
  if (too_deep) return BadModel(what, ": JSON nested deeper than ", kMaxDepth, " levels");
  if (!repeated.empty()) {
    return BadModel(what, ": key \"", repeated.substr(0, kMaxMessageChars), "\" appears twice");
  }
  if (json.is_discarded()) return BadModel(what, ": not valid JSON");
  return json;
}

Result<Json> ReadJsonFile(const std::string& path, uint64_t limit_bytes) {
  ASSIGN_OR_RETURN(const std::string text, ReadFile(path, limit_bytes));
  return ParseJson(text, path);
}

std::string JsonForMessage(const Json& value) {
  // Invalid UTF-8 cannot occur in parsed JSON, but dump() would throw on it.
  std::string text = value.dump(-1, ' ', false, Json::error_handler_t::replace);
  if (text.size() > kMaxMessageChars) text = text.substr(0, kMaxMessageChars) + "...";
  return text;
}

const Json* JsonFields::Find(const char* key) const {
  if (!object_.is_object()) return nullptr;
  const auto it = object_.find(key);
  return it == object_.end() || it->is_null() ? nullptr : &*it;
}

void JsonFields::Fail(const char* key, const Json& found, const char* wanted) {
  if (!status_.ok()) return;
  status_ = BadModel(where_, ": \"", key, "\" is ", JsonForMessage(found), ", want ", wanted);
}

uint32_t JsonFields::Uint(const char* key, uint32_t otherwise) {
  const Json* value = Find(key);
  if (value == nullptr) return otherwise;
  if (value->is_number_unsigned() &&
      value->get<uint64_t>() <= std::numeric_limits<uint32_t>::max()) {
    return value->get<uint32_t>();
  }
  Fail(key, *value, "an unsigned 32-bit number");
  return otherwise;
}

int32_t JsonFields::TokenId(const char* key, int32_t otherwise) {
  const Json* value = Find(key);
  if (value == nullptr) return otherwise;
  if (value->is_number_unsigned() &&
      value->get<uint64_t>() <= static_cast<uint64_t>(std::numeric_limits<int32_t>::max())) {
    return value->get<int32_t>();
  }
  Fail(key, *value, "a token id");
  return otherwise;
}

float JsonFields::Float(const char* key, float otherwise) {
  const Json* value = Find(key);
  if (value == nullptr) return otherwise;
  if (value->is_number()) {
    const double number = value->get<double>();
    if (std::abs(number) <= std::numeric_limits<float>::max()) return static_cast<float>(number);
  }
  Fail(key, *value, "a finite number");
  return otherwise;
}

bool JsonFields::Bool(const char* key, bool otherwise) {
  const Json* value = Find(key);
  if (value == nullptr) return otherwise;
  if (value->is_boolean()) return value->get<bool>();
  Fail(key, *value, "true or false");
  return otherwise;
}

std::string JsonFields::String(const char* key, const std::string& otherwise) {
  const Json* value = Find(key);
  if (value == nullptr) return otherwise;
  if (value->is_string()) return value->get<std::string>();
  Fail(key, *value, "a string");
  return otherwise;
}

}  // namespace nestling
