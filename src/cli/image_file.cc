// SPDX-License-Identifier: Apache-2.0
#include "cli/image_file.h"

#define STBI_NO_STDIO
#include <stb_image.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>
#include <utility>

namespace nestling::cli {
namespace {

constexpr int kChannels = 3;

// Bytes of a TIFF structure, in its byte order. Reading beyond the end gives 0.
class TiffReader {
 public:
  TiffReader(std::span<const uint8_t> bytes, bool big_endian)
      : bytes_(bytes), big_endian_(big_endian) {}

  uint32_t Read(size_t offset, size_t count) const {
    if (offset > bytes_.size() || count > bytes_.size() - offset) return 0;
    uint32_t value = 0;
    for (size_t i = 0; i < count; ++i) {
      value = value << 8 | bytes_[offset + (big_endian_ ? i : count - 1 - i)];
    }
    return value;
  }

 private:
  std::span<const uint8_t> bytes_;
  bool big_endian_;
};

// The orientation in the first directory of a TIFF structure.
int TiffOrientation(std::span<const uint8_t> tiff) {
  constexpr uint32_t kOrientationTag = 0x0112, kShort = 3;
  constexpr size_t kEntryBytes = 12;
  if (tiff.size() < 8) return 1;
  const bool big_endian = tiff[0] == 'M' && tiff[1] == 'M';
  if (!big_endian && !(tiff[0] == 'I' && tiff[1] == 'I')) return 1;
  const TiffReader reader(tiff, big_endian);
  if (reader.Read(2, 2) != 42) return 1;
  const size_t directory = reader.Read(4, 4);
  const size_t num_entries = reader.Read(directory, 2);  // at most 65535: no endless loop
  for (size_t i = 0; i < num_entries; ++i) {
    const size_t entry = directory + 2 + i * kEntryBytes;
    if (entry + kEntryBytes > tiff.size()) return 1;
    if (reader.Read(entry, 2) != kOrientationTag) continue;
    const uint32_t value = reader.Read(entry + 8, 2);
    const bool valid = reader.Read(entry + 2, 2) == kShort && value >= 1 && value <= 8;
    return valid ? static_cast<int>(value) : 1;
  }
  return 1;
}

// The Huffman tables of a JPEG's DHT segment `data` have at most 256 codes each. Older versions of
// the decoder take more than they have room for.
bool HuffmanTablesFit(std::span<const uint8_t> data) {
  constexpr size_t kLengths = 16;
  while (!data.empty()) {
    if (data.size() < 1 + kLengths) return false;
    size_t codes = 0;
    for (size_t i = 1; i <= kLengths; ++i) codes += data[i];
    if (codes > 256 || codes > data.size() - 1 - kLengths) return false;
    data = data.subspan(1 + kLengths + codes);
  }
  return true;
}

// Whatever the decoder could take for a DHT segment is one. Up to the first scan it steps from
// segment to segment; later it looks for markers, which may be anywhere.
bool IsHarmlessJpeg(std::span<const uint8_t> file) {
  constexpr uint8_t kTables = 0xC4, kScan = 0xDA;
  bool scanning = false;
  for (size_t at = 2; at + 4 <= file.size(); ++at) {
    if (file[at] != 0xFF) continue;
    const uint8_t marker = file[at + 1];
    const size_t length = static_cast<size_t>(file[at + 2]) << 8 | file[at + 3];
    if (marker == kTables) {
      if (length < 2 || length > file.size() - at - 2) return false;
      if (!HuffmanTablesFit(file.subspan(at + 4, length - 2))) return false;
    }
    scanning |= marker == kScan;
    // Markers without a segment: fill bytes, stuffed zeros, restarts, start and end.
    const bool alone =
        marker == 0xFF || marker == 0 || marker == 1 || (marker >= 0xD0 && marker <= 0xD9);
    if (!scanning && !alone) at += 1 + length;
  }
  return true;
}

bool IsJpeg(std::span<const uint8_t> file) {
  return file.size() >= 4 && file[0] == 0xFF && file[1] == 0xD8;
}

struct FreePixels {
  void operator()(stbi_uc* pixels) const { stbi_image_free(pixels); }
};

std::string Size(int width, int height) {
  return std::to_string(width) + " x " + std::to_string(height);
}

}  // namespace

int ExifOrientation(std::span<const uint8_t> file) {
  constexpr uint8_t kExif[6] = {'E', 'x', 'i', 'f', 0, 0};
  if (!IsJpeg(file)) return 1;
  size_t at = 2;
  // Segments of marker, length (which counts itself) and data, up to the compressed image.
  while (at + 4 <= file.size() && file[at] == 0xFF) {
    const uint8_t marker = file[at + 1];
    if (marker == 0xFF) {  // a fill byte
      ++at;
      continue;
    }
    if (marker == 0xDA || marker == 0xD9) return 1;  // start of scan, end of image
    const size_t length = static_cast<size_t>(file[at + 2]) << 8 | file[at + 3];
    if (length < 2 || length > file.size() - at - 2) return 1;
    const std::span<const uint8_t> data = file.subspan(at + 4, length - 2);
    if (marker == 0xE1 && data.size() > sizeof(kExif) &&
        std::memcmp(data.data(), kExif, sizeof(kExif)) == 0) {
      return TiffOrientation(data.subspan(sizeof(kExif)));
    }
    at += 2 + length;
  }
  return 1;
}

Rgb8Image Upright(Rgb8Image image, int orientation) {
  if (orientation <= 1 || orientation > 8) return image;
  // Orientations 5 to 8 swap rows and columns; where the upright pixel (x, y) lies in the stored
  // image, then, is (a, b) mirrored one way, both ways, or the other way.
  const bool swapped = orientation >= 5;
  const bool mirror_x =
      orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8;
  const bool mirror_y =
      orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7;
  Rgb8Image upright;
  upright.width = swapped ? image.height : image.width;
  upright.height = swapped ? image.width : image.height;
  upright.pixels.resize(image.pixels.size());
  uint8_t* out = upright.pixels.data();
  for (size_t y = 0; y < upright.height; ++y) {
    for (size_t x = 0; x < upright.width; ++x) {
      size_t from_x = swapped ? y : x, from_y = swapped ? x : y;
      if (mirror_x) from_x = image.width - 1 - from_x;
      if (mirror_y) from_y = image.height - 1 - from_y;
      std::memcpy(out, image.pixels.data() + (from_y * image.width + from_x) * kChannels,
                  kChannels);
      out += kChannels;
    }
  }
  return upright;
}

std::string DecodeImage(std::span<const uint8_t> file, Rgb8Image* image) {
  if (file.size() > kMaxImageFileBytes) {
    return "a file of " + std::to_string(file.size()) + " bytes, want at most " +
           std::to_string(kMaxImageFileBytes);
  }
  if (IsJpeg(file) && !IsHarmlessJpeg(file)) return "a damaged image: bad Huffman tables";
  const int bytes = static_cast<int>(file.size());
  int width = 0, height = 0, channels = 0;
  if (stbi_info_from_memory(file.data(), bytes, &width, &height, &channels) == 0) {
    return "not a PNG, JPEG, BMP, GIF or PPM image, or one of far too many pixels";
  }
  if (width <= 0 || height <= 0 ||
      static_cast<size_t>(width) > kMaxDecodedPixels / static_cast<size_t>(height)) {
    return "an image of " + Size(width, height) + " pixels, want at most " +
           std::to_string(kMaxDecodedPixels);
  }
  const std::unique_ptr<stbi_uc, FreePixels> pixels(
      stbi_load_from_memory(file.data(), bytes, &width, &height, &channels, kChannels));
  if (pixels == nullptr) {
    return std::string("a damaged image: ") + stbi_failure_reason();
  }
  Rgb8Image decoded;
  decoded.width = static_cast<size_t>(width);
  decoded.height = static_cast<size_t>(height);
  decoded.pixels.assign(pixels.get(), pixels.get() + decoded.width * decoded.height * kChannels);
  *image = Upright(std::move(decoded), ExifOrientation(file));
  return {};
}

std::string ReadImageFile(const std::string& path, Rgb8Image* image) {
  const auto fail = [&](const std::string& why) { return "\"" + path + "\": " + why; };
  struct Close {
    void operator()(std::FILE* file) const { std::fclose(file); }
  };
  const std::unique_ptr<std::FILE, Close> file(std::fopen(path.c_str(), "rb"));
  if (file == nullptr) return fail(std::strerror(errno));
  std::vector<uint8_t> bytes;
  uint8_t buffer[1 << 16];
  while (const size_t count = std::fread(buffer, 1, sizeof(buffer), file.get())) {
    if (bytes.size() + count > kMaxImageFileBytes) {
      return fail("a file of more than " + std::to_string(kMaxImageFileBytes) + " bytes");
    }
    bytes.insert(bytes.end(), buffer, buffer + count);
  }
  if (std::ferror(file.get()) != 0) return fail(std::strerror(errno));
  const std::string error = DecodeImage(bytes, image);
  return error.empty() ? error : fail(error);
}

}  // namespace nestling::cli
