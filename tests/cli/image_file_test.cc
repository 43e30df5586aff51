// SPDX-License-Identifier: Apache-2.0
#include "cli/image_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <fstream>
#include <iterator>
#include <string>
#include <string_view>

namespace nestling::cli {
namespace {

using testing::HasSubstr;

const char kFolder[] = NESTLING_SOURCE_DIR "/tests/golden/images/";

std::vector<uint8_t> ReadBytes(const std::string& name) {
  std::ifstream file(kFolder + name, std::ios::binary);
  std::vector<uint8_t> bytes((std::istreambuf_iterator<char>(file)),
                             std::istreambuf_iterator<char>());
  EXPECT_GT(bytes.size(), 24u) << name;
  return bytes;
}

// The picture of make_images.py: red, green, blue and white quarters. JPEG is near to it only.
void ExpectPicture(const Rgb8Image& image, int tolerance) {
  ASSERT_EQ(image.width, 32u);
  ASSERT_EQ(image.height, 16u);
  ASSERT_EQ(image.pixels.size(), 32u * 16 * 3);
  const std::array<std::array<int, 3>, 4> colors = {
      {{255, 0, 0}, {0, 255, 0}, {0, 0, 255}, {255, 255, 255}}};
  for (size_t quarter = 0; quarter < 4; ++quarter) {
    const size_t x = quarter % 2 == 0 ? 4 : 28, y = quarter < 2 ? 3 : 12;
    for (size_t c = 0; c < 3; ++c) {
      EXPECT_NEAR(image.pixels[(y * 32 + x) * 3 + c], colors[quarter][c], tolerance)
          << "quarter " << quarter << " channel " << c;
    }
  }
}

TEST(ImageFileTest, ReadsPngBmpAndTheFirstFrameOfAGif) {
  for (const char* name : {"rgb.png", "rgba.png", "palette.png", "rgb.bmp", "two_frames.gif"}) {
    SCOPED_TRACE(name);
    Rgb8Image image;
    ASSERT_EQ(ReadImageFile(std::string(kFolder) + name, &image), "");
    ExpectPicture(image, 0);
  }
}

TEST(ImageFileTest, ReadsBinaryPpm) {
  const std::string_view text = "P6\n2 1\n255\n\1\2\3\4\5\6";
  const std::vector<uint8_t> file(text.begin(), text.end());
  Rgb8Image image;
  ASSERT_EQ(DecodeImage(file, &image), "");
  EXPECT_EQ(image.width, 2u);
  EXPECT_EQ(image.height, 1u);
  EXPECT_EQ(image.pixels, (std::vector<uint8_t>{1, 2, 3, 4, 5, 6}));
}

TEST(ImageFileTest, TurnsJpegsUprightForEveryExifOrientation) {
  for (int orientation = 1; orientation <= 8; ++orientation) {
    SCOPED_TRACE(orientation);
    const std::vector<uint8_t> file =
        ReadBytes("orientation_" + std::to_string(orientation) + ".jpg");
    EXPECT_EQ(ExifOrientation(file), orientation);
    Rgb8Image image;
    ASSERT_EQ(DecodeImage(file, &image), "");
    ExpectPicture(image, 6);
  }
}

TEST(ImageFileTest, MissingFileSaysWhich) {
  Rgb8Image image;
  EXPECT_THAT(ReadImageFile("/no/such/picture.png", &image), HasSubstr("/no/such/picture.png"));
}

TEST(ImageFileTest, WhatIsNoImageIsRefusedAndLeavesTheOldOne) {
  Rgb8Image image;
  image.width = 7;
  EXPECT_THAT(DecodeImage({}, &image), HasSubstr("not a PNG"));
  const std::vector<uint8_t> text(100, 'a');
  EXPECT_THAT(DecodeImage(text, &image), HasSubstr("not a PNG"));
  EXPECT_EQ(image.width, 7u);
}

TEST(ImageFileTest, EveryTruncationIsAnErrorOrAnImageOfTheSameSize) {
  for (const char* name :
       {"rgb.png", "rgba.png", "rgb.bmp", "two_frames.gif", "orientation_6.jpg"}) {
    const std::vector<uint8_t> whole = ReadBytes(name);
    for (size_t size = 0; size < whole.size(); ++size) {
      SCOPED_TRACE(testing::Message() << name << " cut to " << size);
      // Exact-sized, so that a sanitizer sees a read past the end.
      const std::vector<uint8_t> cut(whole.begin(), whole.begin() + static_cast<ptrdiff_t>(size));
      Rgb8Image image;
      if (DecodeImage(cut, &image).empty()) {
        EXPECT_EQ(image.pixels.size(), 32u * 16 * 3);
      }
    }
  }
}

TEST(ImageFileTest, FlippedBytesNeverDoMoreThanFail) {
  for (const char* name :
       {"rgb.png", "palette.png", "rgb.bmp", "two_frames.gif", "orientation_3.jpg"}) {
    const std::vector<uint8_t> whole = ReadBytes(name);
    // The compressed data of a JPEG is long; its headers are what steers the decoder.
    for (size_t at = 0; at < std::min<size_t>(whole.size(), 700); ++at) {
      std::vector<uint8_t> damaged = whole;
      damaged[at] ^= static_cast<uint8_t>(1 + at * 37 % 255);
      Rgb8Image image;
      if (DecodeImage(damaged, &image).empty()) {
        ASSERT_EQ(image.pixels.size(), image.width * image.height * 3) << name << " " << at;
      }
    }
  }
}

TEST(ImageFileTest, DecompressionBombIsRefusedByItsHeader) {
  std::vector<uint8_t> png = ReadBytes("rgb.png");
  const auto with_side = [&](uint8_t high, uint8_t low) {
    for (const size_t at : {16u, 20u}) {
      png[at + 2] = high;
      png[at + 3] = low;
    }
    Rgb8Image image;
    return DecodeImage(png, &image);
  };
  EXPECT_THAT(with_side(0x2A, 0xF8), HasSubstr("11000 x 11000"));
  EXPECT_THAT(with_side(0x75, 0x30), HasSubstr("too many"));  // 30,000 a side
}

TEST(ImageFileTest, HuffmanTablesWithTooManyCodesAreRefused) {
  std::vector<uint8_t> jpeg = ReadBytes("orientation_1.jpg");
  size_t found = 0;
  for (size_t at = 0; at + 22 < jpeg.size(); ++at) {
    if (jpeg[at] != 0xFF || jpeg[at + 1] != 0xC4) continue;
    ++found;
    std::vector<uint8_t> damaged = jpeg;
    std::fill_n(damaged.begin() + static_cast<ptrdiff_t>(at) + 5, 16, uint8_t{17});  // 272 codes
    Rgb8Image image;
    EXPECT_THAT(DecodeImage(damaged, &image), HasSubstr("Huffman"));
  }
  EXPECT_GE(found, 1u);
}

// A JPEG's first bytes with one APP1 segment of `tiff`.
std::vector<uint8_t> WithExif(const std::vector<uint8_t>& tiff) {
  const size_t length = 2 + 6 + tiff.size();
  std::vector<uint8_t> file = {0xFF,
                               0xD8,
                               0xFF,
                               0xE1,
                               static_cast<uint8_t>(length >> 8),
                               static_cast<uint8_t>(length),
                               'E',
                               'x',
                               'i',
                               'f',
                               0,
                               0};
  file.insert(file.end(), tiff.begin(), tiff.end());
  file.insert(file.end(), {0xFF, 0xDA, 0, 2});
  return file;
}

TEST(ExifOrientationTest, ReadsBothByteOrders) {
  const std::vector<uint8_t> little = {'I', 'I', 42, 0, 8, 0, 0, 0, 1, 0, 0x12,
                                       1,   3,   0,  1, 0, 0, 0, 6, 0, 0, 0};
  const std::vector<uint8_t> big = {'M',  'M', 0, 42, 0, 0, 0, 8, 0, 1, 1,
                                    0x12, 0,   3, 0,  0, 0, 1, 0, 8, 0, 0};
  EXPECT_EQ(ExifOrientation(WithExif(little)), 6);
  EXPECT_EQ(ExifOrientation(WithExif(big)), 8);
}

TEST(ExifOrientationTest, DamagedMetadataMeansUpright) {
  const std::vector<uint8_t> good = {'I', 'I', 42, 0, 8, 0, 0, 0, 1, 0, 0x12,
                                     1,   3,   0,  1, 0, 0, 0, 6, 0, 0, 0};
  for (size_t size = 0; size < good.size(); ++size) {
    const std::vector<uint8_t> cut(good.begin(), good.begin() + static_cast<ptrdiff_t>(size));
    EXPECT_EQ(ExifOrientation(WithExif(cut)), 1) << size;
  }
  const auto with = [&](size_t at, uint8_t value) {
    std::vector<uint8_t> tiff = good;
    tiff[at] = value;
    return ExifOrientation(WithExif(tiff));
  };
  EXPECT_EQ(with(18, 9), 1);  // no such orientation
  EXPECT_EQ(with(18, 0), 1);
  EXPECT_EQ(with(12, 4), 1);    // of another type
  EXPECT_EQ(with(2, 43), 1);    // no TIFF
  EXPECT_EQ(with(7, 0xFF), 1);  // the directory lies far beyond the end
  EXPECT_EQ(with(9, 0xFF), 6);  // more entries than there are, found before the end
  EXPECT_EQ(ExifOrientation({}), 1);
  std::vector<uint8_t> long_segment = WithExif(good);
  long_segment[4] = 0xFF;  // longer than the file
  EXPECT_EQ(ExifOrientation(long_segment), 1);
}

TEST(UprightTest, EveryOrientationIsUndoneByItsInverse) {
  Rgb8Image image;
  image.width = 3;
  image.height = 2;
  for (int i = 0; i < 18; ++i) image.pixels.push_back(static_cast<uint8_t>(i));
  const int inverse[] = {0, 1, 2, 3, 4, 5, 8, 7, 6};
  for (int orientation = 1; orientation <= 8; ++orientation) {
    SCOPED_TRACE(orientation);
    const Rgb8Image turned = Upright(image, orientation);
    EXPECT_EQ(turned.width, orientation >= 5 ? 2u : 3u);
    const Rgb8Image back = Upright(turned, inverse[orientation]);
    EXPECT_EQ(back.width, image.width);
    EXPECT_EQ(back.pixels, image.pixels);
  }
}

}  // namespace
}  // namespace nestling::cli
