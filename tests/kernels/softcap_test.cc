// SPDX-License-Identifier: Apache-2.0
#include "kernels/softcap/softcap.h"

#include <algorithm>

#include "tests/kernels/kernel_test.h"

namespace nestling::kernels {
namespace {

class SoftCapTest : public KernelTest<SoftCapKernel> {};
INSTANTIATE_TEST_SUITE_P(AllKernels, SoftCapTest, testing::ValuesIn(SoftCapKernels()),
                         KernelName());

TEST_P(SoftCapTest, KeepsItsErrorBoundOverTheWholeRange) {
  std::vector<float> values;
  for (float x = -400.0f; x <= 400.0f; x += 1.0f / 64) values.push_back(x);
  for (float x : {-0.0f, 1e-30f, 1e-3f, 1e6f, -1e6f, std::numeric_limits<float>::infinity()}) {
    values.push_back(x);
  }
  GuardedRow<float> x(values);
  kernel().soft_cap(x.data(), x.size(), 30.0f);
  for (size_t i = 0; i < values.size(); ++i) {
    const double want = 30.0 * std::tanh(values[i] / 30.0);
    // Small values keep their digits too: a few epsilons of the result. (The quotient by the cap,
    // tanh and the product round; the C library's tanhf alone may be off by an epsilon.)
    const double tolerance = std::min<double>(30 * 1.5 * kEpsilon, 6 * kEpsilon * std::abs(want));
    ASSERT_NEAR(x[i], want, tolerance) << "x=" << values[i];
  }
}

TEST_P(SoftCapTest, TreatsEveryTailLengthAlike) {
  for (size_t n : RowSizes()) {
    const std::vector<float> before = RandomFloats(n, 1, 100.0f);
    GuardedRow<float> x(before);
    kernel().soft_cap(x.data(), n, 30.0f);
    for (size_t i = 0; i < n; ++i) {
      ASSERT_NEAR(x[i], 30.0 * std::tanh(before[i] / 30.0), 30 * 1.5 * kEpsilon)
          << "n=" << n << " i=" << i;
    }
  }
}

}  // namespace
}  // namespace nestling::kernels
