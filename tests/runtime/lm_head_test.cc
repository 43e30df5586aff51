// SPDX-License-Identifier: Apache-2.0
#include "runtime/lm_head.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "graph/graph_context.h"
#include "runtime/session.h"
#include "sampling/sampler.h"
#include "tests/runtime/replies.h"
#include "tests/support/tiny_model.h"

namespace nestling {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInf = std::numeric_limits<float>::infinity();

// An output head with logits of our choice: the first input alone is not zero, each output's weight
// of it is 1, and the outputs' scales, which may be any numbers, make the logits.
class ChosenHead {
 public:
  ChosenHead(const std::vector<float>& logits, float softcap, size_t threads, size_t hidden)
      : codes_(logits.size() * hidden),
        scales_(logits),
        x_(AlignedBuffer<float>::Create(hidden).value()) {
    for (size_t tile = 0; tile < logits.size() / 16; ++tile) {
      for (size_t output = 0; output < 16; ++output) codes_[tile * 16 * hidden + 4 * output] = 1;
    }
    x_[0] = 1.0f;
    config_.hidden_size = static_cast<uint32_t>(hidden);
    config_.vocab_size = static_cast<uint32_t>(logits.size());
    config_.final_logit_softcap = softcap;
    Matrix matrix;
    matrix.dtype = DType::kQ8C;
    matrix.layout = Layout::kTiled;
    matrix.out = logits.size();
    matrix.in = hidden;
    matrix.data = reinterpret_cast<const std::byte*>(codes_.data());
    matrix.data_bytes = codes_.size();
    matrix.scales = reinterpret_cast<const std::byte*>(scales_.data());
    matrix.scales_bytes = scales_.size() * sizeof(float);
    pool_ = ThreadPool::Create(threads).value();
    context_ = GraphContext::Create(*pool_).value();
    const LinearOp op[] = {{LinearWeight::All(matrix), 0}};
    block_ = LinearBlock::Create(*context_, op).value();
    head_ = LmHead::Create(*block_, *pool_, config_).value();
  }

  std::vector<float> Row() {
    const auto row = *head_->Logits(x_.data(), 1);
    return {row.begin(), row.end()};
  }
  Candidates Find(const CandidateQuery& query, size_t limit) {
    EXPECT_TRUE(head_->has_candidates());
    return head_->FindCandidates(x_.data(), query, limit);
  }

