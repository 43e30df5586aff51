// SPDX-License-Identifier: Apache-2.0
#include "text/utf8.h"

#include <algorithm>
#include <cstdint>

namespace nestling {
namespace {

// What a lead byte asks for: bytes of the whole character, and the range of its second byte, which
// is where overlong forms, surrogates and numbers above U+10FFFF are excluded.
struct Lead {
  size_t bytes;  // 0: no lead byte
  uint8_t second_min;
  uint8_t second_max;
};

Lead ClassifyLead(uint8_t byte) {
  if (byte < 0x80) return {1, 0, 0};
  if (byte < 0xC2) return {0, 0, 0};  // continuation bytes; C0 and C1 begin overlong forms only
  if (byte < 0xE0) return {2, 0x80, 0xBF};
  if (byte == 0xE0) return {3, 0xA0, 0xBF};
  if (byte == 0xED) return {3, 0x80, 0x9F};
  if (byte < 0xF0) return {3, 0x80, 0xBF};
  if (byte == 0xF0) return {4, 0x90, 0xBF};
  if (byte < 0xF4) return {4, 0x80, 0xBF};
  if (byte == 0xF4) return {4, 0x80, 0x8F};
  return {0, 0, 0};
}

// str.isspace() of Python 3.
bool IsWhitespace(char32_t c) {
  return (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 ||
         c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F ||
         c == 0x205F || c == 0x3000;
}

}  // namespace

Utf8Unit NextUtf8(std::string_view text) {
  const auto byte = [text](size_t i) { return static_cast<uint8_t>(text[i]); };
  const Lead lead = ClassifyLead(byte(0));
  if (lead.bytes == 0) return {Utf8Kind::kInvalid, 1, 0};
  if (lead.bytes == 1) return {Utf8Kind::kComplete, 1, byte(0)};
  char32_t code_point = byte(0) & (0x7Fu >> lead.bytes);
  for (size_t i = 1; i < lead.bytes; ++i) {
    if (i == text.size()) return {Utf8Kind::kTruncated, i, 0};
    const uint8_t low = i == 1 ? lead.second_min : 0x80;
    const uint8_t high = i == 1 ? lead.second_max : 0xBF;
    if (byte(i) < low || byte(i) > high) return {Utf8Kind::kInvalid, i, 0};
    code_point = (code_point << 6) | (byte(i) & 0x3F);
  }
  return {Utf8Kind::kComplete, lead.bytes, code_point};
}

size_t FindInvalidUtf8(std::string_view text) {
  for (size_t at = 0; at < text.size();) {
    const Utf8Unit unit = NextUtf8(text.substr(at));
    if (unit.kind != Utf8Kind::kComplete) return at;
    at += unit.bytes;
  }
  return std::string_view::npos;
}

void TakeCompleteUtf8(std::string& bytes, std::string& text) {
  size_t copied = 0;
  size_t at = 0;
  while (at < bytes.size()) {
    const Utf8Unit unit = NextUtf8(std::string_view(bytes).substr(at));
    if (unit.kind == Utf8Kind::kTruncated) break;
    if (unit.kind == Utf8Kind::kInvalid) {
      text.append(bytes, copied, at - copied).append(kReplacementCharacter);
      copied = at + unit.bytes;
    }
    at += unit.bytes;
  }
  text.append(bytes, copied, at - copied);
  bytes.erase(0, at);
}

std::string_view StripWhitespace(std::string_view text) {
  while (!text.empty()) {
    const Utf8Unit unit = NextUtf8(text);
    if (unit.kind != Utf8Kind::kComplete || !IsWhitespace(unit.code_point)) break;
    text.remove_prefix(unit.bytes);
  }
  while (!text.empty()) {
    size_t start = text.size() - 1;  // of the last character: at most 3 continuation bytes back
    while (start > 0 && text.size() - start < 4 &&
           (static_cast<uint8_t>(text[start]) & 0xC0) == 0x80) {
      --start;
    }
    const Utf8Unit unit = NextUtf8(text.substr(start));
    if (unit.kind != Utf8Kind::kComplete || unit.bytes != text.size() - start ||
        !IsWhitespace(unit.code_point)) {
      break;
    }
    text.remove_suffix(unit.bytes);
  }
  return text;
}

}  // namespace nestling
