// SPDX-License-Identifier: Apache-2.0
#include "cli/media.h"

#include <cstdint>
#include <cstdio>
#include <limits>
#include <string_view>
#include <utility>

#include "cli/audio_file.h"
#include "cli/command.h"
#include "cli/npy.h"

namespace nestling::cli {
namespace {

bool IsNpy(std::string_view path) { return path.ends_with(".npy"); }

void Require(const std::string& problem) {
  if (!problem.empty()) throw ToolError(problem);
}

}  // namespace

void AddMediaOptions(CLI::App& command, std::vector<MediaFile>* files) {
  const auto add = [&](const char* name, MediaKind kind, const char* help) {
    command
        .add_option_function<std::string>(
            name,
            [files, kind](const std::string& path) {
              files->push_back({kind, path});
            },
            help)
        ->trigger_on_parse()  // one call for each, in order
        ->type_name("FILE");
  };
  add("--image", MediaKind::kImage,
      "PNG, JPEG, BMP, GIF, PPM; .npy: [3, height, width] f32; repeatable");
  add("--audio", MediaKind::kAudio, "WAV, FLAC, OGG, MP3; .npy: [samples] f32; repeatable");
}

Media Media::Read(const MediaFile& file) {
  Media media;
  media.file_ = file;
  if (file.kind == MediaKind::kImage) {
    media.ReadImage();
  } else {
    media.ReadAudio();
  }
  return media;
}

void Media::ReadImage() {
  if (!IsNpy(path())) {
    Require(ReadImageFile(path(), &image_));
    return;
  }
  NpyArray array = ReadNpy(path());
  if (array.shape.size() != 3 || array.shape[0] != 3 ||
      array.shape[1] > std::numeric_limits<uint32_t>::max() ||
      array.shape[2] > std::numeric_limits<uint32_t>::max()) {
    throw ToolError("\"" + path() + "\": shape " + ShapeToString(array.shape) +
                    ", want [3, height, width]");
  }
  image_.height = array.shape[1];
  image_.width = array.shape[2];
  values_ = std::move(array.values);
}

void Media::ReadAudio() {
  if (!IsNpy(path())) {
    Require(ReadAudioFile(path(), &values_));
    return;
  }
  NpyArray array = ReadNpy(path());
  if (array.shape.size() != 1) {
    throw ToolError("\"" + path() + "\": shape " + ShapeToString(array.shape) + ", want [samples]");
  }
  values_ = std::move(array.values);
}

Part Media::part() const {
  if (file_.kind == MediaKind::kAudio) return Part::Audio(values_);
  const auto width = static_cast<uint32_t>(image_.width);
  const auto height = static_cast<uint32_t>(image_.height);
  if (image_.pixels.empty()) return Part::PreparedImage(values_, width, height);
  return Part::Image(image_.pixels, width, height);
}

double Media::seconds() const {
  if (file_.kind == MediaKind::kImage) return 0;
  return static_cast<double>(values_.size()) / kSoundRate;
}

std::string Media::Describe() const {
  char size[64];
  if (file_.kind == MediaKind::kImage) {
    std::snprintf(size, sizeof(size), " (%zu x %zu)", image_.width, image_.height);
  } else {
    std::snprintf(size, sizeof(size), " (%.1f s)", seconds());
  }
  return path() + size;
}

std::vector<Media> ReadMedia(const std::vector<MediaFile>& files) {
  std::vector<Media> media;
  for (const MediaFile& file : files) media.push_back(Media::Read(file));
  return media;
}

std::vector<Part> PartsOf(const std::vector<Media>& media) {
  std::vector<Part> parts;
  for (const Media& one : media) parts.push_back(one.part());
  return parts;
}

}  // namespace nestling::cli
