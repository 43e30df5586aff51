// SPDX-License-Identifier: Apache-2.0
#include "runtime/speculative.h"

#include <gtest/gtest.h>

#include <cmath>
#include <thread>
#include <vector>

#include "model/slices.h"
#include "runtime/session.h"
#include "tests/runtime/replies.h"
#include "tests/support/tiny_model.h"

namespace nestling {
namespace {

using testing::GreedyOptions;
using testing::TemporaryPath;
using testing::TinyModelOptions;
using testing::WriteTinyModel;

// Layers 5 to 9 share keys and values: any of them may be skipped.
SliceConfig SmallSlice(const TinyModelOptions& model) {
  SliceConfig slice;
  slice.name = "small";
  slice.skip_layers = {6};
  slice.ffn.assign(model.num_layers - 1, model.shell_ends.front());
  return slice;
}

TinyModelOptions ModelWithSlices() {
  TinyModelOptions model;
  SliceConfig nearly;  // one layer is narrower: often right
  nearly.name = "nearly";
  nearly.ffn.assign(model.num_layers, model.shell_ends.back());
  nearly.ffn[8] = model.shell_ends.front();
  model.slices = {SmallSlice(model), nearly};
  return model;
}

std::unique_ptr<Engine> OpenEngine(const TinyModelOptions& model, uint32_t threads = 1) {
  const TemporaryPath file;
  EXPECT_TRUE(WriteTinyModel(file.path(), model).ok());
  EngineOptions options;
  options.num_threads = threads;
  Result<std::unique_ptr<Engine>> engine = Engine::Create(file.path(), options);
  EXPECT_TRUE(engine.ok()) << engine.status().message();
  return engine.ok() ? std::move(engine).value() : nullptr;
}

std::unique_ptr<Session> OpenSession(const Engine& engine, const SessionOptions& options = {}) {
  Result<std::unique_ptr<Session>> session = Session::Create(engine, options);
  EXPECT_TRUE(session.ok()) << session.status().message();
  return session.ok() ? std::move(session).value() : nullptr;
}

std::vector<int32_t> Prompt(size_t count, size_t salt = 0) {
  std::vector<int32_t> tokens;
  for (size_t i = 0; i < count; ++i) {
    tokens.push_back(static_cast<int32_t>((i * 37 + 11 + salt * 5) % 96));
  }
  return tokens;
}

struct Output {
  std::vector<int32_t> ids;
  GenerateResult result;
};

Output Generate(Session& session, const GenerateOptions& options) {
  Output output;
  const Result<GenerateResult> result = session.Generate(options, [&](const GeneratedToken& token) {
    if (token.id >= 0) output.ids.push_back(token.id);
    return true;
  });
  EXPECT_TRUE(result.ok()) << result.status().message();
  if (result.ok()) output.result = *result;
  return output;
}

TEST(ExactTokensTest, AShortChunkGivesTheLogitsOfDecodeToTheBit) {
  // A window of several blocks of keys, and a prompt beyond it: there the blocks of a chunk's
  // tokens begin at different keys.
  for (const DType dtype : {DType::kF32, DType::kQ8C, DType::kQ4C, DType::kQ4B32}) {
    TinyModelOptions model;
    model.sliding_window = 100;
    model.dtype = model.embed_dtype = model.ple_dtype = dtype;
    const auto engine = OpenEngine(model);
    const auto chunked = OpenSession(*engine), single = OpenSession(*engine);
    const std::vector<int32_t> prompt = Prompt(130);
    ASSERT_TRUE(chunked->Prefill(prompt).ok());
    ASSERT_TRUE(single->Prefill(prompt).ok());
    size_t salt = 1;
    for (const size_t count : {2u, 5u, 9u, 16u}) {
      const std::vector<int32_t> tokens = Prompt(count, salt++);
      std::vector<std::vector<float>> rows;
      ASSERT_TRUE(chunked
                      ->PrefillWithLogits(tokens,
                                          [&](size_t, std::span<const float> logits) {
                                            rows.emplace_back(logits.begin(), logits.end());
                                            return OkStatus();
                                          })
                      .ok());
      for (size_t i = 0; i < count; ++i) {
        ASSERT_TRUE(single->Prefill(std::span(tokens).subspan(i, 1)).ok());
        const std::span<const float> logits = *single->Logits();
        EXPECT_EQ(rows[i], std::vector<float>(logits.begin(), logits.end()))
            << DTypeName(dtype) << ", token " << i << " of " << count;
      }
    }
  }
}

TEST(SpeculativeTest, GreedyTokensAreThoseOfPlainDecoding) {
  for (const DType dtype : {DType::kF32, DType::kQ4B32}) {
    TinyModelOptions model = ModelWithSlices();
    model.dtype = model.embed_dtype = model.ple_dtype = dtype;
    const auto engine = OpenEngine(model);
    for (const char* draft : {"small", "nearly", "whole"}) {
      for (const uint32_t num_drafts : {1u, 4u, 15u}) {
        const auto plain = OpenSession(*engine), drafted = OpenSession(*engine);
        ASSERT_TRUE(plain->Prefill(Prompt(5)).ok());
        ASSERT_TRUE(drafted->Prefill(Prompt(5)).ok());
        GenerateOptions options = GreedyOptions(80);
        const Output want = Generate(*plain, options);
        options.draft_slice = draft;
        options.draft_tokens = num_drafts;
        const Output got = Generate(*drafted, options);
        EXPECT_EQ(got.ids, want.ids) << draft << ", " << num_drafts;
        EXPECT_EQ(got.result.num_tokens, 80u);
        EXPECT_GT(got.result.num_drafted, 0u);
        if (std::string(draft) == kWholeModel) {
          EXPECT_EQ(got.result.num_accepted, got.result.num_drafted);
        }
        EXPECT_EQ(drafted->slice().name, kWholeModel);
        // The cache is as decode leaves it: the next logits are the same to the bit.
        const std::span<const float> a = *plain->Logits(), b = *drafted->Logits();
        EXPECT_TRUE(std::equal(a.begin(), a.end(), b.begin(), b.end()));
      }
    }
  }
}

TEST(SpeculativeTest, EqualLogitsGoToTheSameToken) {
  // Rows of the embedding in pairs would be needed for ties in a model; the rule sees logits only.
  SamplingOptions options;
  options.temperature = 0;
  auto speculation = Speculation::Create(options, 4, 4, 2);
  ASSERT_TRUE(speculation.ok());
  auto sampler = Sampler::Create(options, 4);
  ASSERT_TRUE(sampler.ok());
  const std::vector<float> tie = {1, 3, 3, 0}, other = {1, 2, 3, 0};
  (*speculation)->Begin(0, 2, **sampler);
  ASSERT_TRUE((*speculation)->Draft(tie).ok());
  ASSERT_TRUE((*speculation)->Draft(other).ok());
  ASSERT_TRUE((*speculation)->Judge(tie, **sampler).ok());
  EXPECT_FALSE((*speculation)->done());
  ASSERT_TRUE((*speculation)->Judge(tie, **sampler).ok());
  EXPECT_TRUE((*speculation)->done());
  EXPECT_EQ(std::vector<int32_t>((*speculation)->tokens().begin(), (*speculation)->tokens().end()),
            (std::vector<int32_t>{1, 1}));
  EXPECT_EQ((*speculation)->num_accepted(), 1u);
}

TEST(SpeculativeTest, RepetitionPenaltyAndStopsActAsInPlainDecoding) {
  const auto engine = OpenEngine(ModelWithSlices());
  GenerateOptions options = GreedyOptions(60);
  options.sampling.repetition_penalty = 1.3f;
  options.sampling.repetition_window = 16;
  const auto run = [&](const std::string& draft) {
    const auto session = OpenSession(*engine);
    EXPECT_TRUE(session->Prefill(Prompt(9)).ok());
    options.draft_slice = draft;
    Output output = Generate(*session, options);
    EXPECT_EQ(session->num_tokens(), 9 + output.result.num_tokens);
    // What follows a stop follows from the same history.
    const Output more = Generate(*session, GreedyOptions(5));
    output.ids.insert(output.ids.end(), more.ids.begin(), more.ids.end());
    return output;
  };
  const Output want = run("");
  EXPECT_EQ(run("small").ids, want.ids);
  // A token from the middle becomes a stop token: drafts behind it are forgotten.
  options.ignore_stop_tokens = false;
  options.stop_tokens = {want.ids[23]};
  const Output stopped = run("");
  EXPECT_EQ(stopped.result.reason, StopReason::kStopToken);
  const Output drafted = run("nearly");
  EXPECT_EQ(drafted.result.reason, StopReason::kStopToken);
  EXPECT_EQ(drafted.result.num_tokens, stopped.result.num_tokens);
  EXPECT_EQ(drafted.ids, stopped.ids);
}

TEST(SpeculativeTest, TheEndOfTheContextIsReachedExactly) {
  const auto engine = OpenEngine(ModelWithSlices());
  SessionOptions session_options;
  session_options.context_tokens = 30;
  session_options.chunk_tokens = 6;
  GenerateOptions options = GreedyOptions(0);
  const auto plain = OpenSession(*engine, session_options);
  const auto drafted = OpenSession(*engine, session_options);
  ASSERT_TRUE(plain->Prefill(Prompt(7)).ok());
  ASSERT_TRUE(drafted->Prefill(Prompt(7)).ok());
  const Output want = Generate(*plain, options);
  options.draft_slice = "nearly";
  options.draft_tokens = 15;  // more than the chunk has room for
  const Output got = Generate(*drafted, options);
  EXPECT_EQ(got.result.reason, StopReason::kContextFull);
  EXPECT_EQ(got.result.num_tokens, 23u);
  EXPECT_EQ(got.ids, want.ids);
}

TEST(SpeculativeTest, CancelAndCallbackKeepTheTokensThatWereShown) {
  const auto engine = OpenEngine(ModelWithSlices());
  const auto plain = OpenSession(*engine);
  ASSERT_TRUE(plain->Prefill(Prompt(5)).ok());
  const Output want = Generate(*plain, GreedyOptions(30));
  for (const bool cancel : {true, false}) {
    const auto session = OpenSession(*engine);
    ASSERT_TRUE(session->Prefill(Prompt(5)).ok());
    GenerateOptions options = GreedyOptions(30);
    options.draft_slice = "whole";  // every round has several tokens
    std::vector<int32_t> ids;
    for (const size_t stop : {3u, 8u, 30u}) {
      options.max_tokens = static_cast<uint32_t>(30 - ids.size());
      const auto result = session->Generate(options, [&](const GeneratedToken& token) {
        ids.push_back(token.id);
        EXPECT_EQ(session->num_tokens(), 5 + ids.size());
        if (ids.size() != stop) return true;
        if (cancel) session->Cancel();
        return cancel;
      });
      ASSERT_TRUE(result.ok());
      EXPECT_EQ(ids.size(), stop);
      if (stop != 30) {
        EXPECT_EQ(result->reason, cancel ? StopReason::kCancelled : StopReason::kCallback);
      }
    }
    EXPECT_EQ(ids, want.ids);
  }
}

TEST(SpeculativeTest, DraftsThatTookOldPositionsCountForTruncation) {
  const auto engine = OpenEngine(ModelWithSlices());
  SessionOptions options;
  options.chunk_tokens = 8;  // rings of 16 positions
  const auto session = OpenSession(*engine, options);
  ASSERT_TRUE(session->Prefill(Prompt(40)).ok());
  // Back to 36: what is written again later does not bring the positions before 24 back.
  ASSERT_TRUE(session->Truncate(36).ok());
  EXPECT_EQ(session->Truncate(30).code(), StatusCode::kFailedPrecondition);
  ASSERT_TRUE(session->Truncate(33).ok());
  const auto fresh = OpenSession(*engine, options);
  ASSERT_TRUE(fresh->Prefill(std::span<const int32_t>(Prompt(40)).first(33)).ok());
  GenerateOptions greedy = GreedyOptions(12);
  const Output want = Generate(*fresh, greedy);
  greedy.draft_slice = "small";
  EXPECT_EQ(Generate(*session, greedy).ids, want.ids);
}

TEST(SpeculativeTest, WrongOptionsAreRefused) {
  const auto engine = OpenEngine(ModelWithSlices());
  SessionOptions one;
  one.chunk_tokens = 1;
  const auto narrow = OpenSession(*engine, one), session = OpenSession(*engine);
  ASSERT_TRUE(narrow->Prefill(Prompt(3)).ok());
  ASSERT_TRUE(session->Prefill(Prompt(3)).ok());
  GenerateOptions options = GreedyOptions(5);
  options.draft_slice = "small";
  EXPECT_EQ(narrow->Generate(options, {}).status().code(), StatusCode::kInvalidArgument);
  options.draft_tokens = 16;
  EXPECT_EQ(session->Generate(options, {}).status().code(), StatusCode::kInvalidArgument);
  options.draft_tokens = 2;
  options.draft_slice = "E9B";
  EXPECT_EQ(session->Generate(options, {}).status().code(), StatusCode::kNotFound);
  EXPECT_EQ(session->num_tokens(), 3u);
}

// ---- The distribution ----

// Pearson's statistic of `counts` against probabilities; cells that expect fewer than five go
// together. Its excess over the degrees of freedom, in standard deviations.
double ChiSquareExcess(const std::vector<double>& counts,
                       const std::vector<double>& probabilities) {
  double total = 0;
  for (const double count : counts) total += count;
  double statistic = 0, cells = 0, rest_count = 0, rest_expected = 0;
  const auto add = [&](double count, double expected) {
    statistic += (count - expected) * (count - expected) / expected;
    ++cells;
  };
  for (size_t i = 0; i < counts.size(); ++i) {
    const double expected = probabilities[i] * total;
    if (expected >= 5) {
      add(counts[i], expected);
    } else {
      rest_count += counts[i];
      rest_expected += expected;
    }
  }
  if (rest_expected >= 5) add(rest_count, rest_expected);
  return (statistic - (cells - 1)) / std::sqrt(2 * (cells - 1));
}

std::vector<double> Dense(std::span<const TokenProbability> distribution, size_t vocab) {
  std::vector<double> dense(vocab);
  for (const TokenProbability& candidate : distribution) {
    dense[static_cast<size_t>(candidate.id)] = candidate.probability;
  }
  return dense;
}

// Fixed seeds: the outcome is the same every time. Four standard deviations of chi-square leave out
// what one in a thousand correct implementations does at most.
constexpr double kMostExcess = 4.0;

TEST(SpeculativeTest, TheRuleDrawsFromTheJudgesDistribution) {
  // The draft likes other tokens than the judge: most drafts are rejected.
  const std::vector<float> draft = {2.0f, 1.0f, 0.0f, -1.0f, 0.5f, 0.1f, -2.0f, 1.5f};
  const std::vector<float> judge = {-1.0f, 1.2f, 0.7f, 1.9f, 0.5f, 0.0f, 0.3f, -0.5f};
  for (const uint32_t top_k : {0u, 5u}) {
    std::vector<double> first(8), second(8);
    double seconds = 0, accepted = 0;
    constexpr int kRounds = 40000;
    SamplingOptions options;
    options.top_k = top_k;
    options.seed = 7;
    auto speculation = Speculation::Create(options, 8, 8, 2);
    auto sampler = Sampler::Create(options, 8);
    ASSERT_TRUE(speculation.ok() && sampler.ok());
    for (int round = 0; round < kRounds; ++round) {
      (*speculation)->Begin(0, 2, **sampler);
      while ((*speculation)->wants_draft()) ASSERT_TRUE((*speculation)->Draft(draft).ok());
      while (!(*speculation)->done()) ASSERT_TRUE((*speculation)->Judge(judge, **sampler).ok());
      const std::span<const int32_t> tokens = (*speculation)->tokens();
      ++first[static_cast<size_t>(tokens[0])];
      if (tokens.size() > 1) {
        ++second[static_cast<size_t>(tokens[1])];
        ++seconds;
      }
      accepted += static_cast<double>(tokens.size() - 1);
    }
    const auto p = Dense(*(*sampler)->Distribution(judge, 8), 8);
    EXPECT_LT(ChiSquareExcess(first, p), kMostExcess);
    EXPECT_LT(ChiSquareExcess(second, p), kMostExcess);
    EXPECT_GT(accepted, 0.1 * kRounds);
    EXPECT_GT(static_cast<double>((*speculation)->num_drafted()), accepted);
    // The test can fail: the draft's own distribution is far away.
    const auto q = Dense(*(*sampler)->Distribution(draft, 8), 8);
    EXPECT_GT(ChiSquareExcess(first, q), 100);
  }
}

TEST(SpeculativeTest, SampledTokensOfAModelKeepTheirDistribution) {
  TinyModelOptions model;
  model.vocab_size = model.ple_vocab_size = 16;
  model.slices = {SmallSlice(model)};
  const auto engine = OpenEngine(model);
  const std::vector<int32_t> prompt = {2, 5, 9, 11};
  GenerateOptions options;
  options.max_tokens = 3;
  options.ignore_stop_tokens = true;
  options.sampling.top_p = 0.95f;
  auto sampler = Sampler::Create(options.sampling, 16);
  ASSERT_TRUE(sampler.ok());

  // What the tokens' distributions are: of the second one (the first that is drafted) and the
  // third, exactly, over all paths.
  const auto exact = OpenSession(*engine);
  std::vector<double> second(16), third(16);
  const auto after = [&](std::vector<int32_t> tokens) {
    exact->Reset();
    EXPECT_TRUE(exact->Prefill(tokens).ok());
    return Dense(*(*sampler)->Distribution(*exact->Logits(), 16), 16);
  };
  const auto with = [&](std::vector<int32_t> tokens, int32_t next) {
    tokens.push_back(next);
    return tokens;
  };
  const std::vector<double> p1 = after(prompt);
  for (int32_t a = 0; a < 16; ++a) {
    if (p1[static_cast<size_t>(a)] == 0) continue;
    const std::vector<double> p2 = after(with(prompt, a));
    for (int32_t b = 0; b < 16; ++b) {
      const double path = p1[static_cast<size_t>(a)] * p2[static_cast<size_t>(b)];
      second[static_cast<size_t>(b)] += path;
      if (path == 0) continue;
      const std::vector<double> p3 = after(with(with(prompt, a), b));
      for (size_t c = 0; c < 16; ++c) third[c] += path * p3[c];
    }
  }

  const auto session = OpenSession(*engine);
  options.draft_slice = "small";
  options.draft_tokens = 2;
  std::vector<double> counts[3];
  for (std::vector<double>& count : counts) count.resize(16);
  uint64_t drafted = 0, accepted = 0;
  for (uint64_t seed = 1; seed <= 3000; ++seed) {
    session->Reset();
    ASSERT_TRUE(session->Prefill(prompt).ok());
    options.sampling.seed = seed;
    const Output output = Generate(*session, options);
    ASSERT_EQ(output.ids.size(), 3u);
    for (size_t i = 0; i < 3; ++i) ++counts[i][static_cast<size_t>(output.ids[i])];
    drafted += output.result.num_drafted;
    accepted += output.result.num_accepted;
  }
  EXPECT_LT(ChiSquareExcess(counts[0], p1), kMostExcess);
  EXPECT_LT(ChiSquareExcess(counts[1], second), kMostExcess);
  EXPECT_LT(ChiSquareExcess(counts[2], third), kMostExcess);
  EXPECT_GT(accepted, drafted / 10);  // both ways are taken
  EXPECT_LT(accepted, drafted);
  EXPECT_EQ(session->counters().draft_tokens, drafted);
  EXPECT_EQ(session->counters().accepted_tokens, accepted);
}

}  // namespace
}  // namespace nestling
