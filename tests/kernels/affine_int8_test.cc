// SPDX-License-Identifier: Apache-2.0
#include "kernels/affine_int8/affine_int8.h"

#include <algorithm>

#include "tests/kernels/kernel_test.h"

namespace nestling::kernels {
namespace {

class AffineInt8Test : public KernelTest<AffineInt8Kernel> {};
INSTANTIATE_TEST_SUITE_P(AllKernels, AffineInt8Test, testing::ValuesIn(AffineInt8Kernels()),
                         KernelName());

TEST_P(AffineInt8Test, RangeHoldsEveryValueAndZeroAtEveryTailLength) {
  for (size_t n : RowSizes()) {
    SCOPED_TRACE(testing::Message() << "n=" << n);
    for (const float offset : {-5.0f, 0.0f, 5.0f}) {
      std::vector<float> values = RandomFloats(n, 1);
      for (float& value : values) value += offset;
      const GuardedRow<float> x(values);
      ValueRange range;
      kernel().widen_range(x.data(), n, &range);
      const auto [lowest, highest] = std::minmax_element(values.begin(), values.end());
      EXPECT_EQ(range.lowest, std::min(*lowest, 0.0f));
      EXPECT_EQ(range.highest, std::max(*highest, 0.0f));
      ValueRange wider = {-100.0f, 200.0f};
      kernel().widen_range(x.data(), n, &wider);
      EXPECT_EQ(wider.lowest, -100.0f);
      EXPECT_EQ(wider.highest, 200.0f);
    }
  }
}

TEST_P(AffineInt8Test, CodesAreWithinHalfAStepAndZeroIsExact) {
  for (size_t n : RowSizes()) {
    SCOPED_TRACE(testing::Message() << "n=" << n);
    std::vector<float> values = RandomFloats(n, 2, 3.0f);
    for (float& value : values) value = std::max(value, -0.2f);  // lopsided, as GELU makes them
    values[n / 2] = 0.0f;
    const GuardedRow<float> x(values);
    ValueRange range;
    kernel().widen_range(x.data(), n, &range);
    const AffineInt8 affine = AffineOf(range);
    GuardedRow<int8_t> codes(n);
    kernel().quantize(x.data(), n, affine, codes.data());
    for (size_t i = 0; i < n; ++i) {
      const float back = static_cast<float>(codes[i] - affine.zero_point) * affine.scale;
      // The ends of the range may be cut off by the rounding of the zero point: half a step more.
      ASSERT_NEAR(back, x[i], 1.001f * affine.scale) << i;
      if (x[i] == 0.0f) {
        ASSERT_EQ(codes[i], affine.zero_point) << i;
      }
    }
  }
}

TEST_P(AffineInt8Test, CodesSaturateOutsideTheRange) {
  const AffineInt8 affine = {10, 0.5f};
  const GuardedRow<float> x(std::vector<float>{-1e9f, 1e9f, 58.5f, 59.0f, -69.0f, -70.0f, 0.25f});
  GuardedRow<int8_t> codes(x.size());
  kernel().quantize(x.data(), x.size(), affine, codes.data());
  const std::vector<int> want = {-128, 127, 127, 127, -128, -128, 10};
  for (size_t i = 0; i < x.size(); ++i) EXPECT_EQ(codes[i], want[i]) << i;
}

TEST(AffineOfTest, RangesWithoutWidthAndUnboundedOnesGiveAUsableScale) {
  const float infinity = std::numeric_limits<float>::infinity();
  for (const ValueRange& range : {ValueRange{0.0f, 0.0f}, ValueRange{-infinity, 1.0f},
                                  ValueRange{0.0f, kNaN}, ValueRange{-3e38f, 3e38f}}) {
    const AffineInt8 affine = AffineOf(range);
    EXPECT_EQ(affine.zero_point, 0);
    EXPECT_EQ(affine.scale, 1.0f);
  }
  EXPECT_GT(AffineOf({0.0f, 1e-44f}).scale, 0.0f);
  EXPECT_EQ(AffineOf({0.0f, 2.0f}).zero_point, -128);
  EXPECT_EQ(AffineOf({-2.0f, 0.0f}).zero_point, 127);
}

}  // namespace
}  // namespace nestling::kernels
