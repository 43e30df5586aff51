// SPDX-License-Identifier: Apache-2.0
#include "pack/json_util.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace nestling {
namespace {

using ::testing::HasSubstr;

Status StatusOf(const std::string& text) { return ParseJson(text, "test").status(); }

TEST(JsonUtilTest, ParsesWhatIsValid) {
  const Result<Json> json = ParseJson(R"({"a": [1, -2.5, "x", null, true], "b": {"a": 1}})", "test");
  ASSERT_TRUE(json.ok());
  EXPECT_EQ((*json)["a"].size(), 5u);
}

TEST(JsonUtilTest, RefusesRepeatedKeysAtAnyDepth) {
  EXPECT_THAT(StatusOf(R"({"a": 1, "a": 1})").message(), HasSubstr("\"a\" appears twice"));
  EXPECT_THAT(StatusOf(R"([{"b": {"c": 1, "c": 2}}])").message(), HasSubstr("\"c\" appears"));
  EXPECT_TRUE(StatusOf(R"({"a": {"b": 1}, "b": {"b": 2}})").ok());
}

TEST(JsonUtilTest, BoundsTheDepth) {
  EXPECT_TRUE(StatusOf(std::string(60, '[') + std::string(60, ']')).ok());
  EXPECT_THAT(StatusOf(std::string(70, '[') + std::string(70, ']')).message(),
              HasSubstr("nested deeper"));
  EXPECT_FALSE(StatusOf(std::string(1000000, '[')).ok());
}

TEST(JsonUtilTest, RefusesMalformedText) {
  for (const char* text : {"", "{", "[1,]", "{\"a\"}", "\"\xc3\x28\"", "1e999", "nul", "[1] 2"}) {
    EXPECT_EQ(StatusOf(text).code(), StatusCode::kBadModel) << text;
  }
}

TEST(JsonFieldsTest, ReadsTypedFieldsAndDefaults) {
  const Json json = {{"n", 7u}, {"f", 0.5}, {"s", "x"}, {"b", true}, {"null", nullptr}};
  JsonFields fields(json, "test");
  EXPECT_EQ(fields.Uint("n", 1), 7u);
  EXPECT_EQ(fields.Uint("missing", 1), 1u);
  EXPECT_EQ(fields.Uint("null", 2), 2u);
  EXPECT_EQ(fields.Float("f", 1.0f), 0.5f);
  EXPECT_EQ(fields.String("s", ""), "x");
  EXPECT_TRUE(fields.Bool("b", false));
  EXPECT_TRUE(fields.status().ok());
}

TEST(JsonFieldsTest, KeepsTheFirstWrongType) {
  const Json json = {{"n", -1}, {"m", 4294967296u}, {"f", "0.5"}, {"b", 1u}, {"big", 1e300}};
  for (const char* key : {"n", "m", "f", "b"}) {
    JsonFields fields(json, "test");
    fields.Uint(key, 0);
    // 1 is a number, but the others are not what the method wants.
    EXPECT_EQ(fields.status().ok(), std::string(key) == "b") << key;
  }
  JsonFields fields(json, "config.json");
  fields.Bool("b", false);
  fields.Float("big", 0.0f);
  EXPECT_THAT(fields.status().message(), HasSubstr("config.json: \"b\" is 1, want true or false"));
}

}  // namespace
}  // namespace nestling
