// SPDX-License-Identifier: Apache-2.0
// How the tool is called: exit codes, error lines, and the commands that do not run a model.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "tests/cli/tool.h"

namespace nestling::testing {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

TEST(CommandLineTest, HelpAndVersionAreSuccesses) {
  const ToolResult help = RunTool({"--help"});
  EXPECT_EQ(help.exit_code, 0);
  for (const char* command : {"run", "pack", "synth", "inspect", "verify", "bench", "eval"}) {
    EXPECT_THAT(help.out, HasSubstr(command));
    const ToolResult own = RunTool({command, "--help"});
    EXPECT_EQ(own.exit_code, 0);
    EXPECT_THAT(own.out, HasSubstr("--"));
  }
  EXPECT_EQ(RunTool({"--version"}).exit_code, 0);
}

TEST(CommandLineTest, AWrongCallIsExitCodeTwoAndOneLine) {
  ExpectFailure(RunTool({}), 2, "subcommand");
  ExpectFailure(RunTool({"fly"}), 2, "fly");
  ExpectFailure(RunTool({"verify"}), 2, "model");
  ExpectFailure(RunTool({"inspect", "a.nest", "--flag"}), 2, "--flag");
  ExpectFailure(RunTool({"pack", "folder"}), 2, "--output");
  ExpectFailure(RunTool({"pack", "folder", "-o", "x.nest", "--quant", "q2"}), 2, "q2");
  ExpectFailure(RunTool({"synth", "--preset", "e9b", "-o", "x.nest"}), 2, "e9b");
  ExpectFailure(RunTool({"run", "x.nest", "-p", "a", "--top-p", "1.5"}), 2, "1.5");
  ExpectFailure(RunTool({"run", "x.nest", "-p", "a", "--max-tokens", "many"}), 2, "many");
  ExpectFailure(RunTool({"run", "x.nest", "-p", "a", "--kv", "f64"}), 2, "f64");
  ExpectFailure(RunTool({"bench", "x.nest", "-o", "xml"}), 2, "xml");
  ExpectFailure(RunTool({"bench", "x.nest", "--cpu-mask", "0xg"}), 2, "0xg");
  ExpectFailure(RunTool({"eval", "x.nest"}), 2, "--tokens");
  ExpectFailure(RunTool({"eval", "x.nest", "--text", "t", "--greedy", "3"}), 2, "--greedy");
}

TEST(CommandLineTest, AMissingModelIsExitCodeOneAndOneLineForEveryCommand) {
  for (const std::vector<std::string>& call :
       {std::vector<std::string>{"run", "no.nest", "-p", "a"},
        {"inspect", "no.nest"},
        {"verify", "no.nest"},
        {"bench", "no.nest"},
        {"eval", "no.nest", "--tokens", "1"},
        {"pack", "no.nest", "-o", "out.nest"}}) {
    ExpectFailure(RunTool(call), 1, "no.nest");
  }
}

TEST(CommandLineTest, AFileThatIsNoModelIsExitCodeOne) {
  const TemporaryFolder folder;
  std::ofstream(folder / "a.nest") << std::string(100000, 'x');
  ExpectFailure(RunTool({"verify", folder / "a.nest"}), 1, "a.nest");
  ExpectFailure(RunTool({"run", folder / "a.nest", "-p", "a"}), 1, "a.nest");
}

TEST(CommandLineTest, SynthIsReproducibleAndVerifies) {
  const TemporaryFolder folder;
  for (const char* name : {"a.nest", "b.nest"}) {
    const ToolResult result =
        RunTool({"synth", "--preset", "tiny", "--seed", "7", "-o", folder / name});
    EXPECT_EQ(result.exit_code, 0) << result.err;
    EXPECT_EQ(result.err, "");  // no progress bar without a terminal
  }
  EXPECT_EQ(ReadWholeFile(folder / "a.nest"), ReadWholeFile(folder / "b.nest"));
  EXPECT_THAT(RunTool({"verify", folder / "a.nest"}).out, HasSubstr("OK"));
}

TEST(CommandLineTest, VerifyFindsAFlippedBit) {
  const TemporaryFolder folder;
  std::filesystem::copy_file(PlainModel(), folder / "a.nest");
  std::fstream file(folder / "a.nest", std::ios::in | std::ios::out | std::ios::binary);
  file.seekg(-1, std::ios::end);
  const char last = static_cast<char>(file.peek() ^ 1);
  file.seekp(-1, std::ios::end);
  file.put(last);
  file.close();
  ExpectFailure(RunTool({"verify", folder / "a.nest"}), 1, "checksum");
}

TEST(CommandLineTest, InspectSpeaksJsonAndEnglish) {
  const nlohmann::json json = ParseOutput(RunTool({"inspect", PlainModel(), "--json"}));
  EXPECT_EQ(json["text"]["num_layers"], 10);
  const ToolResult text = RunTool({"inspect", PlainModel()});
  EXPECT_EQ(text.exit_code, 0) << text.err;
  EXPECT_THAT(text.out, StartsWith("container"));
  for (const char* part : {"TEXT", "PLE", "whole", "decoder", "sliding_attention"}) {
    EXPECT_THAT(text.out, HasSubstr(part));
  }
}

TEST(CommandLineTest, PrepareInPlaceSaysWhatItDidAndInspectForWhichCpu) {
  const TemporaryFolder folder;
  const std::string model = folder / "a.nest";
  const ToolResult made = RunTool({"prepare", PlainModel(), "--in-place", "-o", model});
  EXPECT_EQ(made.exit_code, 0) << made.err;
  EXPECT_THAT(made.out, HasSubstr("runs on CPUs like this one only"));
  const ToolResult again = RunTool({"prepare", model, "--in-place"});
  EXPECT_EQ(again.exit_code, 0) << again.err;
  EXPECT_THAT(again.out, HasSubstr("already"));
  EXPECT_EQ(RunTool({"verify", model}).exit_code, 0);
  const nlohmann::json json = ParseOutput(RunTool({"inspect", model, "--json"}));
  EXPECT_EQ(json["packed"]["text"]["compute"], "stored");
  EXPECT_NE(json["packed"]["text"]["cpu"], "");
  EXPECT_EQ(json["container"]["format_version"], "1.1");
  const nlohmann::json plain = ParseOutput(RunTool({"inspect", PlainModel(), "--json"}));
  EXPECT_TRUE(plain["packed"].empty());
  EXPECT_EQ(plain["container"]["format_version"], "1.0");
  for (const char* group : {"decoder", "embedding", "ple", "total"}) {
    EXPECT_EQ(json["parameters"][group]["parameters"], plain["parameters"][group]["parameters"]);
  }
  const ToolResult text = RunTool({"inspect", model});
  EXPECT_THAT(text.out, HasSubstr("PACKED_TEXT"));
  EXPECT_THAT(text.out, HasSubstr("cpu "));
  const nlohmann::json bench = ParseOutput(
      RunTool({"bench", model, "-p", "4", "-n", "0", "-r", "1", "--no-limits", "-o", "json"}));
  EXPECT_EQ(bench["packed_state"], "held");
  EXPECT_EQ(bench["packed_anonymous_bytes"], 0);
  EXPECT_GT(bench["packed_mapped_bytes"], 0);
  ExpectFailure(RunTool({"prepare", model, "-o", folder / "b.nest"}), 2, "--in-place");
  ExpectFailure(RunTool({"prepare", model, "--in-place", "--slice", "x"}), 1, "slice");
}

TEST(CommandLineTest, MemorySaysWhatAModelTakesAndWhereItGoes) {
  const ToolResult estimate = RunTool({"memory", PlainModel()});
  EXPECT_EQ(estimate.exit_code, 0) << estimate.err;
  EXPECT_THAT(estimate.out, HasSubstr("kv cache"));
  EXPECT_THAT(estimate.out, Not(HasSubstr("resident after")));
  const ToolResult run = RunTool({"memory", PlainModel(), "-p", "20", "-n", "5", "-t", "1"});
  EXPECT_EQ(run.exit_code, 0) << run.err;
  for (const char* part : {"resident after 20 + 5 tokens", "scratch", "code and libraries", "peak",
                           "parameters in memory", "token embedding"}) {
    EXPECT_THAT(run.out, HasSubstr(part));
  }
  const ToolResult refused =
      RunTool({"memory", PlainModel(), "-p", "5", "--memory-budget", "1000"});
  EXPECT_EQ(refused.exit_code, 1);
  EXPECT_THAT(refused.err, HasSubstr("memory_budget_bytes: 1000"));
}

TEST(CommandLineTest, AnErrorLeavesNoFileBehind) {
  const TemporaryFolder folder;
  ExpectFailure(RunTool({"pack", folder / "nothing", "-o", folder / "out.nest"}), 1, "nothing");
  ExpectFailure(RunTool({"synth", "--preset", "tiny", "-o", folder / "no/out.nest"}), 1,
                "no/out.nest");
  ExpectFailure(RunTool({"eval", PlainModel(), "--tokens", "1,999999", "--dump", folder / "x.npy"}),
                1, "999999");
  EXPECT_TRUE(std::filesystem::is_empty(folder / ""));
}

}  // namespace
}  // namespace nestling::testing
