// SPDX-License-Identifier: Apache-2.0
#include "cli/token_list.h"

#include <charconv>
#include <string_view>

#include "cli/command.h"
#include "cli/text_file.h"

namespace nestling::cli {
namespace {

constexpr std::string_view kSeparators = " ,\t\r\n[]";  // a JSON array is fine too

std::vector<int32_t> Parse(std::string_view text, const std::string& where) {
  std::vector<int32_t> tokens;
  size_t at = 0;
  while ((at = text.find_first_not_of(kSeparators, at)) != std::string_view::npos) {
    const size_t end = std::min(text.find_first_of(kSeparators, at), text.size());
    int32_t token = 0;
    const auto [stop, error] = std::from_chars(text.data() + at, text.data() + end, token);
    if (error != std::errc() || stop != text.data() + end) {
      throw ToolError(where + ": \"" +
                      std::string(text.substr(at, std::min<size_t>(end - at, 20))) + "\" at byte " +
                      std::to_string(at) + " is no token id");
    }
    tokens.push_back(token);
    at = end;
  }
  if (tokens.empty()) throw ToolError(where + ": no token ids");
  return tokens;
}

}  // namespace

std::vector<int32_t> ReadTokenList(const std::string& list_or_path) {
  const bool is_list = list_or_path.find_first_not_of("-0123456789 ,\t\r\n[]") == std::string::npos;
  if (is_list) return Parse(list_or_path, "--tokens");
  return Parse(ReadTextFile(list_or_path), list_or_path);
}

}  // namespace nestling::cli
