// SPDX-License-Identifier: Apache-2.0
#include "text/utf8.h"

#include <gtest/gtest.h>

#include <set>
#include <string>

namespace nestling {
namespace {

std::string Encode(char32_t c) {
  std::string out;
  if (c < 0x80) {
    out = {static_cast<char>(c)};
  } else if (c < 0x800) {
    out = {static_cast<char>(0xC0 | (c >> 6)), static_cast<char>(0x80 | (c & 0x3F))};
  } else if (c < 0x10000) {
    out = {static_cast<char>(0xE0 | (c >> 12)), static_cast<char>(0x80 | ((c >> 6) & 0x3F)),
           static_cast<char>(0x80 | (c & 0x3F))};
  } else {
    out = {static_cast<char>(0xF0 | (c >> 18)), static_cast<char>(0x80 | ((c >> 12) & 0x3F)),
           static_cast<char>(0x80 | ((c >> 6) & 0x3F)), static_cast<char>(0x80 | (c & 0x3F))};
  }
  return out;
}

TEST(Utf8Test, AcceptsEveryCodePointButSurrogates) {
  for (char32_t c = 0; c <= 0x110000; ++c) {
    const std::string text = Encode(c);
    const Utf8Unit unit = NextUtf8(text);
    if ((c >= 0xD800 && c < 0xE000) || c == 0x110000) {
      ASSERT_EQ(unit.kind, Utf8Kind::kInvalid) << std::hex << static_cast<uint32_t>(c);
      ASSERT_EQ(FindInvalidUtf8(text), 0u);
    } else {
      ASSERT_EQ(unit.kind, Utf8Kind::kComplete) << std::hex << static_cast<uint32_t>(c);
      ASSERT_EQ(unit.bytes, text.size());
      ASSERT_EQ(unit.code_point, c);
    }
  }
}

TEST(Utf8Test, FindsTheFirstByteThatIsNotPartOfACharacter) {
  EXPECT_EQ(FindInvalidUtf8(""), std::string_view::npos);
  EXPECT_EQ(FindInvalidUtf8("h\u00E9llo \U0001F600"), std::string_view::npos);
  EXPECT_EQ(FindInvalidUtf8("ab\xFF"), 2u);
  EXPECT_EQ(FindInvalidUtf8("\u00E9\x80x"), 2u);
  EXPECT_EQ(FindInvalidUtf8("abc\xE2\x82"), 3u);  // truncated
}

// The expected values are those of Python's bytes.decode("utf-8", "replace").
TEST(Utf8Test, ReplacesMaximalSubpartsLikePython) {
  const auto decode = [](std::string bytes) {
    std::string text;
    TakeCompleteUtf8(bytes, text);
    return bytes.empty() ? text : text + std::string(kReplacementCharacter);
  };
  EXPECT_EQ(decode("\xE2\x82"
                   "a"),
            "\uFFFDa");
  EXPECT_EQ(decode("\xED\xA0\x80"), "\uFFFD\uFFFD\uFFFD");
  EXPECT_EQ(decode("\xF0\x9F\x98"), "\uFFFD");
  EXPECT_EQ(decode("\xF0\x9F"
                   "a"),
            "\uFFFDa");
  EXPECT_EQ(decode("\xC0\xAF"), "\uFFFD\uFFFD");
  EXPECT_EQ(decode("\xF4\x90\x80\x80"), "\uFFFD\uFFFD\uFFFD\uFFFD");
  EXPECT_EQ(decode("\xE0\x80\xAF"), "\uFFFD\uFFFD\uFFFD");
  EXPECT_EQ(decode("\xC3\xC3\xA9"), "\uFFFD\u00E9");
  EXPECT_EQ(decode("\x80\x80"), "\uFFFD\uFFFD");
  EXPECT_EQ(decode("\xF0\x9F\x98\xE2\x82\xAC"), "\uFFFD\u20AC");
}

TEST(Utf8Test, KeepsTheBeginningOfACharacterForLater) {
  std::string bytes = "a\xF0\x9F\x98";
  std::string text;
  TakeCompleteUtf8(bytes, text);
  EXPECT_EQ(text, "a");
  EXPECT_EQ(bytes, "\xF0\x9F\x98");
  bytes += "\x80!";
  TakeCompleteUtf8(bytes, text);
  EXPECT_EQ(text, "a\U0001F600!");
  EXPECT_EQ(bytes, "");
}

// [c for c in range(0x110000) if chr(c).isspace()] in Python 3.
TEST(StripWhitespaceTest, StripsExactlyWhatPythonStrips) {
  std::set<char32_t> python = {0x20, 0x85, 0xA0, 0x1680, 0x2028, 0x2029, 0x202F, 0x205F, 0x3000};
  for (char32_t c = 0x09; c <= 0x0D; ++c) python.insert(c);
  for (char32_t c = 0x1C; c <= 0x1F; ++c) python.insert(c);
  for (char32_t c = 0x2000; c <= 0x200A; ++c) python.insert(c);
  for (char32_t c = 0; c < 0x110000; ++c) {
    if (c >= 0xD800 && c < 0xE000) continue;
    const std::string space = Encode(c);
    const std::string text = space + "x" + space + "y" + space;
    const std::string want = python.contains(c) ? "x" + space + "y" : text;
    ASSERT_EQ(StripWhitespace(text), want) << std::hex << static_cast<uint32_t>(c);
  }
}

TEST(StripWhitespaceTest, HandlesEdges) {
  EXPECT_EQ(StripWhitespace(""), "");
  EXPECT_EQ(StripWhitespace(" \n\u3000\t"), "");
  EXPECT_EQ(StripWhitespace("  a b  "), "a b");
  EXPECT_EQ(StripWhitespace(" \x80 "), "\x80");
  EXPECT_EQ(StripWhitespace("\x80\x80\x80\x80\x80"), "\x80\x80\x80\x80\x80");
}

}  // namespace
}  // namespace nestling
