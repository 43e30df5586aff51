// SPDX-License-Identifier: Apache-2.0
#include "pack/quantise.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>

#include "base/math.h"
#include "pack/transpose.h"

// One copy of the hot loops per instruction set, chosen when the library is loaded. The sanitizers
// do not survive the loader's early call, and only glibc makes it.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && defined(__GLIBC__) && \
    !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define NESTLING_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define NESTLING_CLONES
#endif

namespace nestling {
namespace {

// Numbers that are computed side by side, whatever the width of the machine's registers.
constexpr size_t kLanes = 16;

// Adding and subtracting 1.5 * 2^23 rounds to the nearest integer, ties to even, for |x| < 2^22.
constexpr float kRound = 12582912.0f;
// Groups with no larger magnitude are zero: their scale could not be a normal number.
constexpr float kTiny = 1e-30f;

// Codes of a format: integers in [lowest, highest].
struct CodeRange {
  float lowest;
  float highest;
};
constexpr CodeRange k4Bit = {-8.0f, 7.0f};
constexpr CodeRange k4BitMirrored = {-7.0f, 8.0f};  // under a negative scale
constexpr CodeRange k8Bit = {-127.0f, 127.0f};

CodeRange RangeOf(DType dtype) { return dtype == DType::kQ8C ? k8Bit : k4Bit; }

// The smallest scale that clips nothing; 0 for a group that counts as zero.
NESTLING_CLONES
float UnclippedScale(const float* x, size_t n, CodeRange range) {
  float low[kLanes] = {};
  float high[kLanes] = {};
  const auto add = [&](float value, size_t lane) __attribute__((always_inline)) {
    low[lane] = value < low[lane] ? value : low[lane];
    high[lane] = value > high[lane] ? value : high[lane];
  };
  size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (size_t lane = 0; lane < kLanes; ++lane) add(x[i + lane], lane);
  }
  for (; i < n; ++i) add(x[i], 0);
  const float lowest = *std::min_element(low, low + kLanes);
  const float highest = *std::max_element(high, high + kLanes);
  if (std::max(highest, -lowest) < kTiny) return 0.0f;
  return std::max(highest / range.highest, lowest / range.lowest);
}

// errors[c] = squared error of the group under scales[c].
NESTLING_CLONES
void ScaleErrors(const float* x, size_t n, const float* scales, CodeRange range, float* errors) {
  float inverse[kLanes];
  float error[kLanes] = {};
  for (size_t c = 0; c < kLanes; ++c) inverse[c] = 1.0f / scales[c];
  for (size_t i = 0; i < n; ++i) {
    for (size_t c = 0; c < kLanes; ++c) {
      float code = x[i] * inverse[c];
      code = code < range.lowest ? range.lowest : code;
      code = code > range.highest ? range.highest : code;
      code = (code + kRound) - kRound;
      const float difference = x[i] - code * scales[c];
      error[c] += difference * difference;
    }
  }
  std::memcpy(errors, error, sizeof error);
}

// Codes as signed bytes, without zero point.
NESTLING_CLONES
void Encode(const float* x, size_t n, float scale, CodeRange range, int8_t* codes) {
  const float inverse = 1.0f / scale;
  for (size_t i = 0; i < n; ++i) {
    float code = x[i] * inverse;
    code = code < range.lowest ? range.lowest : code;
    code = code > range.highest ? range.highest : code;
    codes[i] = static_cast<int8_t>((code + kRound) - kRound);
  }
}

// The least-squares scale for the codes that `scale` gives: sum(x * code) / sum(code^2).
NESTLING_CLONES
float RefinedScale(const float* x, size_t n, float scale, CodeRange range) {
  const float inverse = 1.0f / scale;
  std::array<float, kLanes> products = {};
  std::array<float, kLanes> squares = {};
  const auto add = [&](size_t i, size_t lane) __attribute__((always_inline)) {
    float code = x[i] * inverse;
    code = code < range.lowest ? range.lowest : code;
    code = code > range.highest ? range.highest : code;
    code = (code + kRound) - kRound;
    products[lane] += x[i] * code;
    squares[lane] += code * code;
  };
  size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (size_t lane = 0; lane < kLanes; ++lane) add(i + lane, lane);
  }
  for (size_t lane = 0; i + lane < n; ++lane) add(i + lane, lane);
  float product = 0.0f;
  float square = 0.0f;
  for (size_t lane = 0; lane < kLanes; ++lane) {
    product += products[lane];
    square += squares[lane];
  }
  return square > 0.0f ? product / square : scale;
}

