// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace nestling {

// U+FFFD, what stands for bytes that are no character.
inline constexpr std::string_view kReplacementCharacter = "\xEF\xBF\xBD";

enum class Utf8Kind {
  kComplete,   // one well-formed character of `bytes` bytes
  kTruncated,  // all the remaining `bytes` bytes are the beginning of a character
  kInvalid,    // `bytes` bytes that no continuation makes well-formed (a maximal subpart)
};

struct Utf8Unit {
  Utf8Kind kind = Utf8Kind::kInvalid;
  size_t bytes = 0;
  char32_t code_point = 0;  // of kComplete
};

// The unit at the beginning of `text`, which must not be empty. Well-formed is what the Unicode
// standard says (table 3-7): no overlong forms, no surrogates, nothing above U+10FFFF.
Utf8Unit NextUtf8(std::string_view text);

// Offset of the first byte that is not well-formed UTF-8 (a truncated character counts), or
// std::string_view::npos.
size_t FindInvalidUtf8(std::string_view text);

// Moves `bytes` to `text`: whole characters as they are, U+FFFD for each maximal subpart of an
// ill-formed sequence. The beginning of a character at the end stays in `bytes` (at most 3 bytes).
void TakeCompleteUtf8(std::string& bytes, std::string& text);

// `text` without the white space at both ends that Python's str.strip() removes, which is what
// Jinja's `trim` does. Ill-formed bytes are not white space.
std::string_view StripWhitespace(std::string_view text);

}  // namespace nestling
