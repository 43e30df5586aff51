// SPDX-License-Identifier: Apache-2.0
#include "sampling/random.h"

#include <gtest/gtest.h>

namespace nestling {
namespace {

// Known answers of the published SplitMix64.
TEST(RandomTest, GivesTheSameNumbersEverywhere) {
  Random zero(0);
  EXPECT_EQ(zero.Next(), 0xE220A8397B1DCDAFu);
  EXPECT_EQ(zero.Next(), 0x6E789E6AA1B965F4u);
  Random random(1234567);
  EXPECT_EQ(random.Next(), 6457827717110365317u);
  EXPECT_EQ(random.Next(), 3203168211198807973u);
  EXPECT_EQ(random.Next(), 9817491932198370423u);
}

TEST(RandomTest, IsUniformBetweenZeroAndOne) {
  Random random(1);
  constexpr int kDraws = 100000;
  int buckets[10] = {};
  for (int i = 0; i < kDraws; ++i) {
    const double value = random.NextUniform();
    ASSERT_GE(value, 0.0);
    ASSERT_LT(value, 1.0);
    ++buckets[static_cast<int>(value * 10)];
  }
  double chi_square = 0;
  for (const int count : buckets) {
    const double expected = kDraws / 10.0;
    chi_square += (count - expected) * (count - expected) / expected;
  }
  EXPECT_LT(chi_square, 27.9);  // 9 degrees of freedom, p = 0.001
}

}  // namespace
}  // namespace nestling
