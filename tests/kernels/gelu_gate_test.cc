// SPDX-License-Identifier: Apache-2.0
#include "kernels/gelu_gate/gelu_gate.h"

#include <algorithm>

#include "tests/kernels/kernel_test.h"

namespace nestling::kernels {
namespace {

class GeluGateTest : public KernelTest<GeluGateKernel> {};
INSTANTIATE_TEST_SUITE_P(AllKernels, GeluGateTest, testing::ValuesIn(GeluGateKernels()),
                         KernelName());

// The contract's bound on gelu, and the rounding of the product.
double Tolerance(double x, double up) { return 4e-7 * (1.0 + std::abs(x)) * std::abs(up) + 1e-37; }

TEST_P(GeluGateTest, GeluKeepsItsErrorBoundOverTheWholeRange) {
  std::vector<float> gates;
  for (float x = -20.0f; x <= 20.0f; x += 1.0f / 512) gates.push_back(x);
  for (float x : {0.0f, -0.0f, 1e-30f, -1e-30f, 1e-6f, -1e-6f, 100.0f, -100.0f, 1e9f, -1e9f}) {
    gates.push_back(x);
  }
  const size_t n = gates.size();
  const GuardedRow<float> gate(gates), up(std::vector<float>(n, 1.0f));
  GuardedRow<float> out(n);
  kernel().gelu_gate(gate.data(), up.data(), out.data(), n);
  for (size_t i = 0; i < n; ++i) {
    ASSERT_NEAR(out[i], GeluInDouble(gate[i]), Tolerance(gate[i], 1.0)) << "x=" << gate[i];
  }
}

TEST_P(GeluGateTest, MultipliesByUpAtEveryTailLengthAlsoInPlace) {
  for (size_t n : RowSizes()) {
    SCOPED_TRACE(testing::Message() << "n=" << n);
    const GuardedRow<float> gate(RandomFloats(n, 1, 5.0f)), up(RandomFloats(n, 2, 3.0f));
    GuardedRow<float> out(n), over_gate(RandomFloats(n, 1, 5.0f)),
        over_up(RandomFloats(n, 2, 3.0f));
    kernel().gelu_gate(gate.data(), up.data(), out.data(), n);
    kernel().gelu_gate(over_gate.data(), up.data(), over_gate.data(), n);
    kernel().gelu_gate(gate.data(), over_up.data(), over_up.data(), n);
    for (size_t i = 0; i < n; ++i) {
      ASSERT_NEAR(out[i], GeluInDouble(gate[i]) * up[i], Tolerance(gate[i], up[i])) << i;
      ASSERT_EQ(over_gate[i], out[i]) << i;
      ASSERT_EQ(over_up[i], out[i]) << i;
    }
  }
}

TEST_P(GeluGateTest, SparseGateShiftsSurvivorsAndZeroesTheRestExactly) {
  const float cut = 1.25f;
  for (size_t n : RowSizes()) {
    SCOPED_TRACE(testing::Message() << "n=" << n);
    std::vector<float> gates = RandomFloats(n, 3, 5.0f);
    gates[n / 2] = cut;  // not above the cut
    const GuardedRow<float> gate(gates), up(RandomFloats(n, 4, 3.0f));
    GuardedRow<float> out(std::vector<float>(n, kNaN)), in_place(gates);
    kernel().sparse_gelu_gate(gate.data(), up.data(), out.data(), n, cut);
    kernel().sparse_gelu_gate(in_place.data(), up.data(), in_place.data(), n, cut);
    for (size_t i = 0; i < n; ++i) {
      if (gate[i] <= cut) {
        ASSERT_EQ(out[i], 0.0f) << i;
      } else {
        const float kept = gate[i] - cut;
        ASSERT_NEAR(out[i], GeluInDouble(kept) * up[i], Tolerance(kept, up[i])) << i;
      }
      ASSERT_EQ(in_place[i], out[i]) << i;
    }
  }
}

TEST_P(GeluGateTest, SumsMatchTheDoubleReference) {
  for (size_t n : RowSizes()) {
    SCOPED_TRACE(testing::Message() << "n=" << n);
    const GuardedRow<float> x(RandomFloats(n, 5, 2.0f));
    double sum = 0.0, magnitudes = 0.0;
    for (size_t i = 0; i < n; ++i) {
      sum += x[i];
      magnitudes += std::abs(x[i]);
    }
    ASSERT_NEAR(kernel().sum(x.data(), n), sum, SumTolerance(n) * magnitudes);
    const float mean = 0.75f;  // far from 0: a tail lane that is not masked would show
    double deviation = 0.0;
    for (size_t i = 0; i < n; ++i) deviation += (x[i] - 0.75) * (x[i] - 0.75);
    // The difference of near values is exact or rounded to half an epsilon of the larger.
    ASSERT_NEAR(kernel().sum_squared_deviation(x.data(), n, mean), deviation,
                (SumTolerance(n) + 2 * kEpsilon) * deviation);
  }
}

}  // namespace
}  // namespace nestling::kernels