 private:
  std::vector<int8_t> codes_;
  std::vector<float> scales_;
  AlignedBuffer<float> x_;
  TextConfig config_;
  std::unique_ptr<ThreadPool> pool_;
  std::unique_ptr<GraphContext> context_;
  std::unique_ptr<LinearBlock> block_;
  std::unique_ptr<LmHead> head_;
};

std::vector<TokenLogit> BestOf(std::span<const float> row, size_t count) {
  std::vector<TokenLogit> best;
  for (size_t id = 0; id < row.size(); ++id) {
    if (row[id] > -kInf) best.push_back({static_cast<int32_t>(id), row[id]});
  }
  std::sort(best.begin(), best.end(), BetterLogit);
  best.resize(std::min(best.size(), count));
  return best;
}

void ExpectCandidatesOfTheRow(ChosenHead& head, size_t vocab) {
  const std::vector<float> row = head.Row();
  std::mt19937 random(1);
  for (const size_t limit : {size_t{0}, size_t{1}, size_t{15}, size_t{77}, vocab - 7, vocab}) {
    const auto visible = std::span(row).first(limit);
    for (const size_t count : {size_t{1}, size_t{3}, size_t{64}, vocab + 1}) {
      std::vector<int32_t> ids;
      for (size_t i = 0; i < std::min<size_t>(count, 20) && limit != 0; ++i) {
        ids.push_back(static_cast<int32_t>(i == 0 ? limit - 1 : random() % limit));
      }
      std::sort(ids.begin(), ids.end());
      ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
      const Candidates got = head.Find({count, ids}, limit);
      std::vector<TokenLogit> best(got.best.begin(), got.best.end());
      std::sort(best.begin(), best.end(), BetterLogit);
      const std::vector<TokenLogit> want = BestOf(visible, count);
      ASSERT_EQ(best.size(), want.size()) << "limit " << limit << ", " << count << " best";
      for (size_t i = 0; i < want.size(); ++i) {
        ASSERT_EQ(best[i].id, want[i].id) << "limit " << limit << ", " << count << " best, " << i;
        ASSERT_EQ(best[i].logit, want[i].logit);
      }
      ASSERT_EQ(got.logits.size(), ids.size());
      for (size_t i = 0; i < ids.size(); ++i) {
        ASSERT_EQ(std::bit_cast<uint32_t>(got.logits[i]),
                  std::bit_cast<uint32_t>(row[static_cast<size_t>(ids[i])]))
            << ids[i];
      }
    }
  }
}

struct Case {
  const char* name;
  std::vector<float> logits;
};

constexpr size_t kVocab = 6400;

template <typename Value>
Case MakeCase(const char* name, const Value& value) {
  std::vector<float> logits(kVocab);
  for (size_t i = 0; i < kVocab; ++i) logits[i] = value(i);
  return {name, logits};
}

std::vector<Case> Cases() {
  std::mt19937 random(3);
  std::normal_distribution<float> normal(-4.0f, 6.0f);
  std::vector<Case> cases;
  cases.push_back(MakeCase("a bell curve", [&](size_t) { return normal(random); }));
  cases.push_back(MakeCase("few different ones", [&](size_t) { return float(random() % 7); }));
  cases.push_back(MakeCase("all equal", [](size_t) { return 1.5f; }));
  cases.push_back(MakeCase("zeros of both signs", [](size_t i) { return i % 3 ? 0.0f : -0.0f; }));
  cases.push_back(MakeCase("rising", [](size_t i) { return 0.001f * float(i); }));
  cases.push_back(MakeCase("falling", [](size_t i) { return -0.001f * float(i); }));
  cases.push_back(MakeCase("all below the cap's reach", [](size_t i) { return -1e9f - float(i); }));
  cases.push_back(MakeCase("the best in one worker's part", [&](size_t i) {
    return i > kVocab - 200 ? 20.0f + 0.01f * float(i % 100) : normal(random);
  }));
  // Neighbouring numbers, whose order soft-capping changes or takes away.
  const auto nearby = [](float x, size_t steps) {
    return std::bit_cast<float>(std::bit_cast<uint32_t>(x) + static_cast<uint32_t>(steps));
  };
  cases.push_back(MakeCase("ulps, rising", [&](size_t i) { return nearby(11.0f, i); }));
  cases.push_back(MakeCase("ulps, falling", [&](size_t i) { return nearby(70.0f, kVocab - i); }));
  cases.push_back(MakeCase("ulps of negative ones", [&](size_t i) { return nearby(-9.0f, i); }));
  cases.push_back(MakeCase("saturated", [](size_t i) { return 200.0f + 0.02f * float(i); }));
  cases.push_back(MakeCase("some saturated", [&](size_t i) {
    return i % 91 == 5 ? 300.0f + float(kVocab - i) : normal(random);
  }));
  cases.push_back(MakeCase("infinite", [](size_t i) { return i % 100 == 7 ? kInf : -kInf; }));
  cases.push_back(MakeCase("all -infinity", [](size_t) { return -kInf; }));
  cases.push_back(MakeCase("all NaN", [](size_t) { return kNan; }));
  cases.push_back(MakeCase("NaN between", [&](size_t i) {
    return i % 5 == 0 ? kNan : i % 7 == 0 ? -kInf : normal(random);
  }));
  return cases;
}

class LmHeadTest : public ::testing::TestWithParam<size_t> {};  // threads

TEST_P(LmHeadTest, CandidatesAreTheBestOfTheWholeRow) {
  for (const Case& one : Cases()) {
    for (const float softcap : {30.0f, 0.0f}) {
      SCOPED_TRACE(std::string(one.name) + (softcap > 0 ? ", capped" : ""));
      ChosenHead head(one.logits, softcap, GetParam(), /*hidden=*/32);
      ExpectCandidatesOfTheRow(head, kVocab);
    }
  }
}

TEST_P(LmHeadTest, BlocksMayBeSmallerThanAVectorsWorthOfCandidates) {
  // One tile of 16 outputs is a task.
  std::vector<float> logits(208);
  std::mt19937 random(4);
  for (float& logit : logits) logit = float(random() % 64);
  ChosenHead head(logits, 30.0f, GetParam(), /*hidden=*/4096);
  ExpectCandidatesOfTheRow(head, logits.size());
}

INSTANTIATE_TEST_SUITE_P(Threads, LmHeadTest, ::testing::Values(1, 2, 3));

// ---- In a session ----

testing::TinyModelOptions Model(DType embed_dtype, uint32_t vocab = 128, uint32_t ple_vocab = 96) {
  testing::TinyModelOptions model;
  model.dtype = DType::kQ8C;
  model.embed_dtype = embed_dtype;
  model.ple_dtype = DType::kQ8C;
  model.tiles = true;
  model.vocab_size = vocab;
  model.ple_vocab_size = ple_vocab;
  return model;
}

std::unique_ptr<Engine> OpenEngine(const testing::TinyModelOptions& model, uint32_t threads) {
  const testing::TemporaryPath file;
  EXPECT_TRUE(WriteTinyModel(file.path(), model).ok());
  auto engine = Engine::Create(file.path(), {.num_threads = threads});
  EXPECT_TRUE(engine.ok()) << engine.status().message();
  return std::move(engine).value();
}

const std::vector<int32_t> kPrompt = {2, 5, 9, 33, 9, 70};

std::vector<int32_t> Reply(const Engine& engine, const GenerateOptions& options) {
  const auto session = Session::Create(engine, {}).value();
  EXPECT_TRUE(session->Prefill(kPrompt).ok());
  std::vector<int32_t> ids;
  const auto result = session->Generate(options, [&](const GeneratedToken& token) {
    ids.push_back(token.id);
    return true;
  });
  EXPECT_TRUE(result.ok()) << result.status().message();
  return ids;
}

// The same reply, token by token, by a sampler that sees every logit.
std::vector<int32_t> ReplyOfRows(const Engine& engine, const GenerateOptions& options) {
  const TextConfig& config = engine.text_config();
  const auto session = Session::Create(engine, {}).value();
  const auto sampler = Sampler::Create(options.sampling, config.vocab_size).value();
  for (const int32_t id : kPrompt) sampler->Accept(id);
  EXPECT_TRUE(session->Prefill(kPrompt).ok());
  std::vector<int32_t> ids;
  while (ids.size() < options.max_tokens) {
    const int32_t id = *sampler->Sample(*session->Logits(), config.ple_vocab_size);
    sampler->Accept(id);
    ids.push_back(id);
    EXPECT_TRUE(session->Prefill(std::span(&id, 1)).ok());
  }
  return ids;
}

TEST(LmHeadSessionTest, LongRepliesAreThoseOfWholeRows) {
  std::vector<SamplingOptions> choices = {{.temperature = 0}};
  for (const uint32_t top_k : {1u, 20u, 95u, 96u, 0u}) {
    choices.push_back({.top_k = top_k, .seed = 3});
    choices.push_back(
        {.temperature = 0.6f, .top_k = top_k, .top_p = 0.9f, .min_p = 0.02f, .seed = 4});
  }
  const size_t without_penalty = choices.size();
  for (size_t i = 0; i < without_penalty; ++i) {
    choices.push_back(choices[i]);
    choices.back().repetition_penalty = i % 2 == 0 ? 1.5f : 0.8f;
    choices.back().repetition_window = i % 3 == 0 ? 4 : 64;
  }
  for (const DType dtype : {DType::kQ4B32, DType::kQ4C, DType::kQ8C, DType::kF32}) {
    for (const uint32_t threads : {1u, 2u, 3u}) {
      const auto engine = OpenEngine(Model(dtype), threads);
      for (const SamplingOptions& sampling : choices) {
        GenerateOptions options;
        options.max_tokens = 60;
        options.ignore_stop_tokens = true;
        options.sampling = sampling;
        const std::vector<int32_t> ids = Reply(*engine, options);
        EXPECT_EQ(ids.size(), 60u);
        EXPECT_EQ(ids, ReplyOfRows(*engine, options))
            << DTypeName(dtype) << ", " << threads << " threads, top_k " << sampling.top_k
            << ", temperature " << sampling.temperature << ", penalty "
            << sampling.repetition_penalty;
      }
    }
  }
}

TEST(LmHeadSessionTest, LogitsAfterAReplyAreThoseOfItsLastToken) {
  const auto engine = OpenEngine(Model(DType::kQ4B32), 2);
  const auto session = Session::Create(*engine, {}).value();
  const auto other = Session::Create(*engine, {}).value();
  ASSERT_TRUE(session->Prefill(kPrompt).ok());
  const std::vector<int32_t> ids = testing::GreedyIds(*session, 9);
  std::vector<int32_t> all = kPrompt;
  all.insert(all.end(), ids.begin(), ids.end());
  const std::span<const float> got = *session->Logits();
  const std::vector<float> rows = testing::AllLogits(*other, all);
  EXPECT_LT(testing::RelativeRms(got, std::span(rows).last(got.size())), 1e-2);
  // A row that is there is sampled from, and gives the same.
  const auto fresh = Session::Create(*engine, {}).value();
  ASSERT_TRUE(fresh->Prefill(kPrompt).ok());
  ASSERT_TRUE(fresh->Logits().ok());
  EXPECT_EQ(testing::GreedyIds(*fresh, 9), ids);
}

TEST(LmHeadSessionTest, ARowTakesMemoryOnlyWhenSomebodyAsksForIt) {
  constexpr uint32_t kWords = 1 << 16;
  constexpr uint64_t kRowBytes = kWords * sizeof(float);
  const auto engine = OpenEngine(Model(DType::kQ4B32, kWords, 4096), 2);
  const auto session = Session::Create(*engine, {}).value();
  ASSERT_TRUE(session->Prefill(kPrompt).ok());
  const auto resident = [&] {
    return engine->ResidentByGroup()[static_cast<size_t>(MemoryGroup::kLogits)];
  };
  GenerateOptions options = testing::GreedyOptions(5);
  EXPECT_EQ(testing::GreedyIds(*session, 5).size(), 5u);
  options.sampling = {.repetition_penalty = 1.1f, .top_k = 64, .top_p = 0.95f};
  ASSERT_TRUE(session->Generate(options, {}).ok());
  if (engine->ResidentByGroup()[static_cast<size_t>(MemoryGroup::kKv)] == 0) {
    GTEST_SKIP() << "the system does not say";
  }
  EXPECT_LT(resident(), kRowBytes / 4);
  ASSERT_TRUE(session->Logits().ok());
  EXPECT_GE(resident(), kRowBytes);
  EXPECT_LT(resident(), 2 * kRowBytes);
}

}  // namespace
}  // namespace nestling
