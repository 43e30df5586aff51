// SPDX-License-Identifier: Apache-2.0
#include "kernels/sparse_ffn/sparse_ffn.h"

#include <cstring>

#include "tests/kernels/kernel_test.h"

namespace nestling::kernels {
namespace {

class SparseFfnTest : public KernelTest<SparseFfnKernel> {};

constexpr NeuronFormat kFormats[] = {NeuronFormat::kF32, NeuronFormat::kInt8, NeuronFormat::kInt4};

// Rows of random weights; every buffer ends at a guard.
class Rows {
 public:
  Rows(NeuronFormat format, size_t neurons, size_t width)
      : floats_(RandomFloats(format == NeuronFormat::kF32 ? neurons * width : 1, 1)),
        codes_(format == NeuronFormat::kInt8   ? neurons * width
               : format == NeuronFormat::kInt4 ? neurons * width / 2
                                               : 1),
        row_scales_(RandomFloats(neurons, 2, 0.01f)),
        block_scales_(format == NeuronFormat::kInt4 ? neurons * width / 32 : 1) {
    std::mt19937 random(3);
    for (size_t i = 0; i < codes_.size(); ++i) codes_[i] = static_cast<uint8_t>(random());
    if (format == NeuronFormat::kInt8) {  // -128 is no code
      for (size_t i = 0; i < codes_.size(); ++i) codes_[i] += codes_[i] == 0x80 ? 1 : 0;
    }
    const std::vector<float> scales = RandomFloats(block_scales_.size(), 4, 0.1f);
    for (size_t i = 0; i < scales.size(); ++i) {
      uint32_t wide;
      std::memcpy(&wide, &scales[i], sizeof wide);
      block_scales_[i] = static_cast<uint16_t>(wide >> 16);
    }
    view.format = format;
    view.width = width;
    view.codes = format == NeuronFormat::kF32 ? static_cast<const void*>(floats_.data())
                                              : static_cast<const void*>(codes_.data());
    view.scales = format == NeuronFormat::kInt8 ? static_cast<const void*>(row_scales_.data())
                                                : static_cast<const void*>(block_scales_.data());
  }

  NeuronRows view;

 private:
  GuardedRow<float> floats_;
  GuardedRow<uint8_t> codes_;
  GuardedRow<float> row_scales_;
  GuardedRow<uint16_t> block_scales_;
};

class Inputs {
 public:
  Inputs(size_t tokens, size_t width)
      : floats_(RandomFloats(tokens * width, 5)),
        codes_(tokens * width),
        scales_(tokens),
        offsets_(tokens * (width / 32) + 1),
        totals_(tokens) {
    for (size_t t = 0; t < tokens; ++t) {
      if (width % 32 != 0) continue;
      kTiledLinearScalar.quantize(floats_.data() + t * width, width, codes_.data() + t * width,
                                  &scales_[t], offsets_.data() + t * (width / 32), &totals_[t]);
    }
    view = {floats_.data(), {codes_.data(), scales_.data(), offsets_.data(), totals_.data()}};
  }

  NeuronInputs view;

