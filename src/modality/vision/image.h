// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/status.h"

namespace nestling {

// An image that the caller holds: rows from the top, pixels from the left.
struct ImageView {
  enum class Format { kRgb8 = 3, kRgba8 = 4 };  // bytes a pixel

  std::span<const uint8_t> pixels;
  size_t width = 0, height = 0;
  size_t stride_bytes = 0;  // from one row to the next
  Format format = Format::kRgb8;
};

// Of what ResizeRgb8 and PrepareImage accept.
inline constexpr size_t kMaxImagePixels = 100'000'000;
inline constexpr size_t kMaxImageSide = 65'535;

// kInvalidArgument: an empty image, a row that does not fit the stride, too few bytes, more than
// kMaxImagePixels or kMaxImageSide.
Status CheckImage(const ImageView& image);

// Resizes to [height, width, 3] as the reference's image processor does: bilinear, antialiased
// when it shrinks, the aspect ratio not kept, rounded to 8 bits after each of the two passes
// (torchvision's fixed-point arithmetic, to the bit). Alpha is dropped, not blended. Errors of
// CheckImage.
Result<std::vector<uint8_t>> ResizeRgb8(const ImageView& image, size_t width, size_t height);

// The tower's input: resized, [3, height, width], in 0 .. 1. No mean, no deviation. Errors of
// CheckImage.
Result<std::vector<float>> PrepareImage(const ImageView& image, size_t width, size_t height);

}  // namespace nestling
