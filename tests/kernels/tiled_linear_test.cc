// SPDX-License-Identifier: Apache-2.0
#include "kernels/tiled_linear/tiled_linear.h"

#include <cstring>

#include "tests/kernels/kernel_test.h"

namespace nestling::kernels {
namespace {

class TiledLinearTest : public KernelTest<TiledLinearKernel> {};

struct Inputs {
  Inputs(const TiledLinearKernel& kernel, size_t rows_in, size_t k_in, uint32_t seed)
      : rows(rows_in),
        k(k_in),
        codes(rows * k),
        scales(rows),
        offsets(rows * k / 32),
        totals(rows) {
    x = RandomFloats(rows * k, seed, 3.0f);
    for (size_t r = 0; r < rows; ++r) {
      const GuardedRow<float> row(
          std::vector<float>(x.begin() + static_cast<ptrdiff_t>(r * k),
                             x.begin() + static_cast<ptrdiff_t>((r + 1) * k)));
      kernel.quantize(row.data(), k, codes.data() + r * k, &scales[r], offsets.data() + r * k / 32,
                      &totals[r]);
    }
  }
  QuantizedInputs view() const {
    return {codes.data(), scales.data(), offsets.data(), totals.data()};
  }

  size_t rows, k;
  std::vector<float> x;
  GuardedRow<int8_t> codes;
  GuardedRow<float> scales;
  GuardedRow<int32_t> offsets;
  GuardedRow<int32_t> totals;
};

std::vector<uint8_t> RandomBytes(size_t n, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<uint8_t> bytes(n);
  for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random());
  return bytes;
}

std::vector<uint16_t> RandomBf16(size_t n, uint32_t seed) {
  std::vector<uint16_t> bits;
  for (const float value : RandomFloats(n, seed)) {
    uint32_t wide;
    std::memcpy(&wide, &value, sizeof wide);
    bits.push_back(static_cast<uint16_t>(wide >> 16));
  }
  return bits;
}

TEST_P(TiledLinearTest, InputsAreRoundedToTheNearestOf255Steps) {
  for (const size_t k : {32u, 64u, 256u, 2048u}) {
    const Inputs inputs(kernel(), 3, k, static_cast<uint32_t>(k));
    for (size_t r = 0; r < inputs.rows; ++r) {
      int32_t total = 0;
      for (size_t i = 0; i < k; ++i) {
        const int8_t code = inputs.codes[r * k + i];
        total += code;
        // Half a step, and the rounding of x * (127 / max).
        EXPECT_NEAR(static_cast<float>(code) * inputs.scales[r], inputs.x[r * k + i],
                    0.5f * inputs.scales[r] * (1 + 1e-4f));
      }
      EXPECT_EQ(inputs.totals[r], total);
      int32_t offsets = 0;
      for (size_t b = 0; b < k / 32; ++b) offsets += inputs.offsets[r * k / 32 + b];
      EXPECT_EQ(offsets, -8 * total);
    }
  }
}

TEST_P(TiledLinearTest, ARowOfZerosHasScaleZero) {
  const std::vector<float> zeros(64, 0.0f);
  std::vector<int8_t> codes(64, 1);
  int32_t offsets[2] = {1, 1}, total = 1;
  float scale = 1.0f;
  kernel().quantize(zeros.data(), 64, codes.data(), &scale, offsets, &total);
  EXPECT_EQ(scale, 0.0f);
  EXPECT_EQ(total, 0);
  EXPECT_EQ(codes, std::vector<int8_t>(64, 0));
}

// Rows around every block height, several tiles, only a part of them; all buffers end at a guard.
template <typename Run>
void CompareWithScalar(size_t codes_per_tile_input, bool block_scaled,
                       const TiledLinearKernel& kernel, const Run& run) {
  for (const size_t k : {32u, 96u, 256u, 2048u}) {
    for (const size_t rows :
         {1u, 2u, 3u, 4u, 5u, 6u, 7u, 8u, 9u, 10u, 11u, 12u, 13u, 15u, 16u, 17u, 33u}) {
      SCOPED_TRACE(testing::Message() << "k=" << k << " rows=" << rows);
      constexpr size_t kTiles = 3;
      const Inputs inputs(kernel, rows, k, static_cast<uint32_t>(rows * k));
      const GuardedRow<uint8_t> codes(RandomBytes(kTiles * k * codes_per_tile_input, 5));
      const GuardedRow<uint16_t> block_scales(RandomBf16(kTiles * k / 32 * 16, 6));
      const GuardedRow<float> channel_scales(RandomFloats(kTiles * 16, 7));
      std::vector<float> want(rows * kTiles * 16, 42.0f);
      GuardedRow<float> got(want);
      TiledArgs args;
      args.x = inputs.view();
      args.rows = rows;
      args.k = k;
      args.codes = codes.data();
      args.scales = block_scaled ? static_cast<const void*>(block_scales.data())
                                 : static_cast<const void*>(channel_scales.data());
      args.tile_begin = 1;
      args.tile_end = kTiles;
      args.out_stride = kTiles * 16;
      args.out = want.data();
      run(kTiledLinearScalar, args);
      args.out = got.data();
      run(kernel, args);
      for (size_t i = 0; i < want.size(); ++i) {
        if (i % (kTiles * 16) < 16) {
          EXPECT_EQ(got[i], 42.0f) << "a tile outside the span was written";
          continue;
        }
        // Blocks of at most 32 * 15 * 127 * scale, summed in f32 in the same order, once with and
        // once without fused rounding.
        const float magnitude =
            inputs.scales[i / (kTiles * 16)] * 61000.0f * std::sqrt(static_cast<float>(k / 32));
        EXPECT_NEAR(got[i], want[i], 4 * kEpsilon * magnitude) << i;
      }
    }
  }
}

TEST_P(TiledLinearTest, Int4MatchesTheScalarReference) {
  CompareWithScalar(8, true, kernel(),
                    [](const TiledLinearKernel& k, const TiledArgs& args) { k.int4(args); });
}

TEST_P(TiledLinearTest, Int4WithAScalePerChannelMatchesTheScalarReference) {
  CompareWithScalar(8, false, kernel(), [](const TiledLinearKernel& k, const TiledArgs& args) {
    k.int4_channel(args);
  });
}

TEST_P(TiledLinearTest, SumsOfTheLargestCodesAreExact) {
  // Codes 15 - 8 = 7 and -8 against inputs of -127 and 127, as far as they add up: no sum of a
  // narrower type may saturate.
  constexpr size_t kK = 8192;
  for (const int sign : {1, -1}) {
    for (const uint8_t code : {uint8_t{0}, uint8_t{15}}) {
      const std::vector<float> x(kK, static_cast<float>(sign));
      std::vector<int8_t> codes(kK);
      std::vector<int32_t> offsets(kK / 32);
      float x_scale;
      int32_t total;
      kernel().quantize(x.data(), kK, codes.data(), &x_scale, offsets.data(), &total);
      const GuardedRow<uint8_t> weights(
          std::vector<uint8_t>(kK * 8, static_cast<uint8_t>(code | code << 4)));
      const GuardedRow<float> scales(std::vector<float>(16, -0.5f));
      std::vector<float> out(16);
      kernel().int4_channel({{codes.data(), &x_scale, offsets.data(), &total},
                             1,
                             kK,
                             weights.data(),
                             scales.data(),
                             0,
                             1,
                             out.data(),
                             16});
      const float want =
          static_cast<float>(sign * 127 * (code - 8) * static_cast<int>(kK)) * (-0.5f * x_scale);
      for (const float value : out) EXPECT_EQ(value, want);
    }
  }
}

TEST_P(TiledLinearTest, Int8MatchesTheScalarReference) {
  CompareWithScalar(16, false, kernel(),
                    [](const TiledLinearKernel& k, const TiledArgs& args) { k.int8(args); });
}

TEST(TiledLinearScalarTest, MatchesTheFormulaInDouble) {
  constexpr size_t kK = 64;
  const Inputs inputs(kTiledLinearScalar, 1, kK, 3);
  const std::vector<uint8_t> codes = RandomBytes(kK * 8, 9);
  const std::vector<uint16_t> scales = RandomBf16(kK / 32 * 16, 10);
  std::vector<float> out(16);
  kTiledLinearScalar.int4(
      {inputs.view(), 1, kK, codes.data(), scales.data(), 0, 1, out.data(), 16});
  for (size_t output = 0; output < 16; ++output) {
    double sum = 0.0;
    for (size_t i = 0; i < kK; ++i) {
      const size_t block = i / 32, in_block = i % 32;
      const uint8_t pair = codes[block * 256 + in_block % 16 / 4 * 64 + output * 4 + in_block % 4];
      const int code = (in_block < 16 ? pair & 15 : pair >> 4) - 8;
      const uint32_t wide = static_cast<uint32_t>(scales[block * 16 + output]) << 16;
      float scale;
      std::memcpy(&scale, &wide, sizeof scale);
      sum += double{scale} * code * inputs.codes[i];
    }
    EXPECT_NEAR(out[output], sum * inputs.scales[0], 1e-4 * (1 + std::abs(sum) * inputs.scales[0]));
  }
}

INSTANTIATE_TEST_SUITE_P(AllKernels, TiledLinearTest, testing::ValuesIn(TiledLinearKernels()),
                         KernelName());

}  // namespace
}  // namespace nestling::kernels
