// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <stdexcept>
#include <string>
#include <vector>

#include "nestling/nestling.hpp"
#include "tests/support/temporary_folder.h"

namespace {

using nestling::Engine;
using nestling::Error;
using nestling::GenerateOptions;
using nestling::Role;
using nestling::Session;
using nestling::Token;
using nestling::testing::TemporaryFolder;
using testing::HasSubstr;

constexpr const char* kChatModel = NESTLING_MODELS "/chat.nest";

// So small a model only loses by more.
const nestling::EngineOptions kOneThread = [] {
  nestling::EngineOptions options;
  options.num_threads = 1;
  return options;
}();

// Short, and the same for every run.
GenerateOptions ShortGreedy(uint32_t num_tokens) {
  GenerateOptions options;
  options.max_tokens = num_tokens;
  options.sampling = NESTLING_SAMPLING_GREEDY;
  options.ignore_stop_tokens = true;
  return options;
}

TEST(WrapperTest, ThrowsTheStatusAndTheMessageOfAFailedCall) {
  try {
    const Engine engine("no/such/file.nest");
    FAIL() << "opened a file that does not exist";
  } catch (const Error& error) {
    EXPECT_EQ(error.status(), NESTLING_NOT_FOUND);
    EXPECT_THAT(error.what(), HasSubstr("no/such/file.nest"));
  }
}

TEST(WrapperTest, PreparedModelIsNotPackedAgain) {
  const TemporaryFolder folder;
  uint64_t last = 0, total = 0;
  nestling::PrepareOptions prepare;
  prepare.cache_dir = folder.path();
  prepare.num_threads = 1;
  nestling::Prepare(kChatModel, prepare, [&](uint64_t done, uint64_t all) {
    last = done;
    total = all;
  });
  EXPECT_EQ(last, total);
  EXPECT_GT(total, 0u);
  nestling::EngineOptions options = kOneThread;
  options.cache_dir = folder.path();
  const Engine prepared(kChatModel, options), packed(kChatModel, kOneThread);
  EXPECT_EQ(prepared.Packed(NESTLING_PACKED_DECODER).state, NESTLING_PACKED_USED);
  EXPECT_EQ(prepared.Packed(NESTLING_PACKED_DECODER).anonymous_bytes, 0u);
  EXPECT_GT(prepared.Packed(NESTLING_PACKED_DECODER).mapped_bytes, 0u);
  EXPECT_EQ(packed.Packed(NESTLING_PACKED_DECODER).state, NESTLING_PACKED_NONE);
  EXPECT_GT(packed.Packed(NESTLING_PACKED_DECODER).anonymous_bytes, 0u);
  EXPECT_EQ(packed.Packed(NESTLING_PACKED_VISION).state, NESTLING_PACKED_NONE);
  EXPECT_THROW(packed.Packed(3), Error);
}

TEST(WrapperTest, ModelPreparedInPlaceHoldsItsPackedWeights) {
  const TemporaryFolder folder;
  const std::string model = folder / "model.nest";
  uint64_t last = 0, total = 0;
  nestling::PrepareOptions prepare;
  prepare.in_place = true;
  prepare.output = model;
  prepare.num_threads = 1;
  EXPECT_EQ(nestling::Prepare(kChatModel, prepare,
                              [&](uint64_t done, uint64_t all) {
                                EXPECT_GE(done, last);
                                last = done;
                                total = all;
                              }),
            NESTLING_PREPARE_DONE);
  EXPECT_EQ(last, total);
  EXPECT_GT(total, 0u);
  prepare.output = "";
  EXPECT_EQ(nestling::Prepare(model, prepare), NESTLING_PREPARE_ALREADY);
  const Engine packed(kChatModel, kOneThread), held(model, kOneThread);
  EXPECT_EQ(held.Packed(NESTLING_PACKED_DECODER).state, NESTLING_PACKED_HELD);
  EXPECT_EQ(held.Packed(NESTLING_PACKED_DECODER).anonymous_bytes, 0u);
  EXPECT_EQ(held.Memory().packed_weight_bytes, 0u);
  EXPECT_GE(held.Memory().mapped_bytes, held.Packed(NESTLING_PACKED_DECODER).mapped_bytes);
  std::string replies[2];
  for (const Engine* engine : {&packed, &held}) {
    Session session(*engine);
    session.AddMessage(Role::kUser, "hello");
    session.Generate(ShortGreedy(12), [&](const Token& token) {
      replies[engine == &held] += token.text;
      return true;
    });
  }
  EXPECT_EQ(replies[0], replies[1]);
  EXPECT_THAT(nestling::Inspect(model), HasSubstr("\"cpu\""));

  prepare.slice = "half";
  EXPECT_THROW(nestling::Prepare(model, prepare), Error);
  prepare.slice = "";
  prepare.cache_dir = folder.path();
  EXPECT_THROW(nestling::Prepare(model, prepare), Error);
  prepare.in_place = false;
  prepare.output = folder / "other.nest";
  EXPECT_THROW(nestling::Prepare(model, prepare), Error);
}

TEST(WrapperTest, FolderThatCannotBeWrittenIsAnErrorOfPrepareOnly) {
  nestling::PrepareOptions prepare;
  prepare.cache_dir = "/dev/null/folder";
  prepare.num_threads = 1;
  EXPECT_THROW(nestling::Prepare(kChatModel, prepare), Error);
  nestling::EngineOptions options = kOneThread;
  options.cache_dir = prepare.cache_dir;
  const Engine engine(kChatModel, options);
  const nestling_packed_info info = engine.Packed(NESTLING_PACKED_DECODER);
  EXPECT_EQ(info.state, NESTLING_PACKED_FAILED);
  EXPECT_THAT(info.note, HasSubstr("/dev/null/folder"));
}

TEST(WrapperTest, TextGoesToTokensAndBack) {
  const Engine engine(kChatModel, kOneThread);
  const std::vector<int32_t> tokens = engine.Tokenize("hello world", NESTLING_TOKENIZE_ADD_BOS);
  EXPECT_EQ(tokens.front(), engine.Info().bos_token);
  EXPECT_EQ(engine.CountTokens("hello world", NESTLING_TOKENIZE_ADD_BOS), tokens.size());
  EXPECT_EQ(engine.Detokenize(tokens), "hello world");
  EXPECT_EQ(engine.Detokenize(tokens, /*show_special=*/true), "<bos>hello world");
  EXPECT_EQ(engine.Detokenize({}), "");
  EXPECT_EQ(engine.TokenPiece(engine.Info().bos_token), "<bos>");
  EXPECT_TRUE(engine.Tokenize("").empty());
}

TEST(WrapperTest, AReplyIsTheSameWhetherStreamedOrWhole) {
  const Engine engine(kChatModel, kOneThread);
  Session session(engine);
  session.AddMessage(Role::kUser, "hello");
  std::string streamed;
  const nestling_generate_result result =
      session.Generate(ShortGreedy(12), [&](const Token& token) {
        streamed += token.text;
        return true;
      });
  EXPECT_EQ(result.stop_reason, NESTLING_STOP_MAX_TOKENS);
  EXPECT_EQ(result.num_tokens, 12u);
  session.Reset();
  session.AddMessage(Role::kUser, "hello");
  EXPECT_EQ(session.GenerateText(ShortGreedy(12)), streamed);
}

TEST(WrapperTest, ACallbacksExceptionReachesTheCallerAndLeavesTheSessionUsable) {
  const Engine engine(kChatModel, kOneThread);
  Session session(engine);
  session.Prefill(engine.Tokenize("hello"));
  EXPECT_THROW(session.Generate(ShortGreedy(8),
                                [](const Token&) -> bool { throw std::out_of_range("mine"); }),
               std::out_of_range);
  const std::vector<int32_t> tokens = engine.Tokenize("world");
  EXPECT_THROW(
      session.Eval(tokens,
                   [](size_t, std::span<const float>) -> bool { throw std::out_of_range("mine"); }),
      std::out_of_range);
  EXPECT_EQ(session.Generate(ShortGreedy(3)).num_tokens, 3u);
}

TEST(WrapperTest, EvalShowsARowPerTokenAndTheLastOneIsWhatSamplingSees) {
  const Engine engine(kChatModel, kOneThread);
  Session session(engine);
  const std::vector<int32_t> tokens = engine.Tokenize("hello world");
  std::vector<float> last;
  size_t rows = 0;
  session.Eval(tokens, [&](size_t index, std::span<const float> logits) {
    EXPECT_EQ(index, rows++);
    EXPECT_EQ(logits.size(), engine.Info().vocab_size);
    last.assign(logits.begin(), logits.end());
    return true;
  });
  EXPECT_EQ(rows, tokens.size());
  EXPECT_THAT(session.Logits(), testing::ElementsAreArray(last));
}

TEST(WrapperTest, ACallbackThatDeclinesEndsEvalAsCancelled) {
  const Engine engine(kChatModel, kOneThread);
  Session session(engine);
  try {
    session.Eval(engine.Tokenize("hello"), [](size_t, std::span<const float>) { return false; });
    FAIL() << "went on";
  } catch (const Error& error) {
    EXPECT_EQ(error.status(), NESTLING_CANCELLED);
  }
}

TEST(WrapperTest, TheEngineMayGoBeforeItsSessions) {
  auto engine = std::make_unique<Engine>(kChatModel, kOneThread);
  Session session(*engine);
  session.Prefill(engine->Tokenize("hello"));
  engine.reset();
  EXPECT_EQ(session.Generate(ShortGreedy(2)).num_tokens, 2u);
}

TEST(WrapperTest, SlicesAreListedAndSwitched) {
  const Engine engine(kChatModel, kOneThread);
  const std::vector<nestling_slice_info> slices = engine.Slices();
  ASSERT_EQ(slices.size(), 1u);
  EXPECT_STREQ(slices[0].name, "half");
  EXPECT_EQ(slices[0].published_accuracy, 12.5f);
  Session session(engine);
  EXPECT_STREQ(session.Info().slice, "whole");
  session.SetSlice("half");
  EXPECT_STREQ(session.Info().slice, "half");
  EXPECT_THROW(session.SetSlice("quarter"), Error);
  EXPECT_STREQ(session.Info().slice, "half");
}

TEST(WrapperTest, StopStringsEndTheTextBeforeThem) {
  const Engine engine(kChatModel, kOneThread);
  Session session(engine);
  session.AddMessage(Role::kUser, "hello");
  const std::string whole = session.GenerateText(ShortGreedy(40));
  ASSERT_GT(whole.size(), 8u);
  GenerateOptions options = ShortGreedy(40);
  // A random reply holds U+FFFD too: half of one would be no stop string.
  const size_t at = whole.find_first_of("abcdefghijklmnopqrstuvwxyz", 1);
  ASSERT_NE(at, std::string::npos);
  options.stop_strings = {whole.substr(at, 1)};
  session.Reset();
  session.AddMessage(Role::kUser, "hello");
  EXPECT_EQ(session.GenerateText(options), whole.substr(0, whole.find(options.stop_strings[0])));
}

TEST(WrapperTest, TheSameSeedGivesTheSameReplyAndIsReported) {
  const Engine engine(kChatModel, kOneThread);
  GenerateOptions options;
  options.max_tokens = 16;
  options.sampling = NESTLING_SAMPLING_RANDOM;
  options.temperature = 5.0f;
  const auto run = [&](uint64_t seed, std::string* text) {
    Session session(engine);
    session.Prefill(engine.Tokenize("hello"));
    options.seed = seed;
    const auto result = session.Generate(options, [text](const Token& token) {
      *text += token.text;
      return true;
    });
    return result.seed;
  };
  std::string first, second, again;
  const uint64_t seed = run(0, &first);
  EXPECT_NE(run(0, &second), seed);
  EXPECT_NE(second, first);
  EXPECT_EQ(run(seed, &again), seed);
  EXPECT_EQ(again, first);
}

TEST(WrapperTest, ContainersAreInspectedAndVerified) {
  EXPECT_THAT(nestling::Inspect(kChatModel), HasSubstr("\"half\""));
  uint64_t last_done = 0, last_total = 1;
  nestling::Verify(kChatModel, [&](uint64_t done, uint64_t total) {
    last_done = done;
    last_total = total;
  });
  EXPECT_EQ(last_done, last_total);
  EXPECT_THROW(
      nestling::Verify(kChatModel, [](uint64_t, uint64_t) { throw std::out_of_range("mine"); }),
      std::out_of_range);
}

}  // namespace
