// SPDX-License-Identifier: Apache-2.0
#include "kernels/conformer/conformer.h"

#include <algorithm>

#include "tests/kernels/kernel_test.h"

namespace nestling::kernels {
namespace {

class ConformerTest : public KernelTest<ConformerKernel> {};
INSTANTIATE_TEST_SUITE_P(AllKernels, ConformerTest, testing::ValuesIn(ConformerKernels()),
                         KernelName());

double GatedInDouble(double x, double gate) { return x / (1.0 + std::exp(-gate)); }

// The contract's bound.
double SiluTolerance(double x) { return 4e-7 * (1.0 + std::abs(x)) + 1e-37; }

TEST_P(ConformerTest, SiluKeepsItsErrorBoundOverTheWholeRange) {
  std::vector<float> values;
  for (float x = -100.0f; x <= 100.0f; x += 1.0f / 64) values.push_back(x);
  for (float x : {0.0f, -0.0f, 1e-30f, -1e-30f, 1e9f, -1e9f}) values.push_back(x);
  GuardedRow<float> x(values);
  kernel().silu(x.data(), x.size());
  for (size_t i = 0; i < values.size(); ++i) {
    ASSERT_NEAR(x[i], GatedInDouble(values[i], values[i]), SiluTolerance(values[i])) << values[i];
  }
}

TEST_P(ConformerTest, GluGatesTheFirstHalfByTheSecondAtEveryTailLengthAlsoInPlace) {
  for (size_t n : RowSizes()) {
    SCOPED_TRACE(testing::Message() << "n=" << n);
    const std::vector<float> values = RandomFloats(2 * n, 1, 8.0f);
    const GuardedRow<float> x(values);
    GuardedRow<float> y(n), in_place(values);
    kernel().glu(x.data(), y.data(), n);
    kernel().glu(in_place.data(), in_place.data(), n);
    for (size_t i = 0; i < n; ++i) {
      ASSERT_NEAR(y[i], GatedInDouble(values[i], values[n + i]), SiluTolerance(values[i])) << i;
      ASSERT_EQ(in_place[i], y[i]) << i;
    }
  }
}

TEST_P(ConformerTest, DepthwiseStepSumsItsTapsAtEveryTailLength) {
  constexpr size_t kTaps = 5;
  for (size_t n : RowSizes()) {
    SCOPED_TRACE(testing::Message() << "n=" << n);
    const size_t stride = n + 3;
    const GuardedRow<float> x(RandomFloats((kTaps - 1) * stride + n, 2)),
        taps(RandomFloats(kTaps * n, 3));
    GuardedRow<float> y(n);
    kernel().depthwise_step(x.data(), stride, taps.data(), kTaps, y.data(), n);
    for (size_t i = 0; i < n; ++i) {
      double want = 0.0;
      for (size_t t = 0; t < kTaps; ++t) {
        want += static_cast<double>(taps[t * n + i]) * x[t * stride + i];
      }
      ASSERT_NEAR(y[i], want, SumTolerance(kTaps) * kTaps) << i;
    }
  }
}

std::vector<double> AttentionInDouble(const LocalAttentionArgs& args) {
  std::vector<double> weights(args.num_keys), out(args.head_dim, 0.0);
  double total = 0.0;
  for (size_t d = 0; d < args.num_keys; ++d) {
    double score = 0.0;
    for (size_t i = 0; i < args.head_dim; ++i) {
      const double key = static_cast<double>((args.k - d * args.stride)[i]) +
                         args.positions[d * args.position_stride + i];
      score += args.q[i] * key;
    }
    weights[d] = std::exp(args.cap * std::tanh(score / args.cap));
    total += weights[d];
  }
  for (size_t d = 0; d < args.num_keys; ++d) {
    for (size_t i = 0; i < args.head_dim; ++i) {
      out[i] += weights[d] / total * (args.v - d * args.stride)[i];
    }
  }
  return out;
}

TEST_P(ConformerTest, LocalAttentionMatchesTheDoubleReference) {
  for (const size_t head_dim : {1u, 5u, 16u, 31u, 192u}) {
    for (const size_t num_keys : {1u, 2u, 12u, 13u, 17u, 64u}) {
      SCOPED_TRACE(testing::Message() << head_dim << " x " << num_keys);
      const size_t stride = head_dim + 2, position_stride = head_dim + 1;
      const GuardedRow<float> q(RandomFloats(head_dim, 4)),
          k(RandomFloats((num_keys - 1) * stride + head_dim, 5)),
          v(RandomFloats((num_keys - 1) * stride + head_dim, 6)),
          positions(RandomFloats((num_keys - 1) * position_stride + head_dim, 7));
      GuardedRow<float> out(head_dim);
      const size_t newest = (num_keys - 1) * stride;
      const LocalAttentionArgs args = {.q = q.data(),
                                       .k = k.data() + newest,
                                       .v = v.data() + newest,
                                       .stride = stride,
                                       .positions = positions.data(),
                                       .position_stride = position_stride,
                                       .num_keys = num_keys,
                                       .head_dim = head_dim,
                                       .cap = 5.0f,  // low enough to bend the scores
                                       .out = out.data()};
      kernel().local_attention(args);
      const std::vector<double> want = AttentionInDouble(args);
      // A score is a sum of head_dim terms below 2; its error goes into the weights as it is, and
      // twice (weight and total). Values are below 1.
      const double tolerance =
          2.0 * 2.0 * static_cast<double>(head_dim) * SumTolerance(head_dim) + 1e-5;
      for (size_t i = 0; i < head_dim; ++i) ASSERT_NEAR(out[i], want[i], tolerance) << i;
    }
  }
}

TEST_P(ConformerTest, LocalAttentionCapsScoresThatWouldOverflow) {
  const std::vector<float> q = {1e18f}, positions = {0.0f, 0.0f}, v = {1.0f, 2.0f};
  const std::vector<float> k = {-1e18f, 1e18f};  // oldest first
  float out = 0.0f;
  kernel().local_attention({.q = q.data(),
                            .k = &k[1],
                            .v = &v[1],
                            .stride = 1,
                            .positions = positions.data(),
                            .position_stride = 1,
                            .num_keys = 2,
                            .head_dim = 1,
                            .cap = 50.0f,
                            .out = &out});
  EXPECT_FLOAT_EQ(out, 2.0f);  // exp(-100) of the other
}

}  // namespace
}  // namespace nestling::kernels