 private:
  GuardedRow<float> floats_;
  GuardedRow<int8_t> codes_;
  GuardedRow<float> scales_;
  std::vector<int32_t> offsets_;
  GuardedRow<int32_t> totals_;
};

std::vector<size_t> Widths(NeuronFormat format) {
  if (format != NeuronFormat::kF32) return {32, 64, 96, 128, 160, 192, 544, 1056, 2048};
  std::vector<size_t> widths = {2048, 2049};
  for (size_t n = 1; n <= 67; ++n) widths.push_back(n);
  return widths;
}

TEST_P(SparseFfnTest, SelectsWhatIsAboveTheCutInOrder) {
  for (const size_t n : RowSizes()) {
    const GuardedRow<float> gate(RandomFloats(n, static_cast<uint32_t>(n)));
    for (const float cut : {-2.0f, 0.0f, 0.9f, 2.0f}) {
      SCOPED_TRACE(testing::Message() << "n=" << n << " cut=" << cut);
      GuardedRow<uint32_t> neurons(n);
      GuardedRow<float> values(n);
      const size_t count = kernel().select(gate.data(), n, cut, 100, neurons.data(), values.data());
      size_t want = 0;
      for (size_t i = 0; i < n; ++i) {
        if (gate[i] <= cut) continue;
        ASSERT_LT(want, count);
        EXPECT_EQ(neurons[want], 100 + i);
        EXPECT_EQ(values[want], gate[i] - cut);
        ++want;
      }
      EXPECT_EQ(count, want);
    }
  }
}

TEST_P(SparseFfnTest, NothingIsAboveACutThatIsNoNumber) {
  const std::vector<float> gate = {1.0f, kNaN, -1.0f, INFINITY, 0.0f, 3.0f, 2.0f, 1.0f, 5.0f};
  std::vector<uint32_t> neurons(gate.size());
  std::vector<float> values(gate.size());
  EXPECT_EQ(kernel().select(gate.data(), gate.size(), kNaN, 0, neurons.data(), values.data()), 0u);
  // Nor is what is no number above anything.
  EXPECT_EQ(kernel().select(gate.data(), gate.size(), 2.5f, 0, neurons.data(), values.data()), 3u);
  EXPECT_EQ(neurons[0], 3u);
}

TEST_P(SparseFfnTest, DotsMatchTheScalarReference) {
  constexpr size_t kNeurons = 5, kTokens = 7;
  for (const NeuronFormat format : kFormats) {
    for (const size_t width : Widths(format)) {
      SCOPED_TRACE(testing::Message()
                   << "format " << static_cast<int>(format) << " width " << width);
      const Rows rows(format, kNeurons, width);
      const Inputs inputs(kTokens, width);
      // Runs of 1 to 7 tokens that share a neuron.
      std::vector<NeuronUse> uses;
      for (uint32_t run = 1; run <= kTokens; ++run) {
        for (uint32_t t = 0; t < run; ++t) uses.push_back({run % uint32_t{kNeurons}, t});
      }
      std::vector<float> want(uses.size());
      GuardedRow<float> got(uses.size());
      kSparseFfnScalar.dots(rows.view, inputs.view, uses.data(), uses.size(), want.data());
      kernel().dots(rows.view, inputs.view, uses.data(), uses.size(), got.data());
      // Products are of order 1, and int4 adds its zero point separately.
      const float magnitude = static_cast<float>(width);
      for (size_t i = 0; i < uses.size(); ++i) {
        EXPECT_NEAR(got[i], want[i], SumTolerance(width) * magnitude) << i;
      }
    }
  }
}

TEST_P(SparseFfnTest, ADotDoesNotDependOnItsNeighbours) {
  constexpr size_t kNeurons = 3, kTokens = 6, kWidth = 160;
  for (const NeuronFormat format : kFormats) {
    const Rows rows(format, kNeurons, kWidth);
    const Inputs inputs(kTokens, kWidth);
    std::vector<NeuronUse> uses;
    for (uint32_t n = 0; n < kNeurons; ++n) {
      for (uint32_t t = 0; t < kTokens; ++t) uses.push_back({n, t});
    }
    std::vector<float> together(uses.size());
    kernel().dots(rows.view, inputs.view, uses.data(), uses.size(), together.data());
    for (size_t i = 0; i < uses.size(); ++i) {
      float alone = 0.0f;
      kernel().dots(rows.view, inputs.view, &uses[i], 1, &alone);
      EXPECT_EQ(alone, together[i]) << i;
    }
  }
}

TEST_P(SparseFfnTest, SumsMatchTheScalarReference) {
  constexpr size_t kNeurons = 23;
  for (const NeuronFormat format : kFormats) {
    for (const size_t width : Widths(format)) {
      const Rows rows(format, kNeurons, width);
      for (const size_t count : {0u, 1u, 3u, 4u, 5u, 11u}) {
        SCOPED_TRACE(testing::Message() << "format " << static_cast<int>(format) << " width "
                                        << width << " neurons " << count);
        const GuardedRow<float> factors(RandomFloats(count, 8));
        GuardedRow<uint32_t> neurons(count);
        for (size_t k = 0; k < count; ++k) neurons[k] = static_cast<uint32_t>(2 * k + 1) % kNeurons;
        const size_t begin = width > 64 ? 32 : 0;
        std::vector<float> want(width - begin);
        GuardedRow<float> got(width - begin);
        kSparseFfnScalar.sum(rows.view, neurons.data(), factors.data(), count, begin, width,
                             want.data());
        kernel().sum(rows.view, neurons.data(), factors.data(), count, begin, width, got.data());
        for (size_t j = 0; j < want.size(); ++j) {
          EXPECT_NEAR(got[j], want[j], 4 * SumTolerance(count)) << j;
        }
      }
    }
  }
}

TEST_P(SparseFfnTest, ASumDoesNotDependOnItsSpan) {
  constexpr size_t kNeurons = 9, kWidth = 672;
  const std::vector<uint32_t> neurons = {0, 1, 3, 4, 5, 7, 8};
  const std::vector<float> factors = RandomFloats(neurons.size(), 9);
  for (const NeuronFormat format : kFormats) {
    const Rows rows(format, kNeurons, kWidth);
    std::vector<float> whole(kWidth);
    kernel().sum(rows.view, neurons.data(), factors.data(), neurons.size(), 0, kWidth,
                 whole.data());
    for (size_t begin = 0; begin < kWidth; begin += 96) {
      std::vector<float> part(96);
      kernel().sum(rows.view, neurons.data(), factors.data(), neurons.size(), begin, begin + 96,
                   part.data());
      EXPECT_EQ(std::memcmp(part.data(), &whole[begin], 96 * sizeof(float)), 0) << begin;
    }
  }
}

// Lists of several tokens, with a last block that is not full and blocks that nobody needs.
struct Lists {
  Lists(size_t num_tokens, size_t num_neurons, float density)
      : blocks((num_neurons + kNeuronBlock - 1) / kNeuronBlock),
        stride(num_tokens * kNeuronBlock),
        neurons(blocks * stride),
        factors(RandomFloats(blocks * stride, 10)),
        starts(blocks * (num_tokens + 1)),
        by_token(num_tokens) {
    const std::vector<float> draws = RandomFloats(num_tokens * num_neurons, 11, 0.5f);
    for (size_t b = 0; b < blocks; ++b) {
      uint32_t count = 0;
      for (size_t t = 0; t < num_tokens; ++t) {
        for (size_t n = b * kNeuronBlock; n < (b + 1) * kNeuronBlock && n < num_neurons; ++n) {
          if (b == 1 || draws[t * num_neurons + n] + 0.5f > density) continue;
          by_token[t].push_back(b * stride + count);
          neurons[b * stride + count++] = static_cast<uint32_t>(n);
        }
        starts[b * (num_tokens + 1) + t + 1] = count;
      }
    }
  }
  size_t blocks, stride;
  std::vector<uint32_t> neurons;
  std::vector<float> factors;
  std::vector<uint32_t> starts;
  std::vector<std::vector<size_t>> by_token;  // its elements
};

TEST_P(SparseFfnTest, SumsOfManyTokensAreThoseOfEachToken) {
  constexpr size_t kNeurons = 3 * kNeuronBlock + 17;
  for (const NeuronFormat format : kFormats) {
    for (const size_t width : {32u, 96u, 160u, 288u}) {
      const Rows rows(format, kNeurons, width);
      for (const float density : {0.0f, 0.05f, 0.5f, 1.0f}) {
        // Once more tokens than are added up at a time.
        const size_t num_tokens = width == 96 ? 131 : 5;
        SCOPED_TRACE(testing::Message() << "format " << static_cast<int>(format) << " width "
                                        << width << " density " << density);
        const Lists lists(num_tokens, kNeurons, density);
        const size_t begin = width > 96 ? 32 : 0;
        GuardedRow<float> got(std::vector<float>(num_tokens * width, 42.0f));
        kernel().sum_of_tokens({rows.view, num_tokens, lists.blocks, lists.starts.data(),
                                lists.neurons.data(), lists.factors.data(), lists.stride, begin,
                                width, got.data()});
        for (size_t t = 0; t < num_tokens; ++t) {
          std::vector<uint32_t> neurons;
          std::vector<float> factors;
          for (const size_t element : lists.by_token[t]) {
            neurons.push_back(lists.neurons[element]);
            factors.push_back(lists.factors[element]);
          }
          const size_t count = neurons.size();
          std::vector<float> want(width - begin);
          kSparseFfnScalar.sum(rows.view, neurons.data(), factors.data(), count, begin, width,
                               want.data());
          for (size_t j = 0; j < width; ++j) {
            if (j < begin) {
              EXPECT_EQ(got[t * width + j], 42.0f) << "an output outside the span was written";
            } else {
              EXPECT_NEAR(got[t * width + j], want[j - begin],
                          4 * SumTolerance(count) * std::sqrt(static_cast<float>(count + 1)));
            }
          }
        }
      }
    }
  }
}

TEST(SparseFfnScalarTest, MatchesTheFormulaInDouble) {
  constexpr size_t kWidth = 64;
  const Rows rows(NeuronFormat::kInt4, 2, kWidth);
  const auto* codes = static_cast<const uint8_t*>(rows.view.codes);
  const auto* scales = static_cast<const uint16_t*>(rows.view.scales);
  const auto element = [&](size_t neuron, size_t i) {
    const uint8_t pair = codes[neuron * kWidth / 2 + i / 32 * 16 + i % 16];
    const uint32_t wide = static_cast<uint32_t>(scales[neuron * kWidth / 32 + i / 32]) << 16;
    float scale;
    std::memcpy(&scale, &wide, sizeof scale);
    return double{scale} * ((i % 32 < 16 ? pair & 15 : pair >> 4) - 8);
  };
  const Inputs inputs(1, kWidth);
  const NeuronUse use = {1, 0};
  float dot = 0.0f;
  kSparseFfnScalar.dots(rows.view, inputs.view, &use, 1, &dot);
  double want = 0.0;
  for (size_t i = 0; i < kWidth; ++i) {
    want += element(1, i) * inputs.view.codes.codes[i] * inputs.view.codes.scales[0];
  }
  EXPECT_NEAR(dot, want, 1e-5);
  const uint32_t neurons[] = {0, 1};
  const float factors[] = {2.0f, -3.0f};
  std::vector<float> sums(kWidth);
  kSparseFfnScalar.sum(rows.view, neurons, factors, 2, 0, kWidth, sums.data());
  for (size_t j = 0; j < kWidth; ++j) {
    EXPECT_NEAR(sums[j], 2.0 * element(0, j) - 3.0 * element(1, j), 1e-5);
  }
}

INSTANTIATE_TEST_SUITE_P(AllKernels, SparseFfnTest, testing::ValuesIn(SparseFfnKernels()),
                         KernelName());

}  // namespace
}  // namespace nestling::kernels
