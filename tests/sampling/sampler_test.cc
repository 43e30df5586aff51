// SPDX-License-Identifier: Apache-2.0
#include "sampling/sampler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <new>
#include <numeric>
#include <random>
#include <vector>

namespace {
std::atomic<size_t> allocations{0};
}  // namespace

// Counts, so that a test can say that there were none. noinline: or gcc takes the inlined malloc
// and free for mismatched with new and delete.
[[gnu::noinline]] void* operator new(size_t size) {
  ++allocations;
  if (void* memory = std::malloc(size)) return memory;
  throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, size_t) noexcept { std::free(memory); }

namespace nestling {
namespace {

using ::testing::HasSubstr;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr size_t kNoLimit = std::numeric_limits<size_t>::max();

std::unique_ptr<Sampler> Make(const SamplingOptions& options, size_t vocab_size = 16) {
  auto sampler = Sampler::Create(options, vocab_size);
  EXPECT_TRUE(sampler.ok()) << sampler.status().message();
  return std::move(sampler).value();
}

std::vector<int32_t> Ids(std::span<const TokenProbability> distribution) {
  std::vector<int32_t> ids;
  for (const TokenProbability& token : distribution) ids.push_back(token.id);
  return ids;
}

std::vector<float> Probabilities(std::span<const TokenProbability> distribution) {
  std::vector<float> probabilities;
  for (const TokenProbability& token : distribution) probabilities.push_back(token.probability);
  return probabilities;
}

// Logits with these probabilities at temperature 1.
std::vector<float> Logits(const std::vector<double>& probabilities) {
  std::vector<float> logits;
  for (const double p : probabilities) logits.push_back(static_cast<float>(std::log(p)));
  return logits;
}

std::vector<float> RandomLogits(size_t size, uint32_t seed, float deviation = 3.0f) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.0f, deviation);
  std::vector<float> logits(size);
  // Multiples of 1/16: ties happen.
  for (float& logit : logits) logit = std::round(normal(random) * 16) / 16;
  return logits;
}

MATCHER_P2(AreNear, want, tolerance, "") {
  if (arg.size() != want.size()) return false;
  for (size_t i = 0; i < want.size(); ++i) {
    if (std::abs(arg[i] - want[i]) > tolerance) return false;
  }
  return true;
}

void ExpectDistribution(const SamplingOptions& options, const std::vector<float>& logits,
                        const std::vector<int32_t>& ids, const std::vector<float>& probabilities) {
  const auto sampler = Make(options);
  const auto distribution = sampler->Distribution(logits, kNoLimit);
  ASSERT_TRUE(distribution.ok()) << distribution.status().message();
  EXPECT_EQ(Ids(*distribution), ids);
  EXPECT_THAT(Probabilities(*distribution), AreNear(probabilities, 1e-6f));
}

const std::vector<double> kProbabilities = {0.1, 0.4, 0.05, 0.25, 0.2};

TEST(SamplerTest, ChoosesTheHighestLogitWhenGreedy) {
  const auto sampler = Make({.temperature = 0.0f});
  EXPECT_EQ(*sampler->Sample(Logits(kProbabilities), kNoLimit), 1);
  EXPECT_EQ(*sampler->Sample(std::vector<float>{2, 5, 5, 1}, kNoLimit), 1);  // first of equals
  EXPECT_EQ(*sampler->Sample(std::vector<float>{-3}, kNoLimit), 0);
  const std::vector<float> logits = RandomLogits(1000, 1);
  const auto highest = std::max_element(logits.begin(), logits.end()) - logits.begin();
  EXPECT_EQ(*sampler->Sample(logits, kNoLimit), highest);
  EXPECT_EQ(Probabilities(*sampler->Distribution(logits, kNoLimit)), std::vector<float>{1.0f});
}

TEST(SamplerTest, GivesTheSoftmaxById) {
  ExpectDistribution({}, Logits(kProbabilities), {0, 1, 2, 3, 4}, {0.1f, 0.4f, 0.05f, 0.25f, 0.2f});
}