// The best scale seen so far for one group.
class ScaleSearch {
 public:
  ScaleSearch(const float* x, size_t n, CodeRange range, bool bf16)
      : x_(x), n_(n), range_(range), bf16_(bf16) {}

  // Tries kLanes scales: first, first * ratio, first * ratio^2, ...
  void Try(float first, float ratio) {
    std::array<float, kLanes> scales;
    std::array<float, kLanes> errors;
    float scale = first;
    for (size_t c = 0; c < kLanes; ++c, scale *= ratio) scales[c] = Storable(scale);
    ScaleErrors(x_, n_, scales.data(), range_, errors.data());
    for (size_t c = 0; c < kLanes; ++c) {
      // Not every error is a number: values near the end of the range overflow when squared.
      if (!(errors[c] < best_error_)) continue;
      best_error_ = errors[c];
      best_scale_ = scales[c];
    }
  }

  // Tries kLanes scales from `low` times the least-squares scale of the best codes on.
  void TryAround(float low, float ratio) {
    const float refined = RefinedScale(x_, n_, best_scale_, range_);
    if (std::isfinite(refined) && std::abs(refined) > kTiny) Try(refined * low, ratio);
  }

  float best() const { return best_scale_; }
  void set_fallback(float scale) { best_scale_ = Storable(scale); }

 private:
  float Storable(float scale) const { return bf16_ ? Bf16ToFloat(FloatToBf16(scale)) : scale; }

  const float* x_;
  size_t n_;
  CodeRange range_;
  bool bf16_;
  float best_scale_ = 1.0f;
  float best_error_ = INFINITY;
};

// Signs that a scale may have. XNNPACK wants positive ones; our own kernels, which read the PLE
// table, take both, and the larger extreme of a group can then always have the code -8.
enum class Signs { kPositive, kBoth };

// Clipping points from 5 % above the unclipped scale down to half of it, then the neighbourhood of
// the least-squares scale: rounded to bf16, it is not always the best.
float BlockScale(const float* x, Signs signs) {
  const float unclipped = UnclippedScale(x, kBlockSize, k4Bit);
  if (unclipped == 0.0f) return 1.0f;
  ScaleSearch search(x, kBlockSize, k4Bit, /*bf16=*/true);
  search.set_fallback(unclipped);
  search.Try(unclipped * 1.05f, 0.955f);
  if (signs == Signs::kBoth) {
    search.Try(-1.05f * UnclippedScale(x, kBlockSize, k4BitMirrored), 0.955f);
  }
  search.TryAround(0.965f, 1.005f);
  return search.best();
}

// The same for a whole channel. Long rows have outliers that 4 bits should clip far down; 8 bits
// can afford them.
float RowScale(DType dtype, const float* x, size_t n, Signs signs) {
  const CodeRange range = RangeOf(dtype);
  const float unclipped = UnclippedScale(x, n, range);
  if (unclipped == 0.0f) return 1.0f;
  const float ratio = dtype == DType::kQ8C ? 0.95f : 0.87f;
  ScaleSearch search(x, n, range, /*bf16=*/false);
  search.set_fallback(unclipped);
  search.Try(unclipped * 1.02f, ratio);
  if (signs == Signs::kBoth && dtype == DType::kQ4C) {
    search.Try(-1.02f * UnclippedScale(x, n, k4BitMirrored), ratio);
  }
  // The span between the neighbours of the best, in kLanes steps.
  const float fine = std::pow(ratio, 2.0f / static_cast<float>(kLanes));
  search.Try(search.best() / ratio * fine, fine);
  search.TryAround(1.0f, 1.0f);
  return search.best();
}

void PackNibbles(const int8_t* codes, size_t n, std::byte* out) {
  for (size_t i = 0; i < n; i += 2) {
    const int low = codes[i] + 8;
    const int high = codes[i + 1] + 8;
    out[i / 2] = static_cast<std::byte>(low | (high << 4));
  }
}

void StoreCodes(DType dtype, const int8_t* codes, size_t n, std::byte* out) {
  if (dtype == DType::kQ8C) {
    std::memcpy(out, codes, n);
  } else {
    PackNibbles(codes, n, out);
  }
}

// Bytes of one row of elements, and of its scales.
size_t RowBytes(DType dtype, size_t n) {
  switch (dtype) {
    case DType::kF32:
      return n * 4;
    case DType::kF16:
    case DType::kBF16:
      return n * 2;
    case DType::kQ8C:
      return n;
    case DType::kQ4C:
    case DType::kQ4B32:
      return n / 2;
  }
  return 0;
}

