// SPDX-License-Identifier: Apache-2.0
#include "sampling/best_logits.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <random>
#include <vector>

namespace nestling {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInf = std::numeric_limits<float>::infinity();

std::vector<int32_t> SortedIds(BestLogits& best) {
  const auto found = best.Best();
  std::vector<TokenLogit> tokens(found.begin(), found.end());
  std::sort(tokens.begin(), tokens.end(), BetterLogit);
  std::vector<int32_t> ids;
  for (const TokenLogit& token : tokens) ids.push_back(token.id);
  return ids;
}

TEST(BestLogitsTest, KeepsTheBestInWhateverOrderTheyCome) {
  std::mt19937 random(1);
  std::vector<TokenLogit> all;
  for (int32_t id = 0; id < 300; ++id) {
    all.push_back({id, static_cast<float>(random() % 40)});  // many are equal
  }
  std::vector<TokenLogit> sorted = all;
  std::sort(sorted.begin(), sorted.end(), BetterLogit);
  BestLogits best;
  for (const size_t count : {1u, 2u, 17u, 299u, 300u, 1000u}) {
    std::vector<int32_t> want;
    for (size_t i = 0; i < std::min(count, all.size()); ++i) want.push_back(sorted[i].id);
    for (int round = 0; round < 5; ++round) {
      std::shuffle(all.begin(), all.end(), random);
      best.Reset(count);
      for (const TokenLogit& token : all) best.Offer(token);
      EXPECT_EQ(SortedIds(best), want) << count;
    }
  }
}

TEST(BestLogitsTest, TakesNoNanAndNothingThatCannotBeChosen) {
  BestLogits best;
  best.Reset(4);
  best.Offer({0, kNan});
  best.Offer({1, -kInf});
  EXPECT_TRUE(best.Best().empty());
  best.Offer({2, std::numeric_limits<float>::lowest()});
  best.Offer({3, kInf});
  EXPECT_EQ(SortedIds(best), (std::vector<int32_t>{3, 2}));
}

TEST(BestLogitsTest, SaysWhatIsTooLow) {
  BestLogits best;
  best.Reset(2);
  EXPECT_EQ(best.threshold(), std::numeric_limits<float>::lowest());
  for (int32_t id = 7; id < 10; ++id) best.Offer({id, static_cast<float>(id % 3)});  // 1, 2, 0
  EXPECT_EQ(best.threshold(), std::numeric_limits<float>::lowest());
  best.Offer({20, 1.0f});
  EXPECT_EQ(best.threshold(), 1.0f);
  best.Offer({21, 1.0f});  // equal, but later
  EXPECT_EQ(SortedIds(best), (std::vector<int32_t>{8, 7}));
  best.Offer({6, 1.0f});
  EXPECT_EQ(SortedIds(best), (std::vector<int32_t>{8, 6}));
  EXPECT_EQ(SortedIds(best), (std::vector<int32_t>{8, 6}));
  best.Reset(0);
  best.Offer({1, kInf});
  EXPECT_TRUE(best.Best().empty());
}

}  // namespace
}  // namespace nestling