TEST(SamplerTest, DividesByTheTemperature) {
  // Probabilities to the power of 1/T: squares for T = 1/2.
  ExpectDistribution({.temperature = 0.5f}, Logits({0.5, 0.25, 0.25}), {0, 1, 2},
                     {4.0f / 6, 1.0f / 6, 1.0f / 6});
  ExpectDistribution({.temperature = 2.0f}, Logits({0.64, 0.36}), {0, 1}, {8.0f / 14, 6.0f / 14});
  // The smallest temperature there is: the most probable token is all.
  ExpectDistribution({.temperature = std::numeric_limits<float>::denorm_min()}, {1, 3, 2}, {1},
                     {1.0f});
}

TEST(SamplerTest, KeepsTheKMostProbable) {
  ExpectDistribution({.top_k = 2}, Logits(kProbabilities), {1, 3}, {0.4f / 0.65f, 0.25f / 0.65f});
  ExpectDistribution({.top_k = 1}, Logits(kProbabilities), {1}, {1.0f});
  ExpectDistribution({.top_k = 5}, Logits(kProbabilities), {0, 1, 2, 3, 4},
                     {0.1f, 0.4f, 0.05f, 0.25f, 0.2f});
  ExpectDistribution({.top_k = 2}, {1, 7, 7, 7}, {1, 2}, {0.5f, 0.5f});  // of equals the first
}

TEST(SamplerTest, KeepsTheSmallestSetOfTheMass) {
  const std::vector<float> logits = Logits(kProbabilities);
  ExpectDistribution({.top_p = 0.6f}, logits, {1, 3}, {0.4f / 0.65f, 0.25f / 0.65f});
  ExpectDistribution({.top_p = 0.7f}, logits, {1, 3, 4},
                     {0.4f / 0.85f, 0.25f / 0.85f, 0.2f / 0.85f});
  ExpectDistribution({.top_p = 0.3f}, logits, {1}, {1.0f});
  ExpectDistribution({.top_p = 0.0f}, logits, {1}, {1.0f});  // at least one
  // Exactly the mass is enough: halves and quarters have no rounding.
  ExpectDistribution({.top_p = 0.5f}, {0, 0, 0, 0}, {0, 1}, {0.5f, 0.5f});
}

TEST(SamplerTest, MeasuresTopPWithinTopK) {
  // Of the two kept, 0.4 and 0.25, the first has 0.615 of the mass.
  ExpectDistribution({.top_k = 2, .top_p = 0.6f}, Logits(kProbabilities), {1}, {1.0f});
  ExpectDistribution({.top_k = 2, .top_p = 0.62f}, Logits(kProbabilities), {1, 3},
                     {0.4f / 0.65f, 0.25f / 0.65f});
}

TEST(SamplerTest, KeepsWhatIsNotTooFarBelowTheMostProbable) {
  const std::vector<float> logits = Logits(kProbabilities);
  ExpectDistribution({.min_p = 0.45f}, logits, {1, 3, 4},
                     {0.4f / 0.85f, 0.25f / 0.85f, 0.2f / 0.85f});
  ExpectDistribution({.min_p = 1.0f}, logits, {1}, {1.0f});
  ExpectDistribution({.top_k = 4, .top_p = 0.9f, .min_p = 0.55f}, logits, {1, 3},
                     {0.4f / 0.65f, 0.25f / 0.65f});
}

