// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tests/support/chat_model.h"
#include "tests/support/temporary_folder.h"
#include "tests/support/tiny_model.h"

namespace nestling::testing {

inline std::string ReadWholeFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

struct ToolResult {
  int exit_code = -1;
  std::string out;
  std::string err;
};

inline std::string Quote(const std::string& argument) {
  std::string quoted = "'";
  for (const char c : argument) quoted += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return quoted + "'";
}

// Runs the built tool as a shell would; `input` is its standard input.
inline ToolResult RunTool(const std::vector<std::string>& arguments,
                          const std::string& input = "") {
  const TemporaryFolder folder;
  std::ofstream(folder / "in", std::ios::binary) << input;
  std::string command = Quote(NESTLING_TOOL);
  for (const std::string& argument : arguments) command.append(" ").append(Quote(argument));
  command +=
      " < " + Quote(folder / "in") + " > " + Quote(folder / "out") + " 2> " + Quote(folder / "err");
  const int status = std::system(command.c_str());
  ToolResult result;
  if (WIFEXITED(status)) result.exit_code = WEXITSTATUS(status);
  result.out = ReadWholeFile(folder / "out");
  result.err = ReadWholeFile(folder / "err");
  return result;
}

// Models of this test program, written once.
inline const std::string& PlainModel() {
  static const TemporaryPath path;
  static const bool written =
      RunTool({"synth", "--preset", "tiny", "--quant", "f32", "-o", path.path()}).exit_code == 0;
  EXPECT_TRUE(written);
  return path.path();
}
inline const std::string& ChatModel() {
  static const TemporaryPath path;
  static const bool written = WriteTinyModel(path.path(), ChatModelOptions()).ok();
  EXPECT_TRUE(written);
  return path.path();
}

// One line that says what went wrong, as users see it.
inline void ExpectFailure(const ToolResult& result, int exit_code, const std::string& part) {
  EXPECT_EQ(result.exit_code, exit_code) << result.out << result.err;
  EXPECT_EQ(result.err.rfind("nestling: ", 0), 0u) << result.err;
  EXPECT_EQ(result.err.find('\n'), result.err.size() - 1) << result.err;
  EXPECT_NE(result.err.find(part), std::string::npos) << result.err;
  EXPECT_EQ(result.out, "");
}

inline nlohmann::json ParseOutput(const ToolResult& result) {
  EXPECT_EQ(result.exit_code, 0) << result.err;
  nlohmann::json json = nlohmann::json::parse(result.out, nullptr, /*allow_exceptions=*/false);
  EXPECT_FALSE(json.is_discarded()) << result.out;
  return json;
}

}  // namespace nestling::testing
