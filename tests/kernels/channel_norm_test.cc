// SPDX-License-Identifier: Apache-2.0
#include "kernels/channel_norm/channel_norm.h"

#include "tests/kernels/kernel_test.h"

namespace nestling::kernels {
namespace {

constexpr float kEps = 1e-6f;

class ChannelNormTest : public KernelTest<ChannelNormKernel> {};
INSTANTIATE_TEST_SUITE_P(AllKernels, ChannelNormTest, testing::ValuesIn(ChannelNormKernels()),
                         KernelName());

double NormInDouble(const float* x, size_t n, double w, size_t i) {
  return x[i] * w / std::sqrt(MeanSquareInDouble(x, n) + kEps);
}

TEST_P(ChannelNormTest, GeluOfTheNormMatchesTheDoubleReferenceAlsoInPlace) {
  for (size_t n : RowSizes()) {
    SCOPED_TRACE(testing::Message() << "n=" << n);
    const GuardedRow<float> x(RandomFloats(n, 1, 3.0f)), w(RandomFloats(n, 2, 2.0f));
    GuardedRow<float> y(n), in_place(RandomFloats(n, 1, 3.0f));
    kernel().rms_norm_gelu(x.data(), w.data(), y.data(), n, kEps);
    kernel().rms_norm_gelu(in_place.data(), w.data(), in_place.data(), n, kEps);
    for (size_t i = 0; i < n; ++i) {
      const double normed = NormInDouble(x.data(), n, w[i], i);
      // The slope of GELU is below 1.13; its own error is that of gelu_gate.h.
      const double tolerance =
          1.13 * SumTolerance(n) * std::abs(normed) + 4e-7 * (1.0 + std::abs(normed));
      ASSERT_NEAR(y[i], GeluInDouble(normed), tolerance) << i;
      ASSERT_EQ(in_place[i], y[i]) << i;
    }
  }
}

TEST_P(ChannelNormTest, ResidualIsAddedToTheNormAlsoInPlace) {
  for (size_t n : RowSizes()) {
    SCOPED_TRACE(testing::Message() << "n=" << n);
    const GuardedRow<float> x(RandomFloats(n, 3, 3.0f)), w(RandomFloats(n, 4, 2.0f));
    const GuardedRow<float> residual(RandomFloats(n, 5, 4.0f));
    GuardedRow<float> y(n), over_x(RandomFloats(n, 3, 3.0f)),
        over_residual(RandomFloats(n, 5, 4.0f));
    kernel().rms_norm_residual(x.data(), w.data(), residual.data(), y.data(), n, kEps);
    kernel().rms_norm_residual(over_x.data(), w.data(), residual.data(), over_x.data(), n, kEps);
    kernel().rms_norm_residual(x.data(), w.data(), over_residual.data(), over_residual.data(), n,
                               kEps);
    for (size_t i = 0; i < n; ++i) {
      const double normed = NormInDouble(x.data(), n, w[i], i);
      const double tolerance =
          SumTolerance(n) * std::abs(normed) + kEpsilon * std::abs(residual[i] + normed);
      ASSERT_NEAR(y[i], residual[i] + normed, tolerance + 1e-12) << i;
      ASSERT_EQ(over_x[i], y[i]) << i;
      ASSERT_EQ(over_residual[i], y[i]) << i;
    }
  }
}

TEST_P(ChannelNormTest, ScaledBranchIsAddedToTheResidualAlsoInPlace) {
  for (size_t n : RowSizes()) {
    SCOPED_TRACE(testing::Message() << "n=" << n);
    const GuardedRow<float> x(RandomFloats(n, 6, 3.0f)), w(RandomFloats(n, 7, 2.0f));
    const GuardedRow<float> residual(RandomFloats(n, 8, 4.0f));
    GuardedRow<float> y(n), over_x(RandomFloats(n, 6, 3.0f));
    kernel().scale_residual(x.data(), w.data(), residual.data(), y.data(), n);
    kernel().scale_residual(over_x.data(), w.data(), residual.data(), over_x.data(), n);
    for (size_t i = 0; i < n; ++i) {
      const double product = static_cast<double>(x[i]) * w[i];
      ASSERT_NEAR(y[i], residual[i] + product, kEpsilon * (std::abs(product) + 4.0)) << i;
      ASSERT_EQ(over_x[i], y[i]) << i;
    }
  }
}

}  // namespace
}  // namespace nestling::kernels
