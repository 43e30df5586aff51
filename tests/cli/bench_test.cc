// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>

#include "tests/cli/tool.h"

namespace nestling::testing {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

std::vector<std::string> Bench(const std::string& format, const std::string& runs) {
  return {"bench", PlainModel(), "-p", "8,16", "-n", "4",  "-d",
          "0,5",   "-r",         runs, "-t",   "1",  "-o", format};
}

TEST(BenchTest, JsonHasARowPerTestAndItsConditions) {
  const nlohmann::json json = ParseOutput(RunTool(Bench("json", "3")));
  EXPECT_EQ(json["threads"], 1);
  EXPECT_GT(json["load_ms"], 0.0);
  EXPECT_GT(json["peak_resident_bytes"], 0);
  EXPECT_NE(json["cpu"], "");
  std::vector<std::string> names;
  for (const nlohmann::json& row : json["tests"]) {
    names.push_back(row["test"]);
    EXPECT_EQ(row["repetitions"], 3);
    EXPECT_GT(row["median"], 0.0);
    EXPECT_GE(row["stddev"], 0.0);
    EXPECT_GT(row["anonymous_bytes"].get<uint64_t>() + row["file_backed_bytes"].get<uint64_t>(),
              0u);
    // Prefill has a first token, decode has times between tokens.
    EXPECT_EQ(row["first_token_ms"].is_null(), row["prompt_tokens"] == 0);
    EXPECT_EQ(row["token_p95_ms"].is_null(), row["generated_tokens"] == 0);
    // Decode is held against reading memory, prefill against int8 products.
    EXPECT_EQ(row["weight_bytes_per_token"] > 0, row["generated_tokens"] != 0);
    EXPECT_EQ(row["share_of_reading"] > 0, row["generated_tokens"] != 0);
    EXPECT_EQ(row["int8_operations_per_token"] > 0, row["prompt_tokens"] != 0);
  }
  EXPECT_GT(json["read_bytes_per_second"], 0);
  EXPECT_THAT(names,
              ::testing::ElementsAre("pp8", "pp16", "tg4", "pp8 @ d5", "pp16 @ d5", "tg4 @ d5"));
}

TEST(BenchTest, LimitsAreNotMeasuredIfTheyAreNotWanted) {
  std::vector<std::string> command = {"bench", PlainModel(), "-p", "4",           "-n", "2",   "-r",
                                      "1",     "-t",         "1",  "--no-limits", "-o", "json"};
  const nlohmann::json json = ParseOutput(RunTool(command));
  EXPECT_EQ(json["read_bytes_per_second"], 0.0);
  EXPECT_EQ(json["tests"][1]["share_of_reading"], 0.0);
  EXPECT_GT(json["tests"][1]["weight_bytes_per_token"], 0.0);
  command.back() = "table";
  EXPECT_THAT(RunTool(command).out, Not(HasSubstr("this machine reads")));
}

TEST(BenchTest, OtherFormatsHaveTheSameRows) {
  const ToolResult table = RunTool(Bench("table", "1"));
  EXPECT_EQ(table.exit_code, 0) << table.err;
  EXPECT_THAT(table.out, HasSubstr("tg4 @ d5"));
  EXPECT_THAT(RunTool(Bench("md", "1")).out, HasSubstr("| pp16 "));
  const std::string csv = RunTool(Bench("csv", "1")).out;
  EXPECT_EQ(std::count(csv.begin(), csv.end(), '\n'), 7);  // with its header
  const std::string lines = RunTool(Bench("jsonl", "1")).out;
  EXPECT_EQ(std::count(lines.begin(), lines.end(), '\n'), 6);
  const nlohmann::json first = nlohmann::json::parse(lines.substr(0, lines.find('\n')));
  EXPECT_EQ(first["test"], "pp8");
  EXPECT_EQ(first["threads"], 1);
}

// The model is this process's own file, so that the page cache can let go of it.
TEST(BenchTest, AColdLoadIsMeasuredWhenAskedFor) {
  std::vector<std::string> command = {"bench", PlainModel(), "-p", "4", "-n", "0",
                                      "-r",    "1",          "-t", "1", "-o", "json"};
  EXPECT_TRUE(ParseOutput(RunTool(command))["cold_load_ms"].is_null());
  command.push_back("--cold");
  const nlohmann::json json = ParseOutput(RunTool(command));
  EXPECT_GT(json["cold_load_ms"], 0.0);
  EXPECT_GT(json["cold_first_token_ms"], json["cold_load_ms"]);
  EXPECT_FALSE(json["cold_cached_bytes"].is_null());
}

TEST(BenchTest, ZeroLeavesAKindOfRowOut) {
  const nlohmann::json json =
      ParseOutput(RunTool({"bench", PlainModel(), "-p", "0", "-n", "2", "-r", "1", "-o", "json"}));
  ASSERT_EQ(json["tests"].size(), 1u);
  EXPECT_EQ(json["tests"][0]["test"], "tg2");
  ExpectFailure(RunTool({"bench", PlainModel(), "-p", "0", "-n", "0"}), 2, "nothing");
}

}  // namespace
}  // namespace nestling::testing