size_t RowScaleBytes(DType dtype, size_t n) {
  if (dtype == DType::kQ4B32) return n / kBlockSize * sizeof(uint16_t);
  return dtype == DType::kQ8C || dtype == DType::kQ4C ? sizeof(float) : 0;
}

void StoreFloats(DType dtype, const float* x, size_t n, std::byte* out) {
  if (dtype == DType::kF32) {
    std::memcpy(out, x, n * sizeof(float));
    return;
  }
  for (size_t i = 0; i < n; ++i) {
    const uint16_t bits = dtype == DType::kBF16 ? FloatToBf16(x[i]) : FloatToHalf(x[i]);
    std::memcpy(out + i * sizeof bits, &bits, sizeof bits);
  }
}

// One row, or one span of the PLE table: elements to `out`, scales to `scales`.
// `codes` is room for n codes.
void QuantiseRow(DType dtype, Signs signs, const float* x, size_t n, int8_t* codes, std::byte* out,
                 std::byte* scales) {
  if (dtype == DType::kQ4B32) {
    for (size_t i = 0; i < n; i += kBlockSize, scales += sizeof(uint16_t)) {
      const float scale = BlockScale(x + i, signs);
      Encode(x + i, kBlockSize, scale, k4Bit, codes + i);
      const uint16_t bits = FloatToBf16(scale);
      std::memcpy(scales, &bits, sizeof bits);
    }
    PackNibbles(codes, n, out);
  } else if (dtype == DType::kQ8C || dtype == DType::kQ4C) {
    const float scale = RowScale(dtype, x, n, signs);
    Encode(x, n, scale, RangeOf(dtype), codes);
    StoreCodes(dtype, codes, n, out);
    std::memcpy(scales, &scale, sizeof scale);
  } else {
    StoreFloats(dtype, x, n, out);
  }
}

void QuantiseRowsWith(Signs signs, DType dtype, std::span<const float> values, size_t row_length,
                      QuantisedPanel* panel) {
  const size_t rows = values.size() / row_length;
  const size_t row_bytes = RowBytes(dtype, row_length);
  const size_t scale_bytes = RowScaleBytes(dtype, row_length);
  panel->elements.resize(rows * row_bytes);
  panel->scales.resize(rows * scale_bytes);
  std::vector<int8_t> codes(row_length);
  for (size_t r = 0; r < rows; ++r) {
    QuantiseRow(dtype, signs, values.data() + r * row_length, row_length, codes.data(),
                panel->elements.data() + r * row_bytes, panel->scales.data() + r * scale_bytes);
  }
}

// From rows to tiles; scales of channels stay as they are.
void ArrangeTiles(DType dtype, size_t row_length, QuantisedPanel* panel) {
  const std::vector<std::byte> rows = std::move(panel->elements);
  const size_t row_bytes = RowBytes(dtype, row_length);
  const size_t num_rows = rows.size() / row_bytes;
  std::vector<std::byte>& tiles = panel->elements;
  tiles.assign(rows.size(), std::byte{});
  if (dtype == DType::kQ8C) {
    for (size_t r = 0; r < num_rows; ++r) {
      std::byte* const tile = tiles.data() + r / kTileOutputs * kTileOutputs * row_length;
      for (size_t i = 0; i < row_length; i += 4) {
        std::memcpy(tile + i / 4 * 64 + r % kTileOutputs * 4, &rows[r * row_bytes + i], 4);
      }
    }
    return;
  }
  const std::vector<std::byte> row_scales = panel->scales;
  const size_t blocks = row_length / kBlockSize;
  for (size_t r = 0; r < num_rows; ++r) {
    for (size_t b = 0; b < blocks; ++b) {
      const size_t block = r / kTileOutputs * blocks + b;
      const std::byte* const row = &rows[r * row_bytes + b * kBlockSize / 2];
      std::byte* const tile = tiles.data() + block * 256 + r % kTileOutputs * 4;
      for (size_t i = 0; i < kBlockSize / 2; ++i) {
        // Input i in the low half, input i + 16 in the high half.
        const std::byte low = row[i / 2], high = row[(i + 16) / 2];
        const bool odd = i % 2 != 0;
        tile[i / 4 * 64 + i % 4] =
            (odd ? low >> 4 : low & std::byte{15}) | (odd ? high & std::byte{0xf0} : high << 4);
      }
      if (dtype == DType::kQ4C) continue;
      std::memcpy(&panel->scales[(block * kTileOutputs + r % kTileOutputs) * sizeof(uint16_t)],
                  &row_scales[(r * blocks + b) * sizeof(uint16_t)], sizeof(uint16_t));
    }
  }
}

}  // namespace

