// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <CLI/CLI.hpp>
#include <cstddef>
#include <string>
#include <vector>

#include "cli/image_file.h"
#include "nestling/nestling.hpp"

namespace nestling::cli {

enum class MediaKind { kImage, kAudio };

struct MediaFile {
  MediaKind kind = MediaKind::kImage;
  std::string path;
};

// --image FILE and --audio FILE, any number of each. What `files` has is in the order of the
// command line. `files` must live until it is parsed.
void AddMediaOptions(CLI::App& command, std::vector<MediaFile>* files);

// An image or a sound read from a file, in a form that the library takes.
class Media {
 public:
  // An image is PNG, JPEG, BMP, GIF or PPM; a .npy file is one that is prepared already, f32
  // [3, height, width] in 0 .. 1. A sound is WAV, FLAC, OGG or MP3; a .npy file is f32 [samples] at
  // 16 kHz. ToolError: one line that says which file, and what is wrong with it.
  static Media Read(const MediaFile& file);

  // Borrows from this object.
  Part part() const;
  MediaKind kind() const { return file_.kind; }
  const std::string& path() const { return file_.path; }
  // Of a sound; 0 for images.
  double seconds() const;
  // "cat.png (640 x 480)", "voice.wav (3.2 s)".
  std::string Describe() const;

 private:
  void ReadImage();
  void ReadAudio();

  MediaFile file_;
  Rgb8Image image_;  // without pixels if the image is a prepared one
  std::vector<float> values_;
};

std::vector<Media> ReadMedia(const std::vector<MediaFile>& files);

// In order; borrows from `media`.
std::vector<Part> PartsOf(const std::vector<Media>& media);

}  // namespace nestling::cli