TEST(SamplerTest, PenalisesRecentTokensOnce) {
  const std::vector<float> logits = {2, -1, 1, 0};
  const auto sampler = Make({.repetition_penalty = 2.0f, .repetition_window = 3});
  const auto weights = [&] {
    std::vector<float> w = Probabilities(*sampler->Distribution(logits, kNoLimit));
    for (float& value : w) value = std::log(value);
    for (float& value : w) value -= w.back();  // of token 3, whose logit stays 0
    return w;
  };
  EXPECT_THAT(weights(), AreNear(logits, 1e-5f));
  sampler->Accept(0);
  sampler->Accept(0);
  sampler->Accept(1);
  EXPECT_THAT(weights(), AreNear(std::vector<float>{1, -2, 1, 0}, 1e-5f));
  sampler->Accept(3);  // pushes the older 0 out of the window
  EXPECT_THAT(weights(), AreNear(std::vector<float>{1, -2, 1, 0}, 1e-5f));
  sampler->Accept(3);  // and the other one
  EXPECT_THAT(weights(), AreNear(std::vector<float>{2, -2, 1, 0}, 1e-5f));
  sampler->Accept(-1);
  sampler->Accept(1000000);  // ids without a logit do nothing
  sampler->Accept(3);
  EXPECT_THAT(weights(), AreNear(logits, 1e-5f));
}

TEST(SamplerTest, PenalisesGreedyChoicesToo) {
  const auto sampler = Make({.repetition_penalty = 1.5f, .temperature = 0.0f});
  const std::vector<float> logits = {1.0f, 1.2f};
  EXPECT_EQ(*sampler->Sample(logits, kNoLimit), 1);
  sampler->Accept(1);
  EXPECT_EQ(*sampler->Sample(logits, kNoLimit), 0);
}

TEST(SamplerTest, NeverChoosesIdsAtOrAboveTheLimit) {
  std::vector<float> logits(100, 0.0f);
  for (size_t i = 70; i < 100; ++i) logits[i] = 30.0f;
  for (const SamplingOptions& options :
       {SamplingOptions{}, SamplingOptions{.temperature = 0.0f}, SamplingOptions{.top_k = 80},
        SamplingOptions{.top_k = 5}, SamplingOptions{.top_p = 0.9f}}) {
    const auto sampler = Make(options);
    for (int i = 0; i < 200; ++i) ASSERT_LT(*sampler->Sample(logits, 70), 70);
  }
}

TEST(SamplerTest, SurvivesNumbersThatAreNone) {
  for (SamplingOptions options :
       {SamplingOptions{}, SamplingOptions{.temperature = 0.0f}, SamplingOptions{.top_k = 2},
        SamplingOptions{.top_p = 0.5f}, SamplingOptions{.min_p = 0.5f}}) {
    for (const float penalty : {1.0f, 1.3f}) {
      options.repetition_penalty = penalty;
      const auto sampler = Make(options);
      sampler->Accept(0);
      EXPECT_EQ(*sampler->Sample(std::vector<float>{kNan, -kInf, 1, kNan}, kNoLimit), 2);
      EXPECT_EQ(*sampler->Sample(std::vector<float>{kNan, 5, kInf, -kInf}, kNoLimit), 2);
      EXPECT_EQ(*sampler->Sample(std::vector<float>{-3e38f, 3e38f}, kNoLimit), 1);
      for (const std::vector<float>& none :
           {std::vector<float>{kNan, kNan}, std::vector<float>{-kInf, -kInf, kNan},
            std::vector<float>(200, kNan)}) {
        EXPECT_EQ(sampler->Sample(none, kNoLimit).status().code(), StatusCode::kInternal);
        EXPECT_EQ(sampler->Distribution(none, kNoLimit).status().code(), StatusCode::kInternal);
      }
      EXPECT_EQ(sampler->Sample({}, kNoLimit).status().code(), StatusCode::kInvalidArgument);
      EXPECT_EQ(sampler->Sample(std::vector<float>{1}, 0).status().code(),
                StatusCode::kInvalidArgument);
    }
  }
}

