// SPDX-License-Identifier: Apache-2.0
#include "kernels/norm_rope/norm_rope.h"

#include "tests/kernels/kernel_test.h"

namespace nestling::kernels {
namespace {

constexpr float kEps = 1e-6f;

class NormRopeTest : public KernelTest<NormRopeKernel> {};
INSTANTIATE_TEST_SUITE_P(AllKernels, NormRopeTest, testing::ValuesIn(NormRopeKernels()),
                         KernelName());

TEST_P(NormRopeTest, MatchesTheDoubleReferenceForEveryEvenHeadDim) {
  for (size_t dim = 2; dim <= 256; dim += dim < 70 ? 2 : 62) {
    SCOPED_TRACE(testing::Message() << "head_dim=" << dim);
    const size_t half = dim / 2;
    const GuardedRow<float> x(RandomFloats(dim, 1)), w(RandomFloats(dim, 2, 2.0f));
    std::vector<float> cosines(half), sines(half);
    for (size_t i = 0; i < half; ++i) {
      const double angle = 1234.0 * std::pow(10000.0, -2.0 * i / dim);
      cosines[i] = static_cast<float>(std::cos(angle));
      sines[i] = static_cast<float>(std::sin(angle));
    }
    const GuardedRow<float> cos(cosines), sin(sines);
    GuardedRow<float> y(dim), in_place(RandomFloats(dim, 1));
    kernel().norm_rope(x.data(), w.data(), cos.data(), sin.data(), y.data(), dim, kEps);
    kernel().norm_rope(in_place.data(), w.data(), cos.data(), sin.data(), in_place.data(), dim,
                       kEps);
    const double scale = 1.0 / std::sqrt(MeanSquareInDouble(x.data(), dim) + kEps);
    for (size_t i = 0; i < half; ++i) {
      const double low = x[i] * scale * w[i], high = x[i + half] * scale * w[i + half];
      // Relative to the larger of the pair: the two products may cancel.
      const double tolerance =
          (SumTolerance(dim) + 6 * kEpsilon) * (std::abs(low) + std::abs(high));
      ASSERT_NEAR(y[i], low * cos[i] - high * sin[i], tolerance) << i;
      ASSERT_NEAR(y[i + half], high * cos[i] + low * sin[i], tolerance) << i;
    }
    for (size_t i = 0; i < dim; ++i) ASSERT_EQ(in_place[i], y[i]) << i;
  }
}

}  // namespace
}  // namespace nestling::kernels
