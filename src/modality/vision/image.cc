// SPDX-License-Identifier: Apache-2.0
#include "modality/vision/image.h"

#include <algorithm>
#include <cmath>

namespace nestling {
namespace {

constexpr size_t kChannels = 3;
constexpr float kRescale = 1.0f / 255.0f;  // the reference multiplies

// The weights of one axis, in fixed point.
struct Axis {
  struct Output {
    size_t first = 0;  // input that the first weight belongs to
    size_t count = 0;
    size_t weights = 0;  // index of the first weight
  };
  std::vector<Output> outputs;
  std::vector<int16_t> weights;
  int precision = 0;  // bits after the point
};

double Triangle(double x) { return std::max(0.0, 1.0 - std::abs(x)); }

// Triangles of the input's spacing, or of the output's when that is wider: the antialiasing.
Axis MakeAxis(size_t in, size_t out) {
  const double scale = static_cast<double>(in) / static_cast<double>(out);
  const double support = std::max(scale, 1.0);
  const double inverse = scale >= 1.0 ? 1.0 / scale : 1.0;
  Axis axis;
  std::vector<double> exact;
  double largest = 0.0;
  for (size_t i = 0; i < out; ++i) {
    const double center = scale * (static_cast<double>(i) + 0.5);
    const double low = center - support + 0.5, high = center + support + 0.5;
    Axis::Output output;
    output.first = low > 0.0 ? static_cast<size_t>(low) : 0;
    output.count = std::min(static_cast<size_t>(high), in) - output.first;
    output.weights = exact.size();
    double total = 0.0;
    for (size_t j = 0; j < output.count; ++j) {
      const double at = static_cast<double>(output.first + j) - center + 0.5;
      exact.push_back(Triangle(at * inverse));
      total += exact.back();
    }
    for (size_t j = output.weights; j < exact.size(); ++j) {
      exact[j] /= total;
      largest = std::max(largest, exact[j]);
    }
    axis.outputs.push_back(output);
  }
  // As many bits as a signed 16-bit weight has room for.
  while (axis.precision < 22 &&
         static_cast<int>(0.5 + largest * (2 << axis.precision)) < (1 << 15)) {
    ++axis.precision;
  }
  axis.weights.reserve(exact.size());
  for (const double weight : exact) {
    axis.weights.push_back(static_cast<int16_t>(0.5 + weight * (1 << axis.precision)));
  }
  return axis;
}

uint8_t Round(int sum, int precision) {
  return static_cast<uint8_t>(std::clamp(sum >> precision, 0, 255));
}

// One row of pixels of `step` bytes to one of three bytes.
void ResizeRow(const Axis& axis, const uint8_t* row, size_t step, uint8_t* out) {
  const int half = (1 << axis.precision) >> 1;
  for (const Axis::Output& output : axis.outputs) {
    int sums[kChannels] = {half, half, half};
    const uint8_t* pixel = row + output.first * step;
    const int16_t* weights = axis.weights.data() + output.weights;
    for (size_t j = 0; j < output.count; ++j, pixel += step) {
      for (size_t c = 0; c < kChannels; ++c) sums[c] += weights[j] * pixel[c];
    }
    for (size_t c = 0; c < kChannels; ++c) *out++ = Round(sums[c], axis.precision);
  }
}

void CopyRow(const uint8_t* row, size_t width, size_t step, uint8_t* out) {
  for (size_t x = 0; x < width; ++x) {
    for (size_t c = 0; c < kChannels; ++c) *out++ = row[x * step + c];
  }
}

// [in, row_bytes] -> [out, row_bytes].
std::vector<uint8_t> ResizeColumns(const Axis& axis, const std::vector<uint8_t>& rows,
                                   size_t row_bytes) {
  std::vector<uint8_t> resized(axis.outputs.size() * row_bytes);
  std::vector<int> sums(row_bytes);
  uint8_t* out = resized.data();
  for (const Axis::Output& output : axis.outputs) {
    std::fill(sums.begin(), sums.end(), (1 << axis.precision) >> 1);
    for (size_t j = 0; j < output.count; ++j) {
      const int weight = axis.weights[output.weights + j];
      const uint8_t* row = rows.data() + (output.first + j) * row_bytes;
      for (size_t i = 0; i < row_bytes; ++i) sums[i] += weight * row[i];
    }
    for (size_t i = 0; i < row_bytes; ++i) *out++ = Round(sums[i], axis.precision);
  }
  return resized;
}

}  // namespace

Status CheckImage(const ImageView& image) {
  if (image.width == 0 || image.height == 0) {
    return InvalidArgument("image of ", image.width, " x ", image.height,
                           " pixels, want at least 1 x 1");
  }
  if (image.width > kMaxImageSide || image.height > kMaxImageSide ||
      image.width > kMaxImagePixels / image.height) {
    return InvalidArgument("image of ", image.width, " x ", image.height,
                           " pixels, want sides of at most ", kMaxImageSide, " and at most ",
                           kMaxImagePixels, " pixels");
  }
  const size_t row_bytes = image.width * static_cast<size_t>(image.format);
  if (image.stride_bytes < row_bytes) {
    return InvalidArgument("image: stride of ", image.stride_bytes, " bytes, want at least ",
                           row_bytes, " for ", image.width, " pixels");
  }
  // Rows before the last one, without overflow.
  const size_t available = image.pixels.size();
  if (available < row_bytes ||
      (image.height > 1 && (available - row_bytes) / (image.height - 1) < image.stride_bytes)) {
    return InvalidArgument("image of ", image.width, " x ", image.height, " pixels with a stride ",
                           "of ", image.stride_bytes, " bytes: ", available, " bytes are too few");
  }
  return OkStatus();
}

Result<std::vector<uint8_t>> ResizeRgb8(const ImageView& image, size_t width, size_t height) {
  RETURN_IF_ERROR(CheckImage(image));
  if (width == 0 || height == 0) {
    return InvalidArgument("image to ", width, " x ", height, " pixels, want at least 1 x 1");
  }
  const size_t row_bytes = width * kChannels, step = static_cast<size_t>(image.format);
  std::vector<uint8_t> rows(image.height * row_bytes);
  const Axis columns = MakeAxis(image.width, width);
  for (size_t y = 0; y < image.height; ++y) {
    const uint8_t* row = image.pixels.data() + y * image.stride_bytes;
    uint8_t* out = rows.data() + y * row_bytes;
    if (image.width == width) {
      CopyRow(row, width, step, out);
    } else {
      ResizeRow(columns, row, step, out);
    }
  }
  if (image.height == height) return rows;
  return ResizeColumns(MakeAxis(image.height, height), rows, row_bytes);
}

Result<std::vector<float>> PrepareImage(const ImageView& image, size_t width, size_t height) {
  ASSIGN_OR_RETURN(const std::vector<uint8_t> resized, ResizeRgb8(image, width, height));
  const size_t plane = width * height;
  std::vector<float> pixels(kChannels * plane);
  for (size_t i = 0; i < plane; ++i) {
    for (size_t c = 0; c < kChannels; ++c) {
      pixels[c * plane + i] = static_cast<float>(resized[i * kChannels + c]) * kRescale;
    }
  }
  return pixels;
}

}  // namespace nestling
