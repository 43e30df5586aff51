// SPDX-License-Identifier: Apache-2.0
#include "kernels/shared_kv_attention/shared_kv_attention.h"

#include <algorithm>

#include "tests/kernels/kernel_test.h"

namespace nestling::kernels {
namespace {

class SharedKvTest : public KernelTest<SharedKvKernel> {};
INSTANTIATE_TEST_SUITE_P(AllKernels, SharedKvTest, testing::ValuesIn(SharedKvKernels()),
                         KernelName());

std::vector<double> Reference(const std::vector<float>& q, const std::vector<float>& k,
                              const std::vector<float>& v, size_t dim, double scale) {
  const size_t num_rows = q.size() / dim, num_keys = k.size() / dim;
  std::vector<double> out(q.size(), 0.0);
  for (size_t r = 0; r < num_rows; ++r) {
    std::vector<double> weights(num_keys);
    for (size_t j = 0; j < num_keys; ++j) {
      double score = 0.0;
      for (size_t d = 0; d < dim; ++d) {
        score += static_cast<double>(q[r * dim + d]) * k[j * dim + d];
      }
      weights[j] = scale * score;
    }
    const double highest = *std::max_element(weights.begin(), weights.end());
    double total = 0.0;
    for (double& weight : weights) total += weight = std::exp(weight - highest);
    for (size_t j = 0; j < num_keys; ++j) {
      for (size_t d = 0; d < dim; ++d) {
        out[r * dim + d] += weights[j] / total * v[j * dim + d];
      }
    }
  }
  return out;
}

TEST_P(SharedKvTest, MatchesTheDoubleReferenceForEveryShapeAlsoInPlace) {
  // Rows around the block of 6, keys around tiles of 64, dimensions around the vectors; the last
  // two are those of the vision tower.
  for (const size_t num_rows : {1u, 5u, 6u, 7u, 13u}) {
    for (const size_t num_keys : {1u, 2u, 63u, 64u, 65u, 130u, 576u}) {
      for (const size_t dim : {1u, 8u, 12u, 17u, 47u, 64u, 96u}) {
        SCOPED_TRACE(testing::Message()
                     << "rows=" << num_rows << " keys=" << num_keys << " dim=" << dim);
        const std::vector<float> q = RandomFloats(num_rows * dim, 1, 2.0f);
        const std::vector<float> k = RandomFloats(num_keys * dim, 2, 2.0f);
        const std::vector<float> v = RandomFloats(num_keys * dim, 3, 2.0f);
        const GuardedRow<float> guarded_q(q), guarded_v(v);
        GuardedRow<float> packed(PackedKeyFloats(num_keys, dim)), out(q.size()), in_place(q);
        GuardedRow<float> scratch(
            std::vector<float>(SharedKvScratchFloats(num_keys), kNaN));
        PackKeys(k.data(), num_keys, dim, packed.data());
        SharedKvArgs args = {guarded_q.data(), out.data(), num_rows, packed.data(),
                             guarded_v.data(), num_keys,   dim,      0.7f,
                             scratch.data()};
        kernel().attention(args);
        args.q = args.out = in_place.data();
        kernel().attention(args);
        const std::vector<double> want = Reference(q, k, v, dim, 0.7);
        for (size_t i = 0; i < want.size(); ++i) {
          // Scores are below 270, so that their rounding, which exp turns into a relative error of
          // the weights, is below 270 roundings; values are below 2.
          ASSERT_NEAR(out[i], want[i], 2.0 * (4.0 * 0.7 * dim + 8.0) * kEpsilon) << i;
          ASSERT_EQ(in_place[i], out[i]) << i;
        }
      }
    }
  }
}

TEST_P(SharedKvTest, LargeScoresDoNotOverflow) {
  const std::vector<float> q = {300.0f, -300.0f}, k = {300.0f, -300.0f, 0.0f};
  const std::vector<float> v = {1.0f, 2.0f, 3.0f};
  std::vector<float> packed(PackedKeyFloats(3, 1)), out(2), scratch(SharedKvScratchFloats(3));
  PackKeys(k.data(), 3, 1, packed.data());
  kernel().attention(
      {q.data(), out.data(), 2, packed.data(), v.data(), 3, 1, 1.0f, scratch.data()});
  EXPECT_FLOAT_EQ(out[0], 1.0f);
  EXPECT_FLOAT_EQ(out[1], 2.0f);
}

}  // namespace
}  // namespace nestling::kernels
