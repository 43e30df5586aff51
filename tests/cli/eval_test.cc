// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <string>
#include <vector>

#include "tests/cli/npy_file.h"
#include "tests/cli/tool.h"

namespace nestling::testing {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

// One thread: so small a model only loses by more.
std::vector<std::string> Eval(const std::vector<std::string>& more) {
  std::vector<std::string> call = {"eval", PlainModel(), "--threads", "1"};
  call.insert(call.end(), more.begin(), more.end());
  return call;
}

size_t VocabSize(const std::string& model) {
  return ParseOutput(RunTool({"inspect", model, "--json"}))["text"]["vocab_size"];
}

std::vector<float> Dump(const std::vector<std::string>& more, const std::string& tokens) {
  const TemporaryFolder folder;
  std::vector<std::string> call = Eval({"--tokens", tokens, "--dump", folder / "x.npy"});
  call.insert(call.end(), more.begin(), more.end());
  const ToolResult result = RunTool(call);
  EXPECT_EQ(result.exit_code, 0) << result.err;
  return ReadNpy(folder / "x.npy").values;
}

TEST(EvalTest, DumpsARowOfLogitsPerToken) {
  const TemporaryFolder folder;
  const ToolResult result =
      RunTool(Eval({"--tokens", "2,5,9,11,3", "--dump", folder / "logits.npy"}));
  EXPECT_EQ(result.exit_code, 0) << result.err;
  const size_t vocab_size = VocabSize(PlainModel());
  const Npy npy = ReadNpy(folder / "logits.npy");
  EXPECT_THAT(npy.dictionary, StartsWith("{'descr': '<f4', 'fortran_order': False, 'shape': (5, " +
                                         std::to_string(vocab_size) + "), }"));
  EXPECT_EQ((10 + npy.dictionary.size()) % 64, 0u);
  ASSERT_EQ(npy.values.size(), 5 * vocab_size);
  for (const float value : npy.values) ASSERT_LE(std::abs(value), 30.0f);  // the soft cap
}

TEST(EvalTest, TheChunkChangesNothing) {
  const std::string tokens = "2,5,9,11,3,8,13,21,34,55,60,7,6,5,4,3,2,1";
  const std::vector<float> whole = Dump({}, tokens);
  for (const char* chunk : {"1", "7", "16"}) {
    const std::vector<float> chunked = Dump({"--chunk", chunk}, tokens);
    ASSERT_EQ(chunked.size(), whole.size());
    // Sums of up to 128 products in another order, through 10 layers.
    for (size_t i = 0; i < whole.size(); ++i) ASSERT_NEAR(chunked[i], whole[i], 1e-3) << chunk;
  }
}

TEST(EvalTest, ReadsTokensFromAFileOfAnyLayout) {
  const TemporaryFolder folder;
  std::ofstream(folder / "tokens.txt") << "2 5,9\n11,\n 3\n";
  EXPECT_EQ(Dump({}, folder / "tokens.txt"), Dump({}, "2,5,9,11,3"));
}

TEST(EvalTest, GreedyIsTheArgmaxOfTheLogitsTokenByToken) {
  const nlohmann::json ids = ParseOutput(RunTool(Eval({"--tokens", "2,5,9", "--greedy", "6"})));
  ASSERT_EQ(ids.size(), 6u);
  const size_t vocab_size = VocabSize(PlainModel());
  std::string tokens = "2,5,9";
  for (const nlohmann::json& id : ids) tokens.append(",").append(id.dump());
  const std::vector<float> logits = Dump({}, tokens);
  ASSERT_EQ(logits.size(), 9 * vocab_size);
  const size_t ple_vocab_size =
      ParseOutput(RunTool({"inspect", PlainModel(), "--json"}))["text"]["ple_vocab_size"];
  for (size_t i = 0; i < 6; ++i) {
    const float* row = logits.data() + (2 + i) * vocab_size;
    EXPECT_EQ(std::max_element(row, row + ple_vocab_size) - row, ids[i].get<int>()) << i;
  }
}

TEST(EvalTest, DumpAndGreedyGoTogether) {
  const TemporaryFolder folder;
  const nlohmann::json both = ParseOutput(
      RunTool(Eval({"--tokens", "2,5,9", "--greedy", "4", "--dump", folder / "x.npy"})));
  EXPECT_EQ(both, ParseOutput(RunTool(Eval({"--tokens", "2,5,9", "--greedy", "4"}))));
  EXPECT_EQ(ReadNpy(folder / "x.npy").values, Dump({}, "2,5,9"));
}

TEST(EvalTest, PerplexityIsWhatTheLogitsSay) {
  const std::vector<int32_t> tokens = {2, 5, 9, 11, 3};
  const std::vector<float> logits = Dump({}, "2,5,9,11,3");
  const size_t vocab_size = logits.size() / tokens.size();
  double nll = 0;
  for (size_t i = 0; i + 1 < tokens.size(); ++i) {
    double sum = 0;
    for (size_t j = 0; j < vocab_size; ++j) sum += std::exp(logits[i * vocab_size + j]);
    nll += std::log(sum) - logits[i * vocab_size + static_cast<size_t>(tokens[i + 1])];
  }
  const nlohmann::json json = ParseOutput(RunTool(Eval({"--tokens", "2,5,9,11,3"})));
  EXPECT_EQ(json["tokens"], 4);
  EXPECT_NEAR(json["nll"].get<double>(), nll / 4, 1e-4);
  EXPECT_NEAR(json["ppl"].get<double>(), std::exp(nll / 4), 1e-2);
  EXPECT_EQ(json["slice"], "whole");
}

TEST(EvalTest, ATextIsCutIntoWindowsAndDocuments) {
  const TemporaryFolder folder;
  std::ofstream(folder / "text") << "hello world|hello hello|world";
  const auto score = [&](const std::vector<std::string>& more) {
    std::vector<std::string> call = {"eval", ChatModel(), "--threads",
                                     "1",    "--text",    folder / "text"};
    call.insert(call.end(), more.begin(), more.end());
    return ParseOutput(RunTool(call));
  };
  const nlohmann::json whole = score({}), small = score({"--window", "3"});
  const nlohmann::json split = score({"--split", "|"});
  EXPECT_EQ(whole["tokens"], small["tokens"]);  // every token is scored once
  EXPECT_NE(whole["nll"], small["nll"]);
  EXPECT_LT(split["tokens"], whole["tokens"]);  // the separators are gone
}

TEST(EvalTest, AModelDoesNotDivergeFromItselfAndAQuantisedOneDoesALittle) {
  const TemporaryFolder folder;
  const std::vector<std::string> call = Eval({"--tokens", "2,5,9,11,3,8,13", "--reference"});
  std::vector<std::string> itself = call, other = call;
  itself.push_back(PlainModel());
  const nlohmann::json none = ParseOutput(RunTool(itself));
  EXPECT_EQ(none["tokens"], 6);
  EXPECT_NEAR(none["mean_kl"].get<double>(), 0.0, 1e-9);
  EXPECT_EQ(none["top1_agreement"], 1.0);
  EXPECT_EQ(none["ppl"], none["reference_ppl"]);
  ASSERT_EQ(
      RunTool({"synth", "--preset", "tiny", "--quant", "q8c", "-o", folder / "q.nest"}).exit_code,
      0);
  other.push_back(folder / "q.nest");
  const nlohmann::json some = ParseOutput(RunTool(other));
  EXPECT_GT(some["mean_kl"].get<double>(), 0.0);
  EXPECT_GE(some["max_kl"].get<double>(), some["mean_kl"].get<double>());
}

TEST(EvalTest, BadTokensAreClearErrors) {
  ExpectFailure(RunTool(Eval({"--tokens", "1,2,-3"})), 1, "-3");
  ExpectFailure(RunTool(Eval({"--tokens", "1,99999999"})), 1, "99999999");
  ExpectFailure(RunTool(Eval({"--tokens", "1,99999999999"})), 1, "99999999999");
  ExpectFailure(RunTool(Eval({"--tokens", ", ,"})), 1, "no token ids");
  ExpectFailure(RunTool(Eval({"--tokens", "no_such_file"})), 1, "no_such_file");
  ExpectFailure(RunTool(Eval({"--tokens", NESTLING_SOURCE_DIR "/CMakeLists.txt"})), 1,
                "no token id");
}

TEST(EvalTest, TextNeedsATokenizer) {
  const TemporaryFolder folder;
  std::ofstream(folder / "text") << "hello";
  ExpectFailure(RunTool(Eval({"--text", folder / "text"})), 1, "tokenizer");
}

TEST(EvalTest, TooManyTokensNameBothNumbers) {
  std::string tokens = "2";
  for (int i = 0; i < 299; ++i) tokens += ",5";
  const ToolResult result =
      RunTool(Eval({"--tokens", tokens, "--greedy", "1", "--context", "200"}));
  ExpectFailure(result, 1, "300");
  EXPECT_THAT(result.err, HasSubstr("200"));
}

}  // namespace
}  // namespace nestling::testing
