// SPDX-License-Identifier: Apache-2.0
#include "kernels/at_least/at_least.h"

#include <vector>

#include "tests/kernels/kernel_test.h"

namespace nestling::kernels {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

class AtLeastTest : public KernelTest<AtLeastKernel> {
 protected:
  std::vector<uint32_t> Find(const std::vector<float>& values, float threshold) {
    const GuardedRow<float> x(values);
    GuardedRow<uint32_t> indices(values.size());
    const size_t found = kernel().find(x.data(), x.size(), threshold, indices.data());
    EXPECT_LE(found, values.size());
    return {indices.data(), indices.data() + found};
  }
};
INSTANTIATE_TEST_SUITE_P(AllKernels, AtLeastTest, testing::ValuesIn(AtLeastKernels()),
                         KernelName());

std::vector<uint32_t> Expected(const std::vector<float>& values, float threshold) {
  std::vector<uint32_t> indices(values.size());
  indices.resize(kAtLeastScalar.find(values.data(), values.size(), threshold, indices.data()));
  return indices;
}

TEST_P(AtLeastTest, FindsWhatTheReferenceFindsAtEveryTailLength) {
  for (const size_t n : RowSizes()) {
    const std::vector<float> values = RandomFloats(n, static_cast<uint32_t>(n));
    for (const float threshold : {-2.0f, -0.5f, 0.9f, 0.999f, values[n / 2], values[n - 1], 2.0f}) {
      ASSERT_EQ(Find(values, threshold), Expected(values, threshold)) << n << " " << threshold;
    }
  }
}

TEST_P(AtLeastTest, FindsASingleOneWhereverItIs) {
  for (size_t n = 1; n <= 133; ++n) {
    std::vector<float> values(n, -1.0f);
    for (size_t at = 0; at < n; ++at) {
      values[at] = 1.0f;
      ASSERT_EQ(Find(values, 1.0f), std::vector<uint32_t>{static_cast<uint32_t>(at)}) << n;
      values[at] = -1.0f;
    }
  }
}

TEST_P(AtLeastTest, NeverFindsANanAndNoneHidesItsNeighbours) {
  for (size_t n = 1; n <= 133; ++n) {
    ASSERT_TRUE(Find(std::vector<float>(n, kNaN), -kInfinity).empty());
    for (size_t at = 0; at < n; ++at) {
      std::vector<float> values(n, kNaN);
      values[at] = 3.0f;
      ASSERT_EQ(Find(values, 3.0f), std::vector<uint32_t>{static_cast<uint32_t>(at)}) << n;
    }
  }
}

TEST_P(AtLeastTest, TellsInfinitiesFromTheLowestNumber) {
  const float lowest = std::numeric_limits<float>::lowest();
  const std::vector<float> values = {-kInfinity, lowest, kInfinity, -kInfinity, 0.0f, -0.0f};
  EXPECT_EQ(Find(values, -kInfinity), (std::vector<uint32_t>{0, 1, 2, 3, 4, 5}));
  EXPECT_EQ(Find(values, lowest), (std::vector<uint32_t>{1, 2, 4, 5}));
  EXPECT_EQ(Find(values, 0.0f), (std::vector<uint32_t>{2, 4, 5}));
  EXPECT_EQ(Find(values, kInfinity), std::vector<uint32_t>{2});
  EXPECT_TRUE(Find(values, kNaN).empty());
  EXPECT_TRUE(Find({}, -kInfinity).empty());
}

}  // namespace
}  // namespace nestling::kernels
