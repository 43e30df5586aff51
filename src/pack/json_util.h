// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "base/status.h"

namespace nestling {

using Json = nlohmann::json;

// Parses untrusted JSON: never throws, refuses more than 64 levels of nesting (Json::dump recurses)
// and repeated keys (two readers could see two files). `what` names the text in messages.
Result<Json> ParseJson(std::string_view text, std::string_view what);

// Reads and parses a file of at most `limit_bytes`.
Result<Json> ReadJsonFile(const std::string& path, uint64_t limit_bytes);

// Typed access to one object; the first wrong type is kept in status(), later calls then return
// their defaults. Missing and null are the default.
class JsonFields {
 public:
  // Both are borrowed.
  JsonFields(const Json& object, std::string_view where) : object_(object), where_(where) {}

  const Status& status() const { return status_; }
  // nullptr if missing or null.
  const Json* Find(const char* key) const;
  uint32_t Uint(const char* key, uint32_t otherwise);
  // An id; negative values are errors.
  int32_t TokenId(const char* key, int32_t otherwise);
  float Float(const char* key, float otherwise);
  bool Bool(const char* key, bool otherwise);
  std::string String(const char* key, const std::string& otherwise);

 private:
  void Fail(const char* key, const Json& found, const char* wanted);

  const Json& object_;
  std::string where_;
  Status status_;
};

// A short rendering of any value for messages.
std::string JsonForMessage(const Json& value);

}  // namespace nestling
