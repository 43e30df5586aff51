// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace nestling::cli {

// Pixels as a person sees them: decoded and turned as EXIF says.
struct Rgb8Image {
  size_t width = 0, height = 0;
  std::vector<uint8_t> pixels;  // [height, width, 3]
};

// A small file may claim to be an enormous picture: larger ones are refused before any memory is
// taken for their pixels.
inline constexpr size_t kMaxDecodedPixels = 100'000'000;
inline constexpr size_t kMaxImageFileBytes = 256u << 20;

// Decodes PNG, JPEG, BMP, GIF or PPM (its first frame); alpha is dropped. Empty on success, else
// one line that says what is wrong with it; *image is then unchanged.
std::string DecodeImage(std::span<const uint8_t> file, Rgb8Image* image);

// The same of a file.
std::string ReadImageFile(const std::string& path, Rgb8Image* image);

// The EXIF orientation of a JPEG file, 1 (upright) to 8; 1 if it does not say, or not properly.
int ExifOrientation(std::span<const uint8_t> file);

// Turns an image that is stored with that orientation upright.
Rgb8Image Upright(Rgb8Image image, int orientation);

}  // namespace nestling::cli
