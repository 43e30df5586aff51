// SPDX-License-Identifier: Apache-2.0
#include "runtime/session.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <thread>
#include <vector>

#include "model/slices.h"
#include "tests/support/tiny_model.h"

namespace nestling {
namespace {

using testing::TemporaryPath;
using testing::TinyModelOptions;
using testing::WriteTinyModel;

std::unique_ptr<Engine> OpenEngine(const TinyModelOptions& model, EngineOptions options = {}) {
  const TemporaryPath file;
  EXPECT_TRUE(WriteTinyModel(file.path(), model).ok());
  options.num_threads = options.num_threads != 0 ? options.num_threads : 1;
  Result<std::unique_ptr<Engine>> engine = Engine::Create(file.path(), options);
  EXPECT_TRUE(engine.ok()) << engine.status().message();
  return engine.ok() ? std::move(engine).value() : nullptr;
}

std::unique_ptr<Session> OpenSession(const Engine& engine, const SessionOptions& options = {}) {
  Result<std::unique_ptr<Session>> session = Session::Create(engine, options);
  EXPECT_TRUE(session.ok()) << session.status().message();
  return session.ok() ? std::move(session).value() : nullptr;
}

std::vector<int32_t> Tokens(size_t count) {
  std::vector<int32_t> tokens;
  for (size_t i = 0; i < count; ++i) tokens.push_back(static_cast<int32_t>((i * 37 + 11) % 96));
  return tokens;
}

std::vector<std::vector<float>> AllLogits(Session& session, std::span<const int32_t> tokens) {
  std::vector<std::vector<float>> rows;
  const Status status =
      session.PrefillWithLogits(tokens, [&](size_t index, std::span<const float> logits) {
        EXPECT_EQ(index, rows.size());
        rows.emplace_back(logits.begin(), logits.end());
        return OkStatus();
      });
  EXPECT_TRUE(status.ok()) << status.message();
  return rows;
}

std::vector<int32_t> Greedy(Session& session, uint32_t count) {
  GenerateOptions options;
  options.max_tokens = count;
  options.sampling.temperature = 0;
  options.ignore_stop_tokens = true;
  std::vector<int32_t> ids;
  const Result<GenerateResult> result = session.Generate(options, [&](const GeneratedToken& token) {
    ids.push_back(token.id);
    return true;
  });
  EXPECT_TRUE(result.ok()) << result.status().message();
  return ids;
}

float MaxDifference(std::span<const float> a, std::span<const float> b) {
  float most = 0.0f;
  for (size_t i = 0; i < a.size(); ++i) most = std::max(most, std::abs(a[i] - b[i]));
  return most;
}

// f32 sums in another order: 10 layers of sums of up to 128 terms of order 1 stay well below this.
constexpr float kOrderTolerance = 2e-4f;

TEST(SessionTest, LogitsDoNotDependOnTheChunk) {
  const auto engine = OpenEngine({});
  const std::vector<int32_t> tokens = Tokens(40);
  SessionOptions whole;
  const auto reference = AllLogits(*OpenSession(*engine, whole), tokens);
  ASSERT_EQ(reference.size(), tokens.size());
  for (const uint32_t chunk : {1u, 3u, 7u, 16u}) {
    SessionOptions options;
    options.chunk_tokens = chunk;
    const auto rows = AllLogits(*OpenSession(*engine, options), tokens);
    ASSERT_EQ(rows.size(), tokens.size());
    for (size_t i = 0; i < rows.size(); ++i) {
      EXPECT_LT(MaxDifference(rows[i], reference[i]), kOrderTolerance)
          << "chunk " << chunk << ", position " << i;
    }
  }
}

TEST(SessionTest, SkippingSharedLayersInPrefillKeepsTheLastLogits) {
  const auto engine = OpenEngine({});
  const std::vector<int32_t> tokens = Tokens(37);
  const auto reference = AllLogits(*OpenSession(*engine), tokens);
  for (const uint32_t chunk : {1u, 5u, 36u, 37u}) {
    SessionOptions options;
    options.chunk_tokens = chunk;
    const auto session = OpenSession(*engine, options);
    ASSERT_TRUE(session->Prefill(tokens).ok());
    const auto logits = session->Logits();
    ASSERT_TRUE(logits.ok());
    EXPECT_LT(MaxDifference(*logits, reference.back()), kOrderTolerance) << "chunk " << chunk;
  }
}

TEST(SessionTest, DecodeEqualsPrefillAcrossTheWindowAndTheRing) {
  // Window 8: 60 tokens wrap the ring of window + chunk positions several times.
  const auto engine = OpenEngine({});
  const std::vector<int32_t> tokens = Tokens(60);
  const auto reference = AllLogits(*OpenSession(*engine), tokens);
  SessionOptions options;
  options.chunk_tokens = 1;
  const auto session = OpenSession(*engine, options);
  for (size_t i = 0; i < tokens.size(); ++i) {
    ASSERT_TRUE(session->Prefill(std::span(tokens).subspan(i, 1)).ok());
    EXPECT_LT(MaxDifference(*session->Logits(), reference[i]), kOrderTolerance) << i;
  }
}

TEST(SessionTest, SmallerKvTypesStayCloseToF32) {
  const auto engine = OpenEngine({});
  const std::vector<int32_t> tokens = Tokens(50);
  SessionOptions options;
  options.kv = KvChoice::kF32;
  const auto reference = AllLogits(*OpenSession(*engine, options), tokens);
  struct Case {
    KvChoice kv;
    double tolerance;  // rms, relative to the logits' rms
  };
  // f16 rounds by 2^-11, int8 by 1/254 of a row's maximum (about 2.5 sigma): about 0.6 % of sigma.
  // Errors of 10 layers add in quadrature, and a softmax amplifies those of the keys.
  for (const Case& c : {Case{KvChoice::kF16, 5e-3}, Case{KvChoice::kInt8, 6e-2}}) {
    options.kv = c.kv;
    const auto rows = AllLogits(*OpenSession(*engine, options), tokens);
    double error = 0, power = 0;
    for (size_t i = 0; i < rows.size(); ++i) {
      for (size_t j = 0; j < rows[i].size(); ++j) {
        error += std::pow(rows[i][j] - reference[i][j], 2);
        power += std::pow(reference[i][j], 2);
      }
    }
    EXPECT_LT(std::sqrt(error / power), c.tolerance);
    EXPECT_GT(error, 0.0);
  }
}

TEST(SessionTest, ALongContextGrowsOnlyFullLayers) {
  TinyModelOptions model;
  model.max_position_embeddings = 32768;
  const auto engine = OpenEngine(model);
  SessionOptions options;
  options.context_tokens = 32768;
  options.chunk_tokens = 64;
  const auto session = OpenSession(*engine, options);
  // Row of one head: 16 values f32, keys and values of 2 heads: 256 bytes a position. 4 sliding
  // owners of 8 + 64 positions, 1 full owner of the whole context.
  EXPECT_EQ(session->counters().kv_bytes, 256u * (4 * 72 + 32768));
  const std::vector<int32_t> tokens = Tokens(3000);
  ASSERT_TRUE(session->Prefill(tokens).ok());
  // The same positions with another chunking agree, far beyond window and ring.
  options.chunk_tokens = 200;
  const auto other = OpenSession(*engine, options);
  ASSERT_TRUE(other->Prefill(tokens).ok());
  EXPECT_LT(MaxDifference(*session->Logits(), *other->Logits()), kOrderTolerance);
}

TEST(SessionTest, APromptLongerThanTheContextIsAnErrorWithBothNumbers) {
  const auto engine = OpenEngine({});
  SessionOptions options;
  options.context_tokens = 20;
  const auto session = OpenSession(*engine, options);
  ASSERT_TRUE(session->Prefill(Tokens(15)).ok());
  const std::vector<float> before(session->Logits()->begin(), session->Logits()->end());
  const Status status = session->Prefill(Tokens(6));
  EXPECT_EQ(status.code(), StatusCode::kContextFull);
  EXPECT_NE(status.message().find("6 tokens"), std::string::npos) << status.message();
  EXPECT_NE(status.message().find("15 of 20"), std::string::npos) << status.message();
  EXPECT_EQ(session->num_tokens(), 15u);
  EXPECT_EQ(MaxDifference(*session->Logits(), before), 0.0f);
  EXPECT_TRUE(session->Prefill(Tokens(5)).ok());
}

TEST(SessionTest, TokensOutsideTheVocabularyAreRefused) {
  const auto engine = OpenEngine({});
  const auto session = OpenSession(*engine);
  for (const int32_t bad : {-1, 128, 1 << 30}) {
    const std::vector<int32_t> tokens = {1, bad};
    EXPECT_EQ(session->Prefill(tokens).code(), StatusCode::kInvalidArgument);
  }
  EXPECT_EQ(session->num_tokens(), 0u);
}

TEST(SessionTest, AnEmptySessionHasNothingToContinue) {
  const auto engine = OpenEngine({});
  const auto session = OpenSession(*engine);
  EXPECT_EQ(session->Logits().status().code(), StatusCode::kFailedPrecondition);
  GenerateOptions options;
  EXPECT_EQ(session->Generate(options, {}).status().code(), StatusCode::kFailedPrecondition);
  EXPECT_TRUE(session->Prefill({}).ok());
}

TEST(SessionTest, GenerationStopsWhenTheContextIsFull) {
  const auto engine = OpenEngine({});
  SessionOptions options;
  options.context_tokens = 12;
  const auto session = OpenSession(*engine, options);
  ASSERT_TRUE(session->Prefill(Tokens(8)).ok());
  GenerateOptions generate;
  generate.sampling.temperature = 0;
  generate.ignore_stop_tokens = true;
  const auto result = session->Generate(generate, {});
  ASSERT_TRUE(result.ok());
  EXPECT_EQ(result->reason, StopReason::kContextFull);
  EXPECT_EQ(result->num_tokens, 4u);
  EXPECT_EQ(session->num_tokens(), 12u);
}

TEST(SessionTest, TruncatedHistoryContinuesLikeAFreshSession) {
  const auto engine = OpenEngine({});
  SessionOptions options;
  options.chunk_tokens = 32;
  const auto session = OpenSession(*engine, options);
  const std::vector<int32_t> tokens = Tokens(30);
  ASSERT_TRUE(session->Prefill(tokens).ok());
  ASSERT_TRUE(session->Truncate(21).ok());
  const auto fresh = OpenSession(*engine, options);
  ASSERT_TRUE(fresh->Prefill(std::span(tokens).first(21)).ok());
  EXPECT_LT(MaxDifference(*session->Logits(), *fresh->Logits()), kOrderTolerance);
  EXPECT_EQ(Greedy(*session, 10), Greedy(*fresh, 10));
}

TEST(SessionTest, TruncationBeyondWhatTheRingHoldsIsRefused) {
  const auto engine = OpenEngine({});
  SessionOptions options;
  options.chunk_tokens = 4;  // rings of 12 positions
  const auto session = OpenSession(*engine, options);
  ASSERT_TRUE(session->Prefill(Tokens(40)).ok());
  EXPECT_EQ(session->Truncate(20).code(), StatusCode::kFailedPrecondition);
  EXPECT_EQ(session->num_tokens(), 40u);
  EXPECT_EQ(session->Truncate(41).code(), StatusCode::kInvalidArgument);
  EXPECT_TRUE(session->Truncate(38).ok());
}

TEST(SessionTest, CancelStopsARunningGenerationAndTheSessionGoesOn) {
  const auto engine = OpenEngine({});
  const auto session = OpenSession(*engine);
  session->Cancel();  // nothing runs: no effect
  ASSERT_TRUE(session->Prefill(Tokens(5)).ok());
  GenerateOptions options;
  options.sampling.temperature = 0;
  options.ignore_stop_tokens = true;
  size_t seen = 0;
  const auto result = session->Generate(options, [&](const GeneratedToken&) {
    if (++seen == 3) session->Cancel();
    return true;
  });
  ASSERT_TRUE(result.ok());
  EXPECT_EQ(result->reason, StopReason::kCancelled);
  EXPECT_EQ(result->num_tokens, 3u);

  const auto straight = OpenSession(*engine);
  ASSERT_TRUE(straight->Prefill(Tokens(5)).ok());
  const std::vector<int32_t> all = Greedy(*straight, 8);
  EXPECT_EQ(Greedy(*session, 5), std::vector<int32_t>(all.begin() + 3, all.end()));
}

TEST(SessionTest, TheCallbackCanStopAndTheReplyCanGoOn) {
  const auto engine = OpenEngine({});
  const auto session = OpenSession(*engine);
  ASSERT_TRUE(session->Prefill(Tokens(5)).ok());
  GenerateOptions options;
  options.sampling.temperature = 0;
  options.ignore_stop_tokens = true;
  const auto result = session->Generate(options, [](const GeneratedToken&) { return false; });
  ASSERT_TRUE(result.ok());
  EXPECT_EQ(result->reason, StopReason::kCallback);
  EXPECT_EQ(session->num_tokens(), 6u);
}

TEST(SessionTest, LogitsDoNotDependOnTheNumberOfThreads) {
  const std::vector<int32_t> tokens = Tokens(20);
  const auto one = OpenEngine({}), three = OpenEngine({}, {.num_threads = 3});
  const auto want = AllLogits(*OpenSession(*one), tokens);
  const auto got = AllLogits(*OpenSession(*three), tokens);
  for (size_t i = 0; i < want.size(); ++i) EXPECT_EQ(MaxDifference(got[i], want[i]), 0.0f) << i;
}

TEST(SessionTest, SessionsOfOneEngineDoNotDisturbEachOther) {
  const auto engine = OpenEngine({}, {.num_threads = 2});
  const std::vector<int32_t> first = Tokens(20), second = Tokens(33);
  const auto alone = [&](const std::vector<int32_t>& prompt) {
    const auto session = OpenSession(*engine);
    EXPECT_TRUE(session->Prefill(prompt).ok());
    return Greedy(*session, 20);
  };
  const auto want_first = alone(first), want_second = alone(second);
  std::vector<int32_t> got_first, got_second;
  std::thread a([&] { got_first = alone(first); });
  std::thread b([&] { got_second = alone(second); });
  a.join();
  b.join();
  EXPECT_EQ(got_first, want_first);
  EXPECT_EQ(got_second, want_second);
}

TEST(SessionTest, ResetForgetsTheHistory) {
  const auto engine = OpenEngine({});
  const auto session = OpenSession(*engine);
  ASSERT_TRUE(session->Prefill(Tokens(20)).ok());
  const auto want = Greedy(*session, 6);
  session->Reset();
  EXPECT_EQ(session->num_tokens(), 0u);
  ASSERT_TRUE(session->Prefill(Tokens(20)).ok());
  EXPECT_EQ(Greedy(*session, 6), want);
}

TEST(SessionTest, WrongOptionsAreRefused) {
  const auto engine = OpenEngine({});
  SessionOptions options;
  options.context_tokens = 257;
  EXPECT_EQ(Session::Create(*engine, options).status().code(), StatusCode::kInvalidArgument);
  options = {};
  options.chunk_tokens = engine->chunk_tokens() + 1;
  EXPECT_EQ(Session::Create(*engine, options).status().code(), StatusCode::kInvalidArgument);
}

TEST(EngineTest, ATruncatedPleTableFailsTheCallAndKeepsTheSession) {
  const TemporaryPath file;
  ASSERT_TRUE(WriteTinyModel(file.path()).ok());
  auto engine = Engine::Create(file.path(), {.num_threads = 1});
  ASSERT_TRUE(engine.ok());
  const auto session = OpenSession(**engine);
  ASSERT_TRUE(session->Prefill(Tokens(4)).ok());
  // The PLE section moves beyond the end; mapped sections before it stay.
  const SectionInfo* ple = (*engine)->container().FindSection(SectionKind::kPle);
  ASSERT_NE(ple, nullptr);
  ASSERT_EQ(truncate(file.path().c_str(), static_cast<off_t>(ple->offset + 1)), 0);
  const std::vector<int32_t> others = {1, 3, 5};  // rows that no cache can have
  const Status status = session->Prefill(others);
  EXPECT_EQ(status.code(), StatusCode::kIoError) << status.message();
  EXPECT_EQ(session->num_tokens(), 4u);
}

TEST(EngineTest, UnknownSlicesAndBadFilesAreClearErrors) {
  const TemporaryPath file;
  ASSERT_TRUE(WriteTinyModel(file.path()).ok());
  EXPECT_EQ(Engine::Create(file.path(), {.num_threads = 1, .slice = "E9B"}).status().code(),
            StatusCode::kNotFound);
  EXPECT_EQ(Engine::Create(file.path() + ".absent", {}).status().code(), StatusCode::kNotFound);
}

}  // namespace
}  // namespace nestling