TEST(SamplerTest, RefusesOptionsOutOfRange) {
  const auto expect_refused = [](const SamplingOptions& options, const char* message) {
    const auto sampler = Sampler::Create(options, 10);
    ASSERT_FALSE(sampler.ok()) << message;
    EXPECT_EQ(sampler.status().code(), StatusCode::kInvalidArgument);
    EXPECT_THAT(sampler.status().message(), HasSubstr(message));
  };
  for (const float bad : {kNan, kInf, -kInf, -1.0f}) {
    expect_refused({.temperature = bad}, "temperature");
    expect_refused({.top_p = bad}, "top_p");
    expect_refused({.min_p = bad}, "min_p");
    expect_refused({.repetition_penalty = bad}, "repetition_penalty");
  }
  expect_refused({.repetition_penalty = 0.0f}, "repetition_penalty is 0");
  expect_refused({.top_p = 1.5f}, "top_p is 1.5, want 0 to 1");
  expect_refused({.min_p = 1.01f}, "min_p is 1.01");
  expect_refused({.repetition_window = 1u << 21}, "repetition_window");
  // A refusal changes nothing.
  const auto sampler = Make({.top_k = 7});
  EXPECT_FALSE(sampler->SetOptions({.top_p = 2.0f}).ok());
  EXPECT_EQ(sampler->options().top_k, 7u);
}

// The definition, in double and with a full sort.
std::vector<TokenProbability> Reference(const SamplingOptions& options,
                                        const std::vector<float>& logits) {
  std::vector<std::pair<double, int32_t>> sorted;
  for (size_t i = 0; i < logits.size(); ++i) sorted.emplace_back(-logits[i], i);
  std::sort(sorted.begin(), sorted.end());
  if (options.top_k > 0 && options.top_k < sorted.size()) sorted.resize(options.top_k);
  std::vector<double> weights;
  for (const auto& [negative, id] : sorted) {
    weights.push_back(std::exp((sorted[0].first - negative) / options.temperature));
  }
  const double total = std::accumulate(weights.begin(), weights.end(), 0.0);
  size_t kept = 0;
  double mass = 0;
  while (kept < weights.size() &&
         (kept == 0 || options.top_p == 1.0f || mass < options.top_p * total)) {
    mass += weights[kept++];
  }
  while (kept > 1 && weights[kept - 1] < options.min_p) mass -= weights[--kept];
  std::vector<TokenProbability> distribution;
  for (size_t i = 0; i < kept; ++i) {
    distribution.push_back({sorted[i].second, static_cast<float>(weights[i] / mass)});
  }
  return distribution;
}

// Sizes around the blocks of 64 and the first sorted stretch of 256, flat and steep.
TEST(SamplerTest, AgreesWithTheDefinitionOnRandomLogits) {
  uint32_t seed = 0;
  for (const size_t size : {1, 2, 63, 64, 65, 127, 300, 1000, 5000}) {
    for (const float deviation : {0.1f, 1.0f, 5.0f}) {
      const std::vector<float> logits = RandomLogits(size, ++seed, deviation);
      for (const uint32_t top_k : {0u, 1u, 40u, 64u, 999u}) {
        for (const float top_p : {0.37f, 0.951f, 1.0f}) {
          for (const float min_p : {0.0f, 0.0503f}) {
            const SamplingOptions options{
                .temperature = 0.8f, .top_k = top_k, .top_p = top_p, .min_p = min_p};
            const auto sampler = Make(options, size);
            const auto got = sampler->Distribution(logits, kNoLimit);
            ASSERT_TRUE(got.ok());
            std::vector<TokenProbability> want = Reference(options, logits);
            const bool filtered = (top_k > 0 && top_k < size) || top_p < 1 || min_p > 0;
            if (!filtered) {
              std::sort(want.begin(), want.end(),
                        [](const auto& a, const auto& b) { return a.id < b.id; });
            }
            SCOPED_TRACE(testing::Message() << "size " << size << " deviation " << deviation
                                            << " k " << top_k << " p " << top_p << " m " << min_p);
            ASSERT_EQ(Ids(*got), Ids(want));
            // 3e-7 for the exponential, about as much for roundings to float.
            for (size_t i = 0; i < want.size(); ++i) {
              ASSERT_NEAR((*got)[i].probability, want[i].probability, 1e-6f * want[i].probability);
            }
          }
        }
      }
    }
  }
}

