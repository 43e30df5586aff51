// SPDX-License-Identifier: Apache-2.0
#include "pack/quantise.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "base/math.h"
#include "container/types.h"
#include "model/weights.h"

namespace nestling {
namespace {

constexpr DType kAll[] = {DType::kF32, DType::kF16, DType::kBF16,
                          DType::kQ8C, DType::kQ4C, DType::kQ4B32};
constexpr DType kQuantised[] = {DType::kQ8C, DType::kQ4C, DType::kQ4B32};

std::vector<float> Gaussian(size_t n, unsigned seed = 1) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(n);
  for (float& value : values) value = normal(generator);
  return values;
}

// One value in 200 is 8 times larger: what trained weights look like.
std::vector<float> HeavyTailed(size_t n) {
  std::vector<float> values = Gaussian(n, 2);
  for (size_t i = 0; i < n; i += 200) values[i] *= 8.0f;
  return values;
}

std::vector<float> Dequantise(const QuantisedPanel& panel, DType dtype, Layout layout, size_t out,
                              size_t in, const std::vector<uint32_t>& shell_ends = {}) {
  Matrix matrix;
  matrix.dtype = dtype;
  matrix.layout = layout;
  matrix.out = out;
  matrix.in = in;
  matrix.data = panel.elements.data();
  matrix.data_bytes = panel.elements.size();
  matrix.scales = panel.scales.empty() ? nullptr : panel.scales.data();
  matrix.scales_bytes = panel.scales.size();
  matrix.shell_ends = shell_ends;
  return DequantizeAll(matrix);
}

double SquaredError(const std::vector<float>& a, const std::vector<float>& b) {
  double sum = 0.0;
  for (size_t i = 0; i < a.size(); ++i) {
    const double difference = static_cast<double>(a[i]) - static_cast<double>(b[i]);
    sum += difference * difference;
  }
  return sum;
}

// The usual way: the largest magnitude is the last code.
double NaiveError(const std::vector<float>& values, size_t group, float last_code) {
  double sum = 0.0;
  for (size_t begin = 0; begin < values.size(); begin += group) {
    float most = 0.0f;
    for (size_t i = begin; i < begin + group; ++i) most = std::max(most, std::abs(values[i]));
    const float scale = most / last_code;
    for (size_t i = begin; i < begin + group; ++i) {
      const float difference = values[i] - std::nearbyint(values[i] / scale) * scale;
      sum += static_cast<double>(difference) * static_cast<double>(difference);
    }
  }
  return sum;
}

// The best of many scales for one block: what no search can beat by much.
double ExhaustiveBlockError(const float* x, bool negative_too) {
  float most = 0.0f;
  for (size_t i = 0; i < kBlockSize; ++i) most = std::max(most, std::abs(x[i]));
  double best = INFINITY;
  for (int step = 0; step < 500; ++step) {
    const float magnitude = most / 8.0f * (0.3f + 0.002f * static_cast<float>(step));
    for (const float sign : {1.0f, -1.0f}) {
      if (sign < 0.0f && !negative_too) continue;
      const float scale = sign * Bf16ToFloat(FloatToBf16(magnitude));
      double error = 0.0;
      for (size_t i = 0; i < kBlockSize; ++i) {
        const float code = std::clamp(std::nearbyint(x[i] / scale), -8.0f, 7.0f);
        const double difference = static_cast<double>(x[i] - code * scale);
        error += difference * difference;
      }
      best = std::min(best, error);
    }
  }
  return best;
}

TEST(QuantiseTest, FourBitsAreClearlyBetterThanTheMaximumScale) {
  constexpr size_t kRows = 64;
  constexpr size_t kLength = 2048;
  // Measured: blocks 0.78 and 0.82 of the naive squared error, channels 0.52 and 0.33.
  const struct {
    DType dtype;
    std::vector<float> values;
    double at_most;
  } cases[] = {{DType::kQ4B32, Gaussian(kRows * kLength), 0.85},
               {DType::kQ4B32, HeavyTailed(kRows * kLength), 0.88},
               {DType::kQ4C, Gaussian(kRows * kLength), 0.6},
               {DType::kQ4C, HeavyTailed(kRows * kLength), 0.4}};
  for (const auto& c : cases) {
    QuantisedPanel panel;
    QuantiseRows(c.dtype, c.values, kLength, &panel);
    const double error =
        SquaredError(c.values, Dequantise(panel, c.dtype, Layout::kRowMajor, kRows, kLength));
    const size_t group = c.dtype == DType::kQ4B32 ? kBlockSize : kLength;
    EXPECT_LT(error, c.at_most * NaiveError(c.values, group, 7.0f)) << DTypeName(c.dtype);
  }
}

TEST(QuantiseTest, EightBitsAreNeverWorseThanTheMaximumScale) {
  constexpr size_t kLength = 512;
  for (const auto& values : {Gaussian(32 * kLength), HeavyTailed(32 * kLength)}) {
    QuantisedPanel panel;
    QuantiseRows(DType::kQ8C, values, kLength, &panel);
    const double error =
        SquaredError(values, Dequantise(panel, DType::kQ8C, Layout::kRowMajor, 32, kLength));
    EXPECT_LT(error, NaiveError(values, kLength, 127.0f));
  }
}

TEST(QuantiseTest, BlocksAreWithinTwoPercentOfAnExhaustiveSearch) {
  const std::vector<float> values = Gaussian(500 * kBlockSize, 3);
  double matrix_best = 0.0;
  double ple_best = 0.0;
  for (size_t i = 0; i < values.size(); i += kBlockSize) {
    matrix_best += ExhaustiveBlockError(&values[i], /*negative_too=*/false);
    ple_best += ExhaustiveBlockError(&values[i], /*negative_too=*/true);
  }
  QuantisedPanel panel;
  QuantiseRows(DType::kQ4B32, values, kBlockSize, &panel);
  const double matrix_error =
      SquaredError(values, Dequantise(panel, DType::kQ4B32, Layout::kRowMajor, 500, kBlockSize));
  EXPECT_LT(matrix_error, 1.02 * matrix_best);

  // A PLE span of 32 is one block: 16 bytes of codes, then its scale.
  QuantisePleRows(DType::kQ4B32, values, kBlockSize, &panel);
  ASSERT_EQ(panel.elements.size(), 500u * 18u);
  QuantisedPanel split;
  for (size_t i = 0; i < 500; ++i) {
    const auto span = panel.elements.begin() + static_cast<ptrdiff_t>(i * 18);
    split.elements.insert(split.elements.end(), span, span + 16);
    split.scales.insert(split.scales.end(), span + 16, span + 18);
  }
  const double ple_error =
      SquaredError(values, Dequantise(split, DType::kQ4B32, Layout::kRowMajor, 500, kBlockSize));
  EXPECT_LT(ple_error, 1.02 * ple_best);
  EXPECT_LT(ple_error, 0.92 * matrix_error);  // what scales of both signs are for
}

TEST(QuantiseTest, ScalesOfMatricesArePositiveAndNormal) {
  std::vector<float> values = Gaussian(64 * 64, 4);
  for (float& value : values) value = -std::abs(value);  // the code -8 would want a minus
  std::fill(values.begin(), values.begin() + 64, 0.0f);  // a row of zeros
  std::fill(values.begin() + 64, values.begin() + 128, 1e-38f);
  std::fill(values.begin() + 128, values.begin() + 192, 3e38f);
  for (const DType dtype : kQuantised) {
    QuantisedPanel panel;
    QuantiseRows(dtype, values, 64, &panel);
    const size_t width = dtype == DType::kQ4B32 ? 2 : 4;
    for (size_t i = 0; i < panel.scales.size(); i += width) {
      float scale = 0.0f;
      std::memcpy(reinterpret_cast<std::byte*>(&scale) + 4 - width, &panel.scales[i], width);
      EXPECT_TRUE(std::isnormal(scale) && scale > 0.0f) << DTypeName(dtype) << ' ' << i;
    }
    const std::vector<float> back = Dequantise(panel, dtype, Layout::kRowMajor, 64, 64);
    for (size_t i = 0; i < 64; ++i) EXPECT_EQ(back[i], 0.0f);
    for (size_t i = 128; i < 192; ++i) EXPECT_NEAR(back[i] / 3e38f, 1.0f, 0.02f);
  }
}

TEST(QuantiseTest, GridPointsStayWhereTheyAre) {
  // Every code occurs, so that the only scale without error is the one of the grid.
  std::vector<float> values(32);
  for (size_t i = 0; i < 32; ++i) values[i] = 0.5f * (static_cast<float>(i % 16) - 8.0f);
  for (const DType dtype : {DType::kQ4C, DType::kQ4B32}) {
    QuantisedPanel panel;
    QuantiseRows(dtype, values, 32, &panel);
    const std::vector<float> back = Dequantise(panel, dtype, Layout::kRowMajor, 1, 32);
    // f32 least squares find the grid up to rounding.
    for (size_t i = 0; i < 32; ++i) EXPECT_NEAR(back[i], values[i], 1e-5f) << DTypeName(dtype);
  }
}

TEST(QuantiseTest, TheTransposedLayoutHoldsTheSameNumbers) {
  constexpr size_t kOut = 34;  // not a multiple of the tile
  constexpr size_t kIn = 96;
  const std::vector<float> values = Gaussian(kOut * kIn, 5);
  for (const DType dtype : kAll) {
    QuantisedPanel rows;
    QuantiseRows(dtype, values, kIn, &rows);
    std::vector<float> scales;
    if (dtype == DType::kQ8C || dtype == DType::kQ4C) {
      for (size_t o = 0; o < kOut; ++o) {
        scales.push_back(ChannelScale(dtype, std::span(values).subspan(o * kIn, kIn)));
      }
    }
    QuantisedPanel transposed;
    QuantiseTransposed(dtype, values, kIn, scales, &transposed);
    if (!scales.empty()) {
      const auto bytes = std::as_bytes(std::span(scales));
      transposed.scales.assign(bytes.begin(), bytes.end());
    }
    EXPECT_EQ(Dequantise(transposed, dtype, Layout::kTransposed, kOut, kIn, {kIn}),
              Dequantise(rows, dtype, Layout::kRowMajor, kOut, kIn))
        << DTypeName(dtype);
  }
}

TEST(QuantiseTest, TilesHoldTheNumbersThatTheirRowsWouldHave) {
  constexpr size_t kRows = 32;
  constexpr size_t kLength = 96;
  const std::vector<float> values = Gaussian(kRows * kLength, 9);
  QuantisedPanel rows;
  QuantisedPanel tiles;
  QuantiseRows(DType::kQ8C, values, kLength, &rows);
  QuantiseTiles(DType::kQ8C, values, kLength, &tiles);
  EXPECT_EQ(Dequantise(tiles, DType::kQ8C, Layout::kTiled, kRows, kLength),
            Dequantise(rows, DType::kQ8C, Layout::kRowMajor, kRows, kLength));
  // 4-bit tiles may have negative scales, as PLE spans, whose numbers these are.
  QuantisePleRows(DType::kQ4B32, values, kBlockSize, &rows);
  QuantiseTiles(DType::kQ4B32, values, kLength, &tiles);
  QuantisedPanel split;
  for (size_t i = 0; i < rows.elements.size(); i += 18) {
    const auto span = rows.elements.begin() + static_cast<ptrdiff_t>(i);
    split.elements.insert(split.elements.end(), span, span + 16);
    split.scales.insert(split.scales.end(), span + 16, span + 18);
  }
  EXPECT_EQ(Dequantise(tiles, DType::kQ4B32, Layout::kTiled, kRows, kLength),
            Dequantise(split, DType::kQ4B32, Layout::kRowMajor, kRows, kLength));
  // The same with one scale per row: a span is its codes and an f32.
  QuantisePleRows(DType::kQ4C, values, kLength, &rows);
  QuantiseTiles(DType::kQ4C, values, kLength, &tiles);
  split = {};
  for (size_t i = 0; i < rows.elements.size(); i += kLength / 2 + 4) {
    const auto span = rows.elements.begin() + static_cast<ptrdiff_t>(i);
    split.elements.insert(split.elements.end(), span, span + kLength / 2);
    split.scales.insert(split.scales.end(), span + kLength / 2, span + kLength / 2 + 4);
  }
  EXPECT_EQ(Dequantise(tiles, DType::kQ4C, Layout::kTiled, kRows, kLength),
            Dequantise(split, DType::kQ4C, Layout::kRowMajor, kRows, kLength));
}

TEST(QuantiseTest, NeuronsHoldTheNumbersOfTiles) {
  constexpr size_t kNeurons = 32;
  constexpr size_t kLength = 96;
  const std::vector<float> values = Gaussian(kNeurons * kLength, 9);
  for (const DType dtype : {DType::kQ8C, DType::kQ4B32}) {
    QuantisedPanel neurons, tiles;
    QuantiseNeurons(dtype, values, kLength, &neurons);
    QuantiseTiles(dtype, values, kLength, &tiles);
    EXPECT_EQ(Dequantise(neurons, dtype, Layout::kNeuronRows, kNeurons, kLength),
              Dequantise(tiles, dtype, Layout::kTiled, kNeurons, kLength))
        << DTypeName(dtype);
  }
  QuantisedPanel floats;
  QuantiseNeurons(DType::kF32, values, kLength, &floats);
  EXPECT_EQ(Dequantise(floats, DType::kF32, Layout::kNeuronRows, kNeurons, kLength), values);
}

TEST(QuantiseTest, PanelsOfColumnsAreStretchesOfTheWhole) {
  constexpr size_t kOut = 16;
  constexpr size_t kIn = 128;
  const std::vector<float> values = Gaussian(kOut * kIn, 6);
  QuantisedPanel whole;
  QuantiseTransposed(DType::kQ4B32, values, kIn, {}, &whole);
  QuantisedPanel joined;
  for (size_t begin = 0; begin < kIn; begin += 64) {
    std::vector<float> part;
    for (size_t o = 0; o < kOut; ++o) {
      part.insert(part.end(), &values[o * kIn + begin], &values[o * kIn + begin] + 64);
    }
    QuantisedPanel panel;
    QuantiseTransposed(DType::kQ4B32, part, 64, {}, &panel);
    joined.elements.insert(joined.elements.end(), panel.elements.begin(), panel.elements.end());
    joined.scales.insert(joined.scales.end(), panel.scales.begin(), panel.scales.end());
  }
  EXPECT_EQ(joined.elements, whole.elements);
  EXPECT_EQ(joined.scales, whole.scales);
}

TEST(QuantiseTest, PleSpansHaveTheSizeThatTheContainerWants) {
  const std::vector<float> values = Gaussian(6 * 64, 7);
  for (const DType dtype : kAll) {
    QuantisedPanel panel;
    QuantisePleRows(dtype, values, 64, &panel);
    EXPECT_EQ(panel.elements.size(), 6 * PleSpanBytes(dtype, 64).value()) << DTypeName(dtype);
    EXPECT_TRUE(panel.scales.empty());
  }
}

TEST(QuantiseTest, RowsOfAnyLengthWork) {
  for (size_t length = 1; length <= 67; ++length) {
    const std::vector<float> values = Gaussian(3 * length, 8);
    for (const DType dtype : kAll) {
      if (dtype == DType::kQ4B32 && length % kBlockSize != 0) continue;
      if (dtype == DType::kQ4C && length % 2 != 0) continue;
      QuantisedPanel panel;
      QuantiseRows(dtype, values, length, &panel);
      const std::vector<float> back = Dequantise(panel, dtype, Layout::kRowMajor, 3, length);
      // Half a step of the coarsest format, whose clipping may cost as much again.
      for (size_t i = 0; i < values.size(); ++i) EXPECT_NEAR(back[i], values[i], 0.8f);
    }
  }
}

TEST(CheckValuesTest, RefusesWhatAFormatCannotHold) {
  const float infinity = std::numeric_limits<float>::infinity();
  for (const DType dtype : kAll) {
    for (const float bad : {infinity, -infinity, std::nanf("")}) {
      EXPECT_EQ(CheckValues(dtype, std::vector<float>{1.0f, bad}).code(), StatusCode::kBadModel);
    }
    EXPECT_TRUE(CheckValues(dtype, std::vector<float>{1.0f, -65504.0f}).ok());
  }
  EXPECT_FALSE(CheckValues(DType::kF16, std::vector<float>{70000.0f}).ok());
  EXPECT_TRUE(CheckValues(DType::kBF16, std::vector<float>{70000.0f}).ok());
}

}  // namespace
}  // namespace nestling
