// SPDX-License-Identifier: Apache-2.0
#include "kernels/rms_norm/rms_norm.h"

#include "tests/kernels/kernel_test.h"

namespace nestling::kernels {
namespace {

constexpr float kEps = 1e-6f;

class RmsNormTest : public KernelTest<RmsNormKernel> {};
INSTANTIATE_TEST_SUITE_P(AllKernels, RmsNormTest, testing::ValuesIn(RmsNormKernels()),
                         KernelName());

std::vector<double> Reference(const float* x, const float* w, size_t n) {
  const double scale = 1.0 / std::sqrt(MeanSquareInDouble(x, n) + kEps);
  std::vector<double> y(n);
  for (size_t i = 0; i < n; ++i) y[i] = x[i] * scale * (w != nullptr ? w[i] : 1.0);
  return y;
}

// The root halves the relative error of the sum; the products add a few roundings.
float Tolerance(size_t n) { return SumTolerance(n) + 4 * kEpsilon; }

TEST_P(RmsNormTest, MatchesTheDoubleReferenceAtEveryTailLength) {
  for (size_t n : RowSizes()) {
    SCOPED_TRACE(testing::Message() << "n=" << n);
    const GuardedRow<float> x(RandomFloats(n, 1)), w(RandomFloats(n, 2, 3.0f));
    for (const float* weight : {w.data(), static_cast<const float*>(nullptr)}) {
      GuardedRow<float> y(n);
      kernel().rms_norm(x.data(), weight, y.data(), n, kEps);
      const std::vector<double> want = Reference(x.data(), weight, n);
      for (size_t i = 0; i < n; ++i) {
        ASSERT_NEAR(y[i], want[i], Tolerance(n) * std::abs(want[i])) << i;
      }
    }
  }
}

TEST_P(RmsNormTest, WorksInPlace) {
  for (size_t n : {1u, 19u, 2048u}) {
    const GuardedRow<float> x(RandomFloats(n, 3)), w(RandomFloats(n, 4));
    GuardedRow<float> apart(n), in_place(RandomFloats(n, 3));
    kernel().rms_norm(x.data(), w.data(), apart.data(), n, kEps);
    kernel().rms_norm(in_place.data(), w.data(), in_place.data(), n, kEps);
    for (size_t i = 0; i < n; ++i) ASSERT_EQ(in_place[i], apart[i]) << "n=" << n << " i=" << i;
  }
}

TEST_P(RmsNormTest, AddsToWhatIsThere) {
  for (size_t n : RowSizes()) {
    SCOPED_TRACE(testing::Message() << "n=" << n);
    const GuardedRow<float> x(RandomFloats(n, 5)), w(RandomFloats(n, 6));
    const std::vector<float> before = RandomFloats(n, 7, 10.0f);
    for (const float* weight : {w.data(), static_cast<const float*>(nullptr)}) {
      GuardedRow<float> y(before);
      kernel().rms_norm_add(x.data(), weight, y.data(), n, kEps);
      const std::vector<double> normed = Reference(x.data(), weight, n);
      for (size_t i = 0; i < n; ++i) {
        const double tolerance = Tolerance(n) * (std::abs(normed[i]) + std::abs(before[i]));
        ASSERT_NEAR(y[i], before[i] + normed[i], tolerance) << i;
      }
    }
  }
}

TEST_P(RmsNormTest, EpsKeepsARowOfZerosFinite) {
  const size_t n = 37;
  const GuardedRow<float> x(std::vector<float>(n, 0.0f)), w(RandomFloats(n, 8));
  GuardedRow<float> y(std::vector<float>(n, kNaN));
  kernel().rms_norm(x.data(), w.data(), y.data(), n, kEps);
  for (size_t i = 0; i < n; ++i) EXPECT_EQ(y[i], 0.0f);
}

TEST_P(RmsNormTest, MeanSquareMatchesTheDoubleReference) {
  for (size_t n : RowSizes()) {
    const GuardedRow<float> x(RandomFloats(n, 9));
    const double want = MeanSquareInDouble(x.data(), n);
    ASSERT_NEAR(kernel().mean_square(x.data(), n), want, SumTolerance(n) * want) << "n=" << n;
  }
}

TEST_P(RmsNormTest, ScaleIsOneExactProduct) {
  for (size_t n : RowSizes()) {
    const std::vector<float> before = RandomFloats(n, 10);
    GuardedRow<float> x(before);
    kernel().scale(x.data(), 45.25f, n);
    for (size_t i = 0; i < n; ++i) ASSERT_EQ(x[i], before[i] * 45.25f) << "n=" << n << " i=" << i;
  }
}

}  // namespace
}  // namespace nestling::kernels
