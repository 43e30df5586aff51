// SPDX-License-Identifier: Apache-2.0
#include "kernels/convert/convert.h"

#include <algorithm>
#include <cstring>

#include "tests/kernels/kernel_test.h"

namespace nestling::kernels {
namespace {

class ConvertTest : public KernelTest<ConvertKernel> {};
INSTANTIATE_TEST_SUITE_P(AllKernels, ConvertTest, testing::ValuesIn(ConvertKernels()),
                         KernelName());

// The value of a half by its definition; NaN for the NaNs.
double ValueOfHalf(uint16_t half) {
  const double sign = (half & 0x8000) != 0 ? -1.0 : 1.0;
  const int exponent = (half >> 10) & 31, mantissa = half & 1023;
  if (exponent == 31) return mantissa != 0 ? kNaN : sign * std::numeric_limits<double>::infinity();
  if (exponent == 0) return sign * std::ldexp(mantissa, -24);
  return sign * std::ldexp(1024 + mantissa, exponent - 25);
}

template <typename T>
std::vector<T> RandomIntegers(size_t n, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<T> values(n);
  for (T& value : values) value = static_cast<T>(random());
  return values;
}

TEST_P(ConvertTest, WidensEveryHalfExactly) {
  std::vector<uint16_t> halves(65536);
  for (size_t i = 0; i < halves.size(); ++i) halves[i] = static_cast<uint16_t>(i);
  const GuardedRow<uint16_t> half(halves);
  GuardedRow<float> out(halves.size());
  kernel().widen_half(half.data(), out.data(), halves.size());
  for (size_t i = 0; i < halves.size(); ++i) {
    const double want = ValueOfHalf(halves[i]);
    if (std::isnan(want)) {
      ASSERT_TRUE(std::isnan(out[i])) << i;
    } else {
      ASSERT_EQ(out[i], want) << i;
      ASSERT_EQ(std::signbit(out[i]), std::signbit(want)) << i;
    }
  }
}

TEST_P(ConvertTest, NarrowsToTheNearestHalfTiesToEven) {
  // Every finite half, the midpoint to its upper neighbour, and the f32 next to the midpoint.
  std::vector<float> values;
  std::vector<uint16_t> want;
  for (uint16_t magnitude = 0; magnitude < 0x7BFF; ++magnitude) {
    const float value = static_cast<float>(ValueOfHalf(magnitude));
    const float next = static_cast<float>(ValueOfHalf(static_cast<uint16_t>(magnitude + 1)));
    const float middle = value + (next - value) / 2;  // exact in f32
    const auto even = static_cast<uint16_t>(magnitude % 2 == 0 ? magnitude : magnitude + 1);
    for (const auto& [x, code] : {std::pair{value, magnitude}, std::pair{middle, even},
                                  std::pair{std::nextafter(middle, 0.0f), magnitude}}) {
      values.push_back(x);
      want.push_back(code);
      values.push_back(-x);
      want.push_back(static_cast<uint16_t>(code | 0x8000));
    }
  }
  const GuardedRow<float> x(values);
  GuardedRow<uint16_t> half(values.size());
  kernel().narrow_half(x.data(), half.data(), values.size());
  for (size_t i = 0; i < values.size(); ++i) ASSERT_EQ(half[i], want[i]) << values[i];
}

TEST_P(ConvertTest, NarrowingSaturatesAndKeepsNaN) {
  const float infinity = std::numeric_limits<float>::infinity();
  const GuardedRow<float> x({65504.0f, 65519.0f, 65520.0f, 1e30f, infinity, -65520.0f, -infinity});
  GuardedRow<uint16_t> half(x.size());
  kernel().narrow_half(x.data(), half.data(), x.size());
  for (size_t i = 0; i < x.size(); ++i) EXPECT_EQ(half[i], i < 5 ? 0x7BFF : 0xFBFF) << x[i];
  const GuardedRow<float> nans(std::vector<float>(19, kNaN));
  GuardedRow<uint16_t> narrowed(nans.size());
  kernel().narrow_half(nans.data(), narrowed.data(), nans.size());
  for (size_t i = 0; i < nans.size(); ++i) EXPECT_TRUE(std::isnan(ValueOfHalf(narrowed[i]))) << i;
}

// The exact conversions have one right answer, given in the test by its definition.
TEST_P(ConvertTest, GivesTheExactAnswerAtEveryTailLength) {
  for (size_t n : RowSizes()) {
    SCOPED_TRACE(testing::Message() << "n=" << n);
    const GuardedRow<uint16_t> words(RandomIntegers<uint16_t>(n, 1));
    const GuardedRow<int8_t> bytes(RandomIntegers<int8_t>(n, 2));
    const GuardedRow<uint8_t> nibbles(RandomIntegers<uint8_t>((n + 1) / 2, 3));
    const size_t num_blocks = (n + kInt4BlockSize - 1) / kInt4BlockSize;
    std::vector<uint16_t> block_scales;
    for (size_t b = 0; b < num_blocks; ++b) {
      block_scales.push_back(static_cast<uint16_t>(0x3C00 + 37 * b));  // about 0.0078 and above
    }
    const GuardedRow<uint16_t> scales(block_scales);
    GuardedRow<float> half(n), bf16(n), int8(n), int4(n), blocks(n);
    kernel().widen_half(words.data(), half.data(), n);
    kernel().widen_bf16(words.data(), bf16.data(), n);
    kernel().dequantize_int8(bytes.data(), 0.37f, int8.data(), n);
    kernel().dequantize_int4(nibbles.data(), 0.37f, int4.data(), n);
    kernel().dequantize_int4_blocks(nibbles.data(), scales.data(), 16.0f, blocks.data(), n);
    const auto bf16_value = [](uint16_t word) {
      const uint32_t bits = static_cast<uint32_t>(word) << 16;
      float value;
      std::memcpy(&value, &bits, sizeof(value));
      return value;
    };
    for (size_t i = 0; i < n; ++i) {
      const double want_half = ValueOfHalf(words[i]);
      ASSERT_TRUE(half[i] == want_half || (std::isnan(half[i]) && std::isnan(want_half))) << i;
      const float want_bf16 = bf16_value(words[i]);
      ASSERT_TRUE(bf16[i] == want_bf16 || (std::isnan(bf16[i]) && std::isnan(want_bf16))) << i;
      ASSERT_EQ(int8[i], static_cast<float>(bytes[i]) * 0.37f) << i;
      const int code = (i % 2 == 0 ? nibbles[i / 2] % 16 : nibbles[i / 2] / 16) - 8;
      ASSERT_EQ(int4[i], static_cast<float>(code) * 0.37f) << i;
      const float scale = bf16_value(scales[i / kInt4BlockSize]) * 16.0f;
      ASSERT_EQ(blocks[i], static_cast<float>(code) * scale) << i;
    }
  }
}

TEST_P(ConvertTest, QuantizesARowToTheFullRangeWithinHalfAStep) {
  for (size_t n : RowSizes()) {
    for (float magnitude : {1e-20f, 1.0f, 1e20f}) {
      SCOPED_TRACE(testing::Message() << "n=" << n << " magnitude=" << magnitude);
      const GuardedRow<float> x(RandomFloats(n, 4, magnitude));
      GuardedRow<int8_t> codes(n), scalar_codes(n);
      float scale = kNaN, scalar_scale = kNaN;
      kernel().quantize_int8(x.data(), codes.data(), &scale, n);
      ConvertKernels().back()->quantize_int8(x.data(), scalar_codes.data(), &scalar_scale, n);
      int largest = 0;
      for (size_t i = 0; i < n; ++i) {
        largest = std::max(largest, std::abs(static_cast<int>(codes[i])));
        // Half a step, and the roundings of a quotient of up to 127 steps.
        ASSERT_NEAR(codes[i] * static_cast<double>(scale), x[i], (0.5 + 200 * kEpsilon) * scale);
        ASSERT_EQ(codes[i], scalar_codes[i]) << i;
      }
      EXPECT_EQ(largest, 127);
      EXPECT_EQ(scale, scalar_scale);
    }
  }
}

TEST_P(ConvertTest, QuantizesARowOfZerosToZeros) {
  for (size_t n : {1u, 16u, 37u}) {
    for (float value : {0.0f, -0.0f, 1e-38f}) {
      const GuardedRow<float> x(std::vector<float>(n, value));
      GuardedRow<int8_t> codes(std::vector<int8_t>(n, 99));
      float scale = kNaN;
      kernel().quantize_int8(x.data(), codes.data(), &scale, n);
      EXPECT_EQ(scale, 0.0f);
      for (size_t i = 0; i < n; ++i) EXPECT_EQ(codes[i], 0);
    }
  }
}

}  // namespace
}  // namespace nestling::kernels
