// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <cstring>
#include <fstream>
#include <span>
#include <string>

#include "tests/cli/npy_file.h"
#include "tests/cli/tool.h"
#include "tests/support/multimodal_model.h"

namespace nestling::testing {

namespace internal {
template <typename T>
void Append(T value, std::string* bytes) {
  bytes->append(reinterpret_cast<const char*>(&value), sizeof(value));  // little endian machines
}
}  // namespace internal

// A BMP file of pixels [height, width, 3], RGB.
inline std::string BmpOf(std::span<const uint8_t> pixels, uint32_t width, uint32_t height) {
  using internal::Append;
  const uint32_t row = (width * 3 + 3) / 4 * 4, header = 54;
  std::string bytes = "BM";
  for (const uint32_t value : {header + row * height, 0u, header, 40u, width, height}) {
    Append(value, &bytes);
  }
  Append<uint16_t>(1, &bytes);
  Append<uint16_t>(24, &bytes);
  for (const uint32_t value : {0u, row * height, 2835u, 2835u, 0u, 0u}) Append(value, &bytes);
  for (uint32_t y = height; y-- > 0;) {  // rows from the bottom, blue first
    for (uint32_t x = 0; x < width; ++x) {
      const uint8_t* pixel = &pixels[(size_t{y} * width + x) * 3];
      for (int c = 2; c >= 0; --c) bytes += static_cast<char>(pixel[c]);
    }
    bytes.append(row - width * 3, '\0');
  }
  return bytes;
}

// A WAV file of mono f32 samples at 16 kHz.
inline std::string WavOf(std::span<const float> samples) {
  using internal::Append;
  const auto size = static_cast<uint32_t>(samples.size_bytes());
  std::string bytes = "RIFF";
  Append(36 + size, &bytes);
  bytes += "WAVEfmt ";
  Append<uint32_t>(16, &bytes);
  Append<uint16_t>(3, &bytes);  // floats
  Append<uint16_t>(1, &bytes);
  Append<uint32_t>(16000, &bytes);
  Append<uint32_t>(64000, &bytes);
  Append<uint16_t>(4, &bytes);
  Append<uint16_t>(32, &bytes);
  bytes += "data";
  Append(size, &bytes);
  bytes.append(reinterpret_cast<const char*>(samples.data()), samples.size_bytes());
  return bytes;
}

inline void WriteWholeFile(const std::string& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

// A container with text, towers and tokenizer, and the reference's image and sound as files.
struct MediaFiles {
  MediaFiles() {
    const MultimodalExpected& expected = GetMultimodalExpected();
    EXPECT_FALSE(expected.logits.empty()) << "no golden data";
    WriteWholeFile(image, BmpOf(expected.raw, static_cast<uint32_t>(expected.raw_width),
                                static_cast<uint32_t>(expected.raw_height)));
    WriteNpyOf(prepared, "(3, 192, 192)", expected.pixels);
    WriteWholeFile(sound, WavOf(expected.waveform));
    WriteNpyOf(pcm, "(" + std::to_string(expected.waveform.size()) + ",)", expected.waveform);
    const Status status = WriteMultimodalModel(model, {.tokenizer = true});
    EXPECT_TRUE(status.ok()) << status.message();
  }

  const TemporaryFolder folder;
  const std::string model = folder / "multimodal.nest";
  const std::string image = folder / "picture.bmp";
  const std::string prepared = folder / "picture.npy";
  const std::string sound = folder / "voice.wav";
  const std::string pcm = folder / "voice.npy";
};

// Of this test program, written once.
inline const MediaFiles& GetMediaFiles() {
  static const MediaFiles files;
  return files;
}

}  // namespace nestling::testing
