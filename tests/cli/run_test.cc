// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "tests/cli/tool.h"

namespace nestling::testing {
namespace {

using ::testing::HasSubstr;

std::vector<std::string> Call(const std::vector<std::string>& more) {
  std::vector<std::string> call = {"run",          ChatModel(), "--threads",     "1",
                                   "--max-tokens", "12",        "--temperature", "0"};
  call.insert(call.end(), more.begin(), more.end());
  return call;
}

TEST(RunTest, APromptIsTheSameAsAnOptionAndAsStandardInput) {
  const ToolResult option = RunTool(Call({"-p", "hello"}));
  EXPECT_EQ(option.exit_code, 0) << option.err;
  EXPECT_EQ(option.err, "");
  EXPECT_GT(option.out.size(), 1u);
  EXPECT_EQ(option.out.back(), '\n');
  EXPECT_EQ(RunTool(Call({}), "hello\n").out, option.out);
}

TEST(RunTest, TheSystemTextAndTheTemplateMatter) {
  const std::string plain = RunTool(Call({"-p", "hello"})).out;
  EXPECT_NE(RunTool(Call({"-p", "hello", "--system", "world"})).out, plain);
  EXPECT_NE(RunTool(Call({"-p", "hello", "--raw"})).out, plain);
  // Raw text may hold the template itself.
  EXPECT_EQ(RunTool(Call({"--raw", "-p",
                          "<start_of_turn>user\nhello<end_of_turn>\n<start_of_turn>model\n"}))
                .out,
            plain);
}

TEST(RunTest, TheSeedDecidesASampledReply) {
  const auto sampled = [](const char* seed) {
    return RunTool({"run", ChatModel(), "--threads", "1", "-p", "hello", "--max-tokens", "12",
                    "--temperature", "9", "--seed", seed})
        .out;
  };
  EXPECT_EQ(sampled("5"), sampled("5"));
  EXPECT_EQ(sampled("0"), sampled("0"));
  EXPECT_NE(sampled("5"), sampled("6"));
}

TEST(RunTest, StatsAreOneLineOfJsonOnStderr) {
  const ToolResult result = RunTool(Call({"-p", "hello", "--stats"}));
  EXPECT_EQ(result.exit_code, 0);
  ASSERT_EQ(result.err.find('\n'), result.err.size() - 1);
  const nlohmann::json stats = nlohmann::json::parse(result.err, nullptr, false);
  ASSERT_FALSE(stats.is_discarded()) << result.err;
  EXPECT_EQ(stats["generated_tokens"], 12);
  EXPECT_EQ(stats["stop_reason"], "max_tokens");
  EXPECT_GT(stats["prefill_tokens"], 8);
  EXPECT_GT(stats["decode_tokens_per_second"], 0.0);
  EXPECT_GT(stats["first_token_seconds"], 0.0);
  EXPECT_GT(stats["resident_bytes"], 0);
  EXPECT_GT(stats["kv_bytes"], 0);
  EXPECT_EQ(stats["packed"]["decoder"]["state"], "none");
  EXPECT_GT(stats["packed"]["decoder"]["anonymous_bytes"], 0);
  EXPECT_EQ(stats["packed"]["vision"]["mapped_bytes"], 0);
}

TEST(RunTest, AStopTextEndsTheReply) {
  std::string whole = RunTool(Call({"-p", "hello"})).out;
  whole.pop_back();
  // A random reply holds U+FFFD too: half of one would be no stop text.
  const size_t at = whole.find_first_of("abcdefghijklmnopqrstuvwxyz", 1);
  ASSERT_NE(at, std::string::npos);
  const std::string stop = whole.substr(at, 1);
  EXPECT_EQ(RunTool(Call({"-p", "hello", "--stop", stop})).out,
            whole.substr(0, whole.find(stop)) + "\n");
}

TEST(RunTest, APromptLongerThanTheContextNamesBothNumbers) {
  std::string prompt;
  for (int i = 0; i < 200; ++i) prompt += "hello ";
  const ToolResult result = RunTool(Call({"-p", prompt, "--context", "64"}));
  ExpectFailure(result, 1, "64");
  EXPECT_THAT(result.err, HasSubstr("tokens"));
}

TEST(RunTest, WhatATextCommandLacksIsSaid) {
  ExpectFailure(RunTool({"run", PlainModel(), "-p", "hello"}), 1, "tokenizer");
  ExpectFailure(RunTool(Call({"-p", "hello", "--slice", "nothing"})), 1, "nothing");
  ExpectFailure(RunTool(Call({"-p", "\xff\xfe"})), 1, "UTF-8");
}

TEST(RunTest, AFullStandardOutputIsAFailure) {
  const int status = std::system(
      (Quote(NESTLING_TOOL) + " inspect " + Quote(ChatModel()) + " > /dev/full 2> /dev/null")
          .c_str());
  EXPECT_EQ(WEXITSTATUS(status), 1);
}

}  // namespace
}  // namespace nestling::testing