// The exponential over its whole range: two tokens, the second one far below the first.
TEST(SamplerTest, IsAccurateAtEveryDistance) {
  const auto sampler = Make({});
  for (float distance = 0; distance < 87.0f; distance += 0.01f) {
    const std::vector<float> logits = {0, -distance};
    const auto distribution = *sampler->Distribution(logits, kNoLimit);
    ASSERT_EQ(distribution.size(), 2u);
    const double ratio = distribution[1].probability / double{distribution[0].probability};
    ASSERT_NEAR(ratio / std::exp(-double{distance}), 1.0, 5e-7) << distance;
  }
}

TEST(SamplerTest, DrawsWithTheRightFrequencies) {
  constexpr int kDraws = 100000;
  for (const uint64_t seed : {1u, 2u, 3u}) {
    const auto sampler = Make({.seed = seed});
    std::vector<int> counts(kProbabilities.size());
    const std::vector<float> logits = Logits(kProbabilities);
    for (int i = 0; i < kDraws; ++i) ++counts[*sampler->Sample(logits, kNoLimit)];
    double chi_square = 0;
    for (size_t i = 0; i < counts.size(); ++i) {
      const double expected = kDraws * kProbabilities[i];
      chi_square += (counts[i] - expected) * (counts[i] - expected) / expected;
    }
    EXPECT_LT(chi_square, 18.5) << seed;  // 4 degrees of freedom, p = 0.001
  }
}

TEST(SamplerTest, RepeatsItselfWithTheSameSeedOnly) {
  const std::vector<float> logits = RandomLogits(500, 9);
  const auto draw = [&](Sampler& sampler) {
    std::vector<int32_t> ids;
    for (int i = 0; i < 50; ++i) ids.push_back(*sampler.Sample(logits, kNoLimit));
    return ids;
  };
  const SamplingOptions options{.top_k = 64, .top_p = 0.95f, .seed = 42};
  SamplingOptions other = options;
  other.seed = 43;
  const auto sampler = Make(options);
  const std::vector<int32_t> ids = draw(*sampler);
  EXPECT_NE(draw(*sampler), ids);  // it goes on
  ASSERT_TRUE(sampler->SetOptions(options).ok());
  EXPECT_EQ(draw(*sampler), ids);
  EXPECT_EQ(draw(*Make(options)), ids);
  EXPECT_NE(draw(*Make(other)), ids);
}

// The same on every platform: these come from the published generator and exact arithmetic.
TEST(SamplerTest, DrawsKnownTokensFromAKnownSeed) {
  const auto sampler = Make({.seed = 0});
  const std::vector<float> logits(10, 0.0f);
  std::vector<int32_t> ids;
  for (int i = 0; i < 5; ++i) ids.push_back(*sampler->Sample(logits, kNoLimit));
  std::vector<int32_t> want;
  Random random(0);
  for (int i = 0; i < 5; ++i) want.push_back(static_cast<int32_t>(random.NextUniform() * 10));
  EXPECT_EQ(ids, want);
  EXPECT_EQ(ids[0], 8);  // 0xE220... / 2^64 = 0.88
  EXPECT_EQ(ids[1], 4);  // 0x6E78... / 2^64 = 0.43
}

TEST(SamplerTest, AllocatesNothingAfterItWasReserved) {
  const std::vector<float> logits = RandomLogits(20000, 4);
  for (const SamplingOptions& options :
       {SamplingOptions{.repetition_penalty = 1.1f}, SamplingOptions{.temperature = 0.0f},
        SamplingOptions{.repetition_penalty = 1.1f, .top_k = 64, .top_p = 0.95f},
        SamplingOptions{.top_p = 0.95f}, SamplingOptions{.min_p = 0.1f}}) {
    const auto sampler = Make(options, logits.size());
    const size_t before = allocations;
    for (int i = 0; i < 100; ++i) {
      const auto id = sampler->Sample(logits, kNoLimit);
      sampler->Accept(*id);
    }
    EXPECT_EQ(allocations - before, 0u);
  }
  EXPECT_GT(allocations, 0u);  // the counter counts
}

}  // namespace
}  // namespace nestling
