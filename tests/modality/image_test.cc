// SPDX-License-Identifier: Apache-2.0
#include "modality/vision/image.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>

#include "tests/modality/vision_golden.h"

namespace nestling {
namespace {

using Format = ImageView::Format;
using testing::GetVisionGolden;

ImageView Rgb(const std::vector<uint8_t>& pixels, size_t width, size_t height) {
  return {pixels, width, height, width * 3, Format::kRgb8};
}

TEST(ImageTest, ResizesLikeTheReferenceToTheBit) {
  const auto& golden = GetVisionGolden();
  const auto resized = ResizeRgb8(Rgb(golden.raw, golden.raw_width, golden.raw_height),
                                  golden.side, golden.side);
  ASSERT_TRUE(resized.ok()) << resized.status().message();
  EXPECT_EQ(*resized, golden.resized);
}

TEST(ImageTest, PreparedPixelsArePlanesOfZeroToOne) {
  const std::vector<uint8_t> pixels = {0, 51, 255, 255, 102, 0};
  const auto prepared = PrepareImage(Rgb(pixels, 2, 1), 2, 1);
  ASSERT_TRUE(prepared.ok()) << prepared.status().message();
  const std::vector<float> want = {0.0f, 1.0f, 0.2f, 0.4f, 1.0f, 0.0f};
  ASSERT_EQ(prepared->size(), want.size());
  for (size_t i = 0; i < want.size(); ++i) EXPECT_NEAR((*prepared)[i], want[i], 1e-7) << i;
}

TEST(ImageTest, SameSizeCopiesAndShrinkingAverages) {
  const std::vector<uint8_t> pixels = {10, 0, 0, 30, 0, 0, 50, 0, 0, 70, 0, 0};
  const auto same = ResizeRgb8(Rgb(pixels, 2, 2), 2, 2);
  ASSERT_TRUE(same.ok());
  EXPECT_EQ(*same, pixels);
  const auto one = ResizeRgb8(Rgb(pixels, 2, 2), 1, 1);
  ASSERT_TRUE(one.ok());
  EXPECT_EQ(*one, (std::vector<uint8_t>{40, 0, 0}));
}

TEST(ImageTest, ColorOfOneColorStays) {
  // Whatever the sizes, the weights of every output pixel add up to 1.
  for (const size_t side : {1u, 2u, 3u, 191u, 192u, 193u, 1000u}) {
    std::vector<uint8_t> pixels(side * 5 * 3);
    for (size_t i = 0; i < pixels.size(); i += 3) {
      pixels[i] = 255;
      pixels[i + 1] = 128;
      pixels[i + 2] = 1;
    }
    const auto resized = ResizeRgb8(Rgb(pixels, side, 5), 192, 192);
    ASSERT_TRUE(resized.ok());
    for (size_t i = 0; i < resized->size(); i += 3) {
      ASSERT_EQ((*resized)[i], 255) << side;
      // int16 weights: their rounding may add up to a level.
      ASSERT_NEAR((*resized)[i + 1], 128, 1) << side;
      ASSERT_NEAR((*resized)[i + 2], 1, 1) << side;
    }
  }
}

TEST(ImageTest, AlphaIsDroppedAndTheStrideSkipped) {
  const auto& golden = GetVisionGolden();
  const size_t stride = golden.raw_width * 4 + 13;
  std::vector<uint8_t> rgba(stride * golden.raw_height, 99);
  for (size_t y = 0; y < golden.raw_height; ++y) {
    for (size_t x = 0; x < golden.raw_width; ++x) {
      for (size_t c = 0; c < 3; ++c) {
        rgba[y * stride + x * 4 + c] = golden.raw[(y * golden.raw_width + x) * 3 + c];
      }
      rgba[y * stride + x * 4 + 3] = static_cast<uint8_t>(x);
    }
  }
  rgba.resize(stride * (golden.raw_height - 1) + golden.raw_width * 4);  // no padding at the end
  const auto resized =
      ResizeRgb8({rgba, golden.raw_width, golden.raw_height, stride, Format::kRgba8}, golden.side,
                 golden.side);
  ASSERT_TRUE(resized.ok()) << resized.status().message();
  EXPECT_EQ(*resized, golden.resized);
}

TEST(ImageTest, ThinImagesOfTheLongestSideAreFine) {
  const std::vector<uint8_t> pixels(kMaxImageSide * 3, 7);
  for (const bool tall : {false, true}) {
    const auto resized = ResizeRgb8(tall ? Rgb(pixels, 1, kMaxImageSide)
                                         : Rgb(pixels, kMaxImageSide, 1), 192, 192);
    ASSERT_TRUE(resized.ok()) << resized.status().message();
    EXPECT_NEAR((*resized)[192 * 192 * 3 / 2], 7, 1);
  }
}

TEST(ImageTest, WhatIsNoImageIsRefused) {
  const std::vector<uint8_t> pixels(300);
  const auto code = [&](size_t width, size_t height, size_t stride,
                        Format format = Format::kRgb8) {
    return ResizeRgb8({pixels, width, height, stride, format}, 16, 16).status().code();
  };
  EXPECT_EQ(code(10, 10, 30), StatusCode::kOk);
  EXPECT_EQ(code(0, 0, 0), StatusCode::kInvalidArgument);
  EXPECT_EQ(code(0, 10, 30), StatusCode::kInvalidArgument);
  EXPECT_EQ(code(10, 0, 30), StatusCode::kInvalidArgument);
  EXPECT_EQ(code(10, 10, 29), StatusCode::kInvalidArgument);
  EXPECT_EQ(code(10, 10, 31), StatusCode::kInvalidArgument);
  EXPECT_EQ(code(10, 10, 30, Format::kRgba8), StatusCode::kInvalidArgument);
  EXPECT_EQ(code(10, 11, 30), StatusCode::kInvalidArgument);
  EXPECT_EQ(code(10, 2, SIZE_MAX), StatusCode::kInvalidArgument);
  EXPECT_EQ(code(SIZE_MAX, 2, 30), StatusCode::kInvalidArgument);
  EXPECT_EQ(code(2, SIZE_MAX, 30), StatusCode::kInvalidArgument);
  EXPECT_EQ(code(SIZE_MAX / 3 + 1, 1, 30), StatusCode::kInvalidArgument);
  EXPECT_EQ(code(30'000, 30'000, 90'000), StatusCode::kInvalidArgument);
  EXPECT_EQ(code(kMaxImageSide + 1, 1, 3 * (kMaxImageSide + 1)), StatusCode::kInvalidArgument);
  EXPECT_EQ(ResizeRgb8(Rgb(pixels, 10, 10), 0, 16).status().code(),
            StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace nestling
