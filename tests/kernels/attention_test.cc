// SPDX-License-Identifier: Apache-2.0
#include "kernels/attention/attention.h"

#include <algorithm>
#include <memory>

#include "kernels/convert/convert.h"
#include "tests/kernels/kernel_test.h"

namespace nestling::kernels {
namespace {

class AttentionTest : public KernelTest<AttentionKernel> {};
INSTANTIATE_TEST_SUITE_P(AllKernels, AttentionTest, testing::ValuesIn(AttentionKernels()),
                         KernelName());

const char* NameOf(KvType type) {
  switch (type) {
    case KvType::kF32:
      return "f32";
    case KvType::kF16:
      return "f16";
    case KvType::kInt8:
      break;
  }
  return "int8";
}

constexpr KvType kTypes[] = {KvType::kF32, KvType::kF16, KvType::kInt8};

// [count, dim] of one type, with a guard behind it, and what the numbers mean.
class Rows {
 public:
  Rows(KvType type, size_t count, size_t dim, uint32_t seed)
      : type_(type),
        f32_(type == KvType::kF32 ? count * dim : 1),
        f16_(type == KvType::kF16 ? count * dim : 1),
        int8_(type == KvType::kInt8 ? count * dim : 1),
        scales_(count),
        values_(count * dim) {
    const std::vector<float> random = RandomFloats(count * dim, seed);
    for (size_t j = 0; j < count; ++j) {
      const float* row = random.data() + j * dim;
      switch (type) {
        case KvType::kF32:
          std::copy_n(row, dim, f32_.data() + j * dim);
          std::copy_n(row, dim, values_.data() + j * dim);
          break;
        case KvType::kF16:
          NarrowHalf(row, f16_.data() + j * dim, dim);
          WidenHalf(f16_.data() + j * dim, values_.data() + j * dim, dim);
          break;
        case KvType::kInt8:
          QuantizeInt8(row, int8_.data() + j * dim, &scales_[j], dim);
          DequantizeInt8(int8_.data() + j * dim, scales_[j], values_.data() + j * dim, dim);
          break;
      }
    }
  }
  const void* data() const {
    switch (type_) {
      case KvType::kF32:
        return f32_.data();
      case KvType::kF16:
        return f16_.data();
      case KvType::kInt8:
        break;
    }
    return int8_.data();
  }
  const float* scales() const { return type_ == KvType::kInt8 ? scales_.data() : nullptr; }
  const float* values() const { return values_.data(); }
  GuardedRow<float>& f32() { return f32_; }