Status CheckValues(DType dtype, std::span<const float> values) {
  const float limit = dtype == DType::kF16 ? 65504.0f : std::numeric_limits<float>::max();
  size_t outside = 0;
  for (const float value : values) outside += std::abs(value) <= limit ? 0 : 1;
  if (outside == 0) return OkStatus();
  for (size_t i = 0; i < values.size(); ++i) {
    if (std::abs(values[i]) <= limit) continue;
    return BadModel("value ", values[i], ", ", DTypeName(dtype), " wants finite numbers up to ",
                    limit);
  }
  return OkStatus();
}

float ChannelScale(DType dtype, std::span<const float> values) {
  return RowScale(dtype, values.data(), values.size(), Signs::kPositive);
}

void QuantiseRows(DType dtype, std::span<const float> values, size_t row_length,
                  QuantisedPanel* panel) {
  QuantiseRowsWith(Signs::kPositive, dtype, values, row_length, panel);
}

void QuantiseTiles(DType dtype, std::span<const float> values, size_t row_length,
                   QuantisedPanel* panel) {
  QuantiseRowsWith(Signs::kBoth, dtype, values, row_length, panel);
  ArrangeTiles(dtype, row_length, panel);
}

void QuantiseNeurons(DType dtype, std::span<const float> values, size_t length,
                     QuantisedPanel* panel) {
  QuantiseRowsWith(Signs::kBoth, dtype, values, length, panel);
  if (dtype != DType::kQ4B32) return;
  for (size_t begin = 0; begin < panel->elements.size(); begin += kBlockSize / 2) {
    std::byte* const block = panel->elements.data() + begin;
    std::byte row[kBlockSize / 2];
    std::memcpy(row, block, sizeof row);
    // Element i in the low half, element i + 16 in the high half.
    for (size_t i = 0; i < kBlockSize / 2; ++i) {
      const std::byte low = row[i / 2], high = row[(i + 16) / 2];
      block[i] =
          i % 2 != 0 ? (low >> 4) | (high & std::byte{0xf0}) : (low & std::byte{15}) | (high << 4);
    }
  }
}

void QuantisePleRows(DType dtype, std::span<const float> values, size_t ple_dim,
                     QuantisedPanel* panel) {
  const size_t spans = values.size() / ple_dim;
  const size_t element_bytes = RowBytes(dtype, ple_dim);
  const size_t span_bytes = element_bytes + RowScaleBytes(dtype, ple_dim);
  panel->elements.resize(spans * span_bytes);
  panel->scales.clear();
  std::vector<int8_t> codes(ple_dim);
  for (size_t i = 0; i < spans; ++i) {
    std::byte* const span = panel->elements.data() + i * span_bytes;
    QuantiseRow(dtype, Signs::kBoth, values.data() + i * ple_dim, ple_dim, codes.data(), span,
                span + element_bytes);
  }
}

void QuantiseTransposed(DType dtype, std::span<const float> values, size_t columns,
                        std::span<const float> channel_scales, QuantisedPanel* panel) {
  const size_t out = values.size() / columns;
  panel->elements.resize(columns * RowBytes(dtype, out));
  panel->scales.clear();
  if (dtype == DType::kF32 || dtype == DType::kF16 || dtype == DType::kBF16) {
    std::vector<float> transposed(values.size());
    Transpose(values.data(), out, columns, transposed.data());
    StoreFloats(dtype, transposed.data(), transposed.size(), panel->elements.data());
    return;
  }
  std::vector<int8_t> codes(values.size());  // [out, columns]
  const size_t blocks = dtype == DType::kQ4B32 ? columns / kBlockSize : 0;
  panel->scales.resize(blocks * out * sizeof(uint16_t));
  for (size_t o = 0; o < out; ++o) {
    const float* const x = values.data() + o * columns;
    int8_t* const row = codes.data() + o * columns;
    if (dtype != DType::kQ4B32) {
      Encode(x, columns, channel_scales[o], RangeOf(dtype), row);
      continue;
    }
    for (size_t b = 0; b < blocks; ++b) {
      const float scale = BlockScale(x + b * kBlockSize, Signs::kPositive);
      Encode(x + b * kBlockSize, kBlockSize, scale, k4Bit, row + b * kBlockSize);
      const uint16_t bits = FloatToBf16(scale);
      std::memcpy(panel->scales.data() + (b * out + o) * sizeof bits, &bits, sizeof bits);
    }
  }
  std::vector<int8_t> transposed(codes.size());  // [columns, out]
  Transpose(codes.data(), out, columns, transposed.data());
  StoreCodes(dtype, transposed.data(), transposed.size(), panel->elements.data());
}

}  // namespace nestling
