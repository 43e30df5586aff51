// SPDX-License-Identifier: Apache-2.0
#include "kernels/altup/altup.h"

#include <memory>

#include "tests/kernels/kernel_test.h"

namespace nestling::kernels {
namespace {

constexpr float kEps = 1e-6f;

class AltupTest : public KernelTest<AltupKernel> {};
INSTANTIATE_TEST_SUITE_P(AllKernels, AltupTest, testing::ValuesIn(AltupKernels()), KernelName());

// n streams of d floats, each with its own guard.
struct Streams {
  Streams(size_t n, size_t d, uint32_t seed) {
    for (size_t k = 0; k < n; ++k) {
      old.push_back(RandomFloats(d, seed + static_cast<uint32_t>(k)));
      rows.push_back(std::make_unique<GuardedRow<float>>(old.back()));
      pointers.push_back(rows.back()->data());
    }
  }
  std::vector<std::vector<float>> old;
  std::vector<std::unique_ptr<GuardedRow<float>>> rows;
  std::vector<float*> pointers;
};

// All numbers of streams at short widths; the model's 4 at every width.
std::vector<std::pair<size_t, size_t>> Shapes() {
  std::vector<std::pair<size_t, size_t>> shapes;
  for (size_t n = 2; n <= kMaxAltupStreams; ++n) {
    for (size_t d : {1u, 7u, 16u, 33u, 67u}) shapes.emplace_back(n, d);
  }
  for (size_t d : RowSizes()) shapes.emplace_back(4, d);
  return shapes;
}

TEST_P(AltupTest, RouterMatchesTheDoubleReference) {
  for (const auto& [n, d] : Shapes()) {
    SCOPED_TRACE(testing::Message() << "n=" << n << " d=" << d);
    // Large routers, so that the tanh is used in its whole range although d divides.
    const float magnitude = 4.0f * std::sqrt(static_cast<float>(d));
    const GuardedRow<float> x(RandomFloats(d, 1)), w(RandomFloats(d, 2, 2.0f));
    const GuardedRow<float> router(RandomFloats(n * d, 3, magnitude));
    GuardedRow<float> modalities(n);
    kernel().router(x.data(), w.data(), router.data(), modalities.data(), n, d, kEps);
    const double scale = 1.0 / std::sqrt(MeanSquareInDouble(x.data(), d) + kEps);
    for (size_t k = 0; k < n; ++k) {
      double dot = 0.0, magnitudes = 0.0;
      for (size_t i = 0; i < d; ++i) {
        const double term = router[k * d + i] * (x[i] * scale * w[i]) / static_cast<double>(d);
        dot += term;
        magnitudes += std::abs(term);
      }
      // tanh has a slope of at most 1: the error of the dot, then tanh's own.
      const double tolerance = (SumTolerance(d) + 6 * kEpsilon) * magnitudes + 2e-7;
      ASSERT_NEAR(modalities[k], std::tanh(dot), tolerance) << k;
    }
  }
}

TEST_P(AltupTest, PredictMixesTheOldValuesOfAllStreams) {
  for (const auto& [n, d] : Shapes()) {
    SCOPED_TRACE(testing::Message() << "n=" << n << " d=" << d);
    const GuardedRow<float> coefs(RandomFloats(n * n, 4, 2.0f));
    Streams streams(n, d, 5);
    kernel().predict(streams.pointers.data(), coefs.data(), n, d);
    for (size_t i = 0; i < n; ++i) {
      for (size_t j = 0; j < d; ++j) {
        double want = streams.old[i][j], magnitudes = std::abs(want);
        for (size_t k = 0; k < n; ++k) {
          const double term = static_cast<double>(coefs[i * n + k]) * streams.old[k][j];
          want += term;
          magnitudes += std::abs(term);
        }
        ASSERT_NEAR((*streams.rows[i])[j], want, (n + 2) * kEpsilon * magnitudes) << i << " " << j;
      }
    }
  }
}

TEST_P(AltupTest, CorrectUsesTheOldActiveStreamAndGatesWithTheNewOne) {
  for (const auto& [n, d] : Shapes()) {
    for (size_t active : {size_t{0}, n - 1}) {
      for (bool with_scale : {true, false}) {
        SCOPED_TRACE(testing::Message() << "n=" << n << " d=" << d << " active=" << active);
        const GuardedRow<float> coefs(RandomFloats(n, 6, 2.0f)), scale(RandomFloats(d, 7));
        const std::vector<float> activated = RandomFloats(d, 8);
        GuardedRow<float> gate(activated);  // gate_input is activated: allowed
        Streams streams(n, d, 9);
        kernel().correct(streams.pointers.data(), gate.data(), coefs.data(), n, active,
                         with_scale ? scale.data() : nullptr, gate.data(), d);
        for (size_t j = 0; j < d; ++j) {
          const double innovation = static_cast<double>(activated[j]) - streams.old[active][j];
          for (size_t i = 0; i < n; ++i) {
            const double step = coefs[i] * innovation;
            // The difference is rounded relative to its operands (below 1 each), which the
            // coefficient (below 2) multiplies.
            ASSERT_NEAR((*streams.rows[i])[j], streams.old[i][j] + step, 6 * kEpsilon) << i;
          }
          const float factor = with_scale ? scale[j] : 1.0f;
          ASSERT_EQ(gate[j], (*streams.rows[active])[j] * factor) << j;
        }
      }
    }
  }
}

}  // namespace
}  // namespace nestling::kernels