 private:
  KvType type_;
  GuardedRow<float> f32_;
  GuardedRow<uint16_t> f16_;
  GuardedRow<int8_t> int8_;
  GuardedRow<float> scales_;
  std::vector<float> values_;
};

struct Problem {
  size_t num_rows = 0;
  size_t dim = 0;
  KvType type = KvType::kF32;
  float scale = 1.0f;
  float q_magnitude = 1.0f;
  std::vector<int64_t> first_key;
  std::vector<int64_t> last_key;
  // (first position, count) of each span.
  std::vector<std::pair<int64_t, size_t>> spans;
};

// Runs the kernel on random numbers and compares with softmax in double over the same numbers.
void Check(const AttentionKernel& kernel, const Problem& p) {
  SCOPED_TRACE(testing::Message() << "rows=" << p.num_rows << " dim=" << p.dim << " "
                                  << NameOf(p.type));
  // Strides wider than a row; the last row ends at the guard.
  const size_t q_stride = p.dim + 3, out_stride = p.dim + 5;
  const GuardedRow<float> q(RandomFloats((p.num_rows - 1) * q_stride + p.dim, 1, p.q_magnitude));
  GuardedRow<float> out(std::vector<float>((p.num_rows - 1) * out_stride + p.dim, kNaN));
  GuardedRow<float> scratch(std::vector<float>(AttentionScratchFloats(p.num_rows, p.dim), kNaN));
  std::vector<std::unique_ptr<Rows>> k, v;
  AttentionArgs args = {};
  args.num_spans = p.spans.size();
  for (size_t s = 0; s < p.spans.size(); ++s) {
    const auto [first, count] = p.spans[s];
    k.push_back(std::make_unique<Rows>(p.type, count, p.dim, 10 + static_cast<uint32_t>(s)));
    v.push_back(std::make_unique<Rows>(p.type, count, p.dim, 20 + static_cast<uint32_t>(s)));
    args.spans[s] = {first, count, k[s]->data(), v[s]->data(), k[s]->scales(), v[s]->scales()};
  }
  args.q = q.data();
  args.q_stride = q_stride;
  args.out = out.data();
  args.out_stride = out_stride;
  args.num_rows = p.num_rows;
  args.first_key = p.first_key.data();
  args.last_key = p.last_key.data();
  args.head_dim = p.dim;
  args.type = p.type;
  args.scale = p.scale;
  args.scratch = scratch.data();
  kernel.attention(args);

  for (size_t r = 0; r < p.num_rows; ++r) {
    const float* query = q.data() + r * q_stride;
    std::vector<double> scores;
    std::vector<const float*> values;
    double magnitudes = 0.0;  // the largest sum of |q_d k_d| of a key
    for (size_t s = 0; s < p.spans.size(); ++s) {
      for (size_t j = 0; j < p.spans[s].second; ++j) {
        const int64_t position = p.spans[s].first + static_cast<int64_t>(j);
        if (position < p.first_key[r] || position > p.last_key[r]) continue;
        double dot = 0.0, magnitude = 0.0;
        for (size_t d = 0; d < p.dim; ++d) {
          const double term = static_cast<double>(query[d]) * k[s]->values()[j * p.dim + d];
          dot += term;
          magnitude += std::abs(term);
        }
        scores.push_back(p.scale * dot);
        magnitudes = std::max(magnitudes, p.scale * magnitude);
        values.push_back(v[s]->values() + j * p.dim);
      }
    }
    const double max = *std::max_element(scores.begin(), scores.end());
    double total = 0.0;
    for (double& score : scores) total += score = std::exp(score - max);
    // An absolute error of a score is a relative error of its weight, in the sum and in the total;
    // the sums over the keys and exp add theirs. Values are below 1.
    const double tolerance =
        2 * (SumTolerance(p.dim) + 4 * kEpsilon) * magnitudes + 2 * SumTolerance(scores.size());
    for (size_t d = 0; d < p.dim; ++d) {
      double want = 0.0;
      for (size_t j = 0; j < scores.size(); ++j) want += scores[j] / total * values[j][d];
      ASSERT_NEAR(out[r * out_stride + d], want, tolerance) << "row " << r << " column " << d;
    }
    for (size_t d = p.dim; d < out_stride && r + 1 < p.num_rows; ++d) {
      ASSERT_TRUE(std::isnan(out[r * out_stride + d])) << "wrote between rows, " << r << " " << d;
    }
  }
}

// Tokens with `heads` query heads each, the last token at the last position; row order as in
// prefill: the heads of a token are neighbours.
Problem Causal(size_t num_tokens, size_t heads, size_t num_keys, size_t dim, KvType type,
               int64_t window = 1 << 30) {
  Problem p;
  p.num_rows = num_tokens * heads;
  p.dim = dim;
  p.type = type;
  p.spans = {{0, num_keys}};
  for (size_t t = 0; t < num_tokens; ++t) {
    const int64_t last = static_cast<int64_t>(num_keys - num_tokens + t);
    for (size_t h = 0; h < heads; ++h) {
      p.first_key.push_back(std::max<int64_t>(0, last - window + 1));
      p.last_key.push_back(last);
    }
  }
  return p;
}

TEST_P(AttentionTest, MatchesTheDoubleReferenceForEveryHeadDim) {
  for (KvType type : kTypes) {
    for (size_t dim : {2u, 6u, 16u, 18u, 32u, 64u, 96u, 256u, 512u}) {
      Check(kernel(), Causal(1, 4, 70, dim, type));  // decode
      Check(kernel(), Causal(5, 4, 70, dim, type));  // prefill, widened tiles
    }
  }
}

TEST_P(AttentionTest, MatchesTheDoubleReferenceForEveryNumberOfKeys) {
  for (KvType type : kTypes) {
    for (size_t num_keys = 1; num_keys <= 2 * kAttentionTile + 3; ++num_keys) {
      SCOPED_TRACE(testing::Message() << "keys=" << num_keys);
      Check(kernel(), Causal(1, 4, num_keys, 18, type));
    }
  }
}

TEST_P(AttentionTest, MatchesTheDoubleReferenceForEveryNumberOfRows) {
  for (KvType type : kTypes) {
    for (size_t num_rows = 1; num_rows <= 19; ++num_rows) {
      Check(kernel(), Causal(num_rows, 1, 90, 34, type));  // every row its own range
    }
    Check(kernel(), Causal(64, 4, 200, 34, type));
  }
}

TEST_P(AttentionTest, SlidingWindowHidesOlderKeys) {
  for (KvType type : kTypes) {
    Check(kernel(), Causal(1, 4, 150, 32, type, 50));
    Check(kernel(), Causal(40, 2, 150, 32, type, 50));
    Check(kernel(), Causal(40, 1, 150, 32, type, 1));  // each row sees itself only
  }
}

TEST_P(AttentionTest, JoinsTheTwoSpansOfARingInAnyOrder) {
  for (KvType type : kTypes) {
    for (size_t tokens : {1u, 9u}) {
      Problem p = Causal(tokens, 4, 300, 32, type, 130);
      p.spans = {{224, 76}, {150, 74}};  // the ring's end holds the older positions
      Check(kernel(), p);
      std::swap(p.spans[0], p.spans[1]);
      Check(kernel(), p);
      p.spans = {{150, 150}, {1000, 20}};  // a span that no row sees
      Check(kernel(), p);
    }
  }
}

TEST_P(AttentionTest, SharpScoresDoNotOverflow) {
  for (KvType type : kTypes) {
    Problem p = Causal(3, 4, 200, 64, type);
    p.q_magnitude = 100.0f;  // scores of hundreds: exp of them is infinite without the maximum
    Check(kernel(), p);
    p.q_magnitude = 1.0f;
    p.scale = 0.125f;
    Check(kernel(), p);
  }
}

TEST_P(AttentionTest, NeverReadsPositionsThatNoRowSees) {
  // A ring holds garbage where nothing was written yet: NaN there must not come through.
  const size_t dim = 32, num_keys = 200, num_rows = 16;
  Rows k(KvType::kF32, num_keys, dim, 1), v(KvType::kF32, num_keys, dim, 2);
  for (size_t j = 0; j < num_keys; ++j) {
    if (j >= 70 && j <= 141) continue;
    for (size_t d = 0; d < dim; ++d) k.f32()[j * dim + d] = v.f32()[j * dim + d] = kNaN;
  }
  const GuardedRow<float> q(RandomFloats(num_rows * dim, 3));
  GuardedRow<float> out(num_rows * dim), scratch(AttentionScratchFloats(num_rows, dim));
  const std::vector<int64_t> first(num_rows, 70), last(num_rows, 141);
  kernel().attention({q.data(),
                      dim,
                      out.data(),
                      dim,
                      num_rows,
                      first.data(),
                      last.data(),
                      {{0, num_keys, k.data(), v.data(), nullptr, nullptr}, {}},
                      1,
                      dim,
                      KvType::kF32,
                      1.0f,
                      scratch.data()});
  for (size_t i = 0; i < out.size(); ++i) ASSERT_TRUE(std::isfinite(out[i])) << i;
}

TEST_P(AttentionTest, ARowThatSeesNothingGivesZeros) {
  const size_t dim = 16;
  Rows k(KvType::kF32, 10, dim, 1), v(KvType::kF32, 10, dim, 2);
  const GuardedRow<float> q(RandomFloats(4 * dim, 3));
  GuardedRow<float> out(std::vector<float>(4 * dim, kNaN)), scratch(AttentionScratchFloats(4, dim));
  const std::vector<int64_t> first = {0, 50, 0, 0}, last = {9, 60, 9, 9};
  kernel().attention({q.data(),
                      dim,
                      out.data(),
                      dim,
                      4,
                      first.data(),
                      last.data(),
                      {{0, 10, k.data(), v.data(), nullptr, nullptr}, {}},
                      1,
                      dim,
                      KvType::kF32,
                      1.0f,
                      scratch.data()});
  for (size_t d = 0; d < dim; ++d) {
    EXPECT_EQ(out[dim + d], 0.0f);
    EXPECT_NE(out[d], 0.0f);
  }
}

}  // namespace
}  // namespace nestling::kernels
