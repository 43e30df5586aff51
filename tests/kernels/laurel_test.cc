// SPDX-License-Identifier: Apache-2.0
#include "kernels/laurel/laurel.h"

#include "tests/kernels/kernel_test.h"

namespace nestling::kernels {
namespace {

constexpr float kEps = 1e-6f;

class LaurelTest : public KernelTest<LaurelKernel> {};
INSTANTIATE_TEST_SUITE_P(AllKernels, LaurelTest, testing::ValuesIn(LaurelKernels()), KernelName());

TEST_P(LaurelTest, MatchesTheDoubleReferenceAtEveryTailLength) {
  for (size_t d : RowSizes()) {
    SCOPED_TRACE(testing::Message() << "d=" << d);
    const GuardedRow<float> pred(RandomFloats(d, 1)), attn(RandomFloats(d, 2, 5.0f)),
        attn_w(RandomFloats(d, 3)), x(RandomFloats(d, 4)), laurel(RandomFloats(d, 5, 0.1f)),
        laurel_w(RandomFloats(d, 6));
    GuardedRow<float> u(d), in_place(RandomFloats(d, 2, 5.0f));
    kernel().combine(pred.data(), attn.data(), attn_w.data(), x.data(), laurel.data(),
                     laurel_w.data(), u.data(), d, kEps);
    kernel().combine(pred.data(), in_place.data(), attn_w.data(), x.data(), laurel.data(),
                     laurel_w.data(), in_place.data(), d, kEps);
    const double attn_scale = 1.0 / std::sqrt(MeanSquareInDouble(attn.data(), d) + kEps);
    const double laurel_scale = 1.0 / std::sqrt(MeanSquareInDouble(laurel.data(), d) + kEps);
    for (size_t i = 0; i < d; ++i) {
      const double a = attn[i] * attn_scale * attn_w[i];
      const double l = laurel[i] * laurel_scale * laurel_w[i];
      const double magnitudes = std::abs(pred[i]) + std::abs(a) + std::abs(x[i]) + std::abs(l);
      const double want = (pred[i] + a + x[i] + l) / std::sqrt(2.0);
      ASSERT_NEAR(u[i], want, (SumTolerance(d) + 6 * kEpsilon) * magnitudes) << i;
      ASSERT_EQ(in_place[i], u[i]) << i;
    }
  }
}

}  // namespace
}  // namespace nestling::kernels
