// SPDX-License-Identifier: Apache-2.0
// A sampler that sees candidates chooses as one that sees all logits.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "sampling/sampler.h"

namespace nestling {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInf = std::numeric_limits<float>::infinity();

std::unique_ptr<Sampler> Make(const SamplingOptions& options, size_t vocab_size) {
  auto sampler = Sampler::Create(options, vocab_size);
  EXPECT_TRUE(sampler.ok()) << sampler.status().message();
  return std::move(sampler).value();
}

// What a query is answered, by looking at everything; the best in no particular order.
struct Answer {
  Answer(const CandidateQuery& query, std::span<const float> logits, std::mt19937& random) {
    for (size_t id = 0; id < logits.size(); ++id) {
      if (logits[id] > -kInf) best.push_back({static_cast<int32_t>(id), logits[id]});
    }
    std::sort(best.begin(), best.end(), BetterLogit);
    best.resize(std::min(best.size(), query.num_best));
    std::shuffle(best.begin(), best.end(), random);
    for (const int32_t id : query.ids) wanted.push_back(logits[static_cast<size_t>(id)]);
  }
  Candidates view() const { return {best, wanted}; }
  std::vector<TokenLogit> best;
  std::vector<float> wanted;
};

std::vector<SamplingOptions> OptionsThatNeedCandidates() {
  std::vector<SamplingOptions> all;
  for (const float penalty : {1.0f, 1.4f, 0.6f, 1e-30f}) {
    for (const float temperature : {0.0f, 0.3f, 1.0f, 2.5f}) {
      for (const uint32_t top_k : {1u, 2u, 40u, 199u}) {
        for (const float top_p : {1.0f, 0.8f, 0.0f}) {
          for (const float min_p : {0.0f, 0.1f}) {
            all.push_back({.repetition_penalty = penalty,
                           .repetition_window = 8,
                           .temperature = temperature,
                           .top_k = top_k,
                           .top_p = top_p,
                           .min_p = min_p,
                           .seed = all.size()});
          }
        }
      }
    }
  }
  return all;
}

TEST(CandidatesTest, ASequenceOfChoicesIsThatOfAllLogits) {
  constexpr size_t kVocab = 210, kLimit = 200;
  for (const SamplingOptions& options : OptionsThatNeedCandidates()) {
    std::mt19937 random(static_cast<uint32_t>(options.seed));
    std::normal_distribution<float> normal(0.0f, 2.0f);
    const auto all = Make(options, kVocab), few = Make(options, kVocab);
    for (int step = 0; step < 40; ++step) {
      std::vector<float> logits(kVocab);
      // Halves: many are equal. Some tokens are no choice at all.
      for (float& logit : logits) logit = std::round(normal(random) * 2) / 2;
      for (int i = 0; i < 10; ++i) logits[random() % kVocab] = i % 2 == 0 ? kNan : -kInf;
      const auto query = few->Query(kLimit);
      ASSERT_TRUE(query.has_value());
      const Answer answer(*query, std::span(logits).first(kLimit), random);
      const auto want = all->Sample(logits, kLimit);
      const auto got = few->SampleCandidates(answer.view(), kLimit);
      ASSERT_TRUE(want.ok() && got.ok());
      ASSERT_EQ(*got, *want) << "seed " << options.seed << ", step " << step;
      // Recent tokens: the chosen one, one beyond the limit, one that is no choice.
      for (const int32_t id : {*want, static_cast<int32_t>(random() % kVocab), -1}) {
        all->Accept(id);
        few->Accept(id);
      }
    }
    EXPECT_EQ(few->NextUniform(), all->NextUniform());  // as many random numbers were used
  }
}

TEST(CandidatesTest, TheDistributionIsThatOfAllLogitsToTheBit) {
  std::mt19937 random(5);
  std::vector<float> logits(100);
  for (float& logit : logits) logit = static_cast<float>(random() % 1000) / 128;
  const SamplingOptions options = {.repetition_penalty = 1.2f, .top_k = 30, .top_p = 0.9f};
  const auto all = Make(options, 100), few = Make(options, 100);
  for (const int32_t id : {3, 50, 3, 99}) {
    all->Accept(id);
    few->Accept(id);
  }
  const auto query = few->Query(100);
  ASSERT_TRUE(query.has_value());
  const Answer answer(*query, logits, random);
  const auto want = *all->Distribution(logits, 100);
  const auto got = *few->CandidateDistribution(answer.view(), 100);
  ASSERT_EQ(got.size(), want.size());
  for (size_t i = 0; i < want.size(); ++i) {
    EXPECT_EQ(got[i].id, want[i].id);
    EXPECT_EQ(got[i].probability, want[i].probability);
  }
}

TEST(CandidatesTest, AQueryHasRoomForTheWindowAndNamesEachRecentTokenOnce) {
  const auto sampler = Make({.repetition_penalty = 1.1f, .repetition_window = 5, .top_k = 10}, 100);
  EXPECT_EQ(sampler->Query(100)->num_best, 15u);
  EXPECT_TRUE(sampler->Query(100)->ids.empty());
  for (const int32_t id : {1, 70, 9, 9, -4, 80, 2}) sampler->Accept(id);  // 1 and 70 are too old
  const auto query = sampler->Query(80);
  EXPECT_EQ(std::vector<int32_t>(query->ids.begin(), query->ids.end()),
            (std::vector<int32_t>{2, 9}));
  EXPECT_EQ(Make({.temperature = 0}, 100)->Query(100)->num_best, 1u);
  EXPECT_TRUE(Make({.temperature = 0}, 100)->Query(1).has_value());
}

TEST(CandidatesTest, OptionsThatNeedAllLogitsMakeNoQuery) {
  EXPECT_FALSE(Make({}, 100)->Query(100).has_value());
  EXPECT_FALSE(Make({.top_p = 0.9f, .min_p = 0.1f}, 100)->Query(100).has_value());
  // As many candidates as tokens are no longer in the order of their rank.
  EXPECT_TRUE(Make({.top_k = 99}, 100)->Query(100).has_value());
  EXPECT_FALSE(Make({.top_k = 100}, 100)->Query(100).has_value());
  EXPECT_TRUE(Make({.top_k = kMaxCandidates}, 1 << 16)->Query(1 << 16).has_value());
  EXPECT_FALSE(Make({.top_k = kMaxCandidates + 1}, 1 << 16)->Query(1 << 16).has_value());
  const SamplingOptions window = {
      .repetition_penalty = 1.1f, .repetition_window = kMaxCandidates, .temperature = 0};
  EXPECT_FALSE(Make(window, 100)->Query(100).has_value());
}

TEST(CandidatesTest, ErrorsAreThoseOfAllLogits) {
  for (const SamplingOptions& options :
       {SamplingOptions{.temperature = 0}, SamplingOptions{.top_k = 3}}) {
    const auto sampler = Make(options, 16);
    for (const std::vector<float>& logits :
         {std::vector<float>(8, -kInf), std::vector<float>(8, kNan)}) {
      ASSERT_TRUE(sampler->Query(8).has_value());
      const Status want = sampler->Sample(logits, 8).status();
      const Status got = sampler->SampleCandidates({}, 8).status();
      EXPECT_EQ(got.code(), StatusCode::kInternal);
      EXPECT_EQ(got.message(), want.message());
    }
    EXPECT_EQ(sampler->SampleCandidates({}, 0).status().message(),
              sampler->Sample(std::vector<float>(8), 0).status().message());
    EXPECT_EQ(sampler->SampleCandidates({}, 0).status().code(), StatusCode::kInvalidArgument);
  }
}

}  // namespace
}  // namespace nestling
