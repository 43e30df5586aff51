// SPDX-License-Identifier: Apache-2.0
#include "c_api/media_parts.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <span>
#include <utility>

#include "c_api/arguments.h"
#include "c_api/handles.h"

namespace nestling {
namespace {

constexpr size_t kMaxParts = 4096;
constexpr size_t kMaxValues = size_t{1} << 40;  // beyond is a negative number in disguise

Status Named(const std::string& name, Status status) {
  if (status.ok()) return status;
  return Status(status.code(), StrCat(name, ": ", status.message()));
}

template <typename T>
Result<T> Named(const std::string& name, Result<T> result) {
  if (result.ok()) return result;
  return Named(name, result.status());
}

Result<ImageView> ReadImage(const nestling_part& part) {
  ImageView image;
  switch (part.pixel_format) {
    case NESTLING_PIXELS_RGB8:
      image.format = ImageView::Format::kRgb8;
      break;
    case NESTLING_PIXELS_RGBA8:
      image.format = ImageView::Format::kRgba8;
      break;
    default:
      return InvalidArgument("pixel_format ", part.pixel_format, ", want a NESTLING_PIXELS_ value");
  }
  image.width = part.width;
  image.height = part.height;
  image.stride_bytes = part.stride_bytes != 0
                           ? part.stride_bytes
                           : size_t{part.width} * static_cast<size_t>(image.format);
  image.pixels = {static_cast<const uint8_t*>(part.data), part.size};
  return image;
}

std::span<const float> Floats(const nestling_part& part) {
  return {static_cast<const float*>(part.data), part.size};
}

Status CheckPreparedSize(const Towers& towers, const nestling_part& part) {
  const MediaShape& shape = towers.shape();
  if (part.width == shape.image_width && part.height == shape.image_height) return OkStatus();
  return InvalidArgument("prepared image of ", part.width, " x ", part.height, " pixels, want ",
                         shape.image_width, " x ", shape.image_height);
}

Result<MediaSize> MeasureSoftTokens(const Towers& towers, size_t hidden_size,
                                    const nestling_part& part) {
  const bool image = part.type == NESTLING_PART_IMAGE_TOKENS;
  ASSIGN_OR_RETURN(const MediaSize size,
                   towers.MeasureTokens(image ? TowerKind::kVision : TowerKind::kAudio,
                                        part.size / hidden_size));
  if (part.size % hidden_size == 0) return size;
  return InvalidArgument("soft tokens of ", part.size, " values, want a multiple of ", hidden_size);
}

Result<SharedSoftTokens> ReadSoftTokens(const nestling_part& part, size_t hidden_size) {
  const std::span<const float> values = Floats(part);
  for (size_t i = 0; i < values.size(); ++i) {
    if (std::isfinite(values[i])) continue;
    return InvalidArgument("soft tokens: value ", i, " is ", values[i]);
  }
  auto tokens = std::make_shared<SoftTokens>();
  tokens->values.assign(values.begin(), values.end());
  tokens->count = values.size() / hidden_size;
  return SharedSoftTokens(std::move(tokens));
}

Result<Media> ReadStream(const Towers& towers, const nestling_part& part) {
  const auto* stream = static_cast<const nestling_audio_stream*>(part.data);
  if (!stream->media) return FailedPrecondition("the audio stream is not finished");
  RETURN_IF_ERROR(towers.CheckOwn(*stream->media));  // another's rows may have another length
  return *stream->media;
}

// What holds for every type but text.
Status CheckData(const nestling_part& part) {
  if (part.type < NESTLING_PART_IMAGE || part.type > NESTLING_PART_AUDIO_STREAM) {
    return InvalidArgument("type ", part.type,
                           ", want a NESTLING_PART_ value of an image or sound");
  }
  RETURN_IF_ERROR(RequireNotNull(part.data, "data"));
  if (part.size > kMaxValues) return InvalidArgument("size: ", part.size);
  return OkStatus();
}

Result<MediaSize> Measure(const Towers& towers, size_t hidden_size, const nestling_part& part) {
  RETURN_IF_ERROR(CheckData(part));
  switch (part.type) {
    case NESTLING_PART_IMAGE: {
      ASSIGN_OR_RETURN(const ImageView image, ReadImage(part));
      return towers.MeasureImage(image);
    }
    case NESTLING_PART_PREPARED_IMAGE: {
      ASSIGN_OR_RETURN(const MediaSize size, towers.MeasurePixels(part.size));
      RETURN_IF_ERROR(CheckPreparedSize(towers, part));
      return size;
    }
    case NESTLING_PART_AUDIO:
      return towers.MeasureSound(part.size);
    case NESTLING_PART_AUDIO_STREAM: {
      ASSIGN_OR_RETURN(const Media media, ReadStream(towers, part));
      return MediaSize{media.pieces.size(), media.num_soft_tokens(),
                       media.pieces.size() * media.positions};
    }
    default:
      return MeasureSoftTokens(towers, hidden_size, part);
  }
}

Result<Media> Encode(Towers& towers, size_t hidden_size, const nestling_part& part) {
  RETURN_IF_ERROR(Measure(towers, hidden_size, part).status());
  switch (part.type) {
    case NESTLING_PART_IMAGE: {
      ASSIGN_OR_RETURN(const ImageView image, ReadImage(part));
      return towers.EncodeImage(image);
    }
    case NESTLING_PART_PREPARED_IMAGE:
      return towers.EncodePixels(Floats(part));
    case NESTLING_PART_AUDIO:
      return towers.EncodeSound(Floats(part));
    case NESTLING_PART_AUDIO_STREAM:
      return ReadStream(towers, part);
    default: {
      ASSIGN_OR_RETURN(SharedSoftTokens tokens, ReadSoftTokens(part, hidden_size));
      if (part.type == NESTLING_PART_IMAGE_TOKENS) return towers.ImageOf(std::move(tokens));
      return towers.SoundOf({std::move(tokens)});
    }
  }
}

}  // namespace

Result<nestling_part> ReadPart(const nestling_part* part, const char* name) {
  RETURN_IF_ERROR(RequireNotNull(part, name));
  nestling_part read;
  RETURN_IF_ERROR(ReadOptions(part, name, &read));
  return read;
}

Result<std::vector<nestling_part>> ReadParts(const nestling_part* parts, size_t num_parts,
                                             const char* name) {
  std::vector<nestling_part> read;
  if (num_parts == 0) return read;
  RETURN_IF_ERROR(RequireNotNull(parts, name));
  if (num_parts > kMaxParts) {
    return InvalidArgument("num_", name, ": ", num_parts, ", want at most ", kMaxParts);
  }
  // An older or a newer caller's structs have another size than ours, all of them the same.
  const size_t step = parts->struct_size;
  const auto* bytes = reinterpret_cast<const unsigned char*>(parts);
  for (size_t i = 0; i < num_parts; ++i) {
    const auto* part = reinterpret_cast<const nestling_part*>(bytes + i * step);
    const std::string part_name = StrCat(name, "[", i, "]");
    ASSIGN_OR_RETURN(read.emplace_back(), ReadPart(part, part_name.c_str()));
    if (part->struct_size != step) {
      return InvalidArgument(part_name, ".struct_size: ", part->struct_size, ", want ", step,
                             " as in the first");
    }
  }
  return read;
}

Result<MediaSize> MeasurePart(const Towers& towers, size_t hidden_size, const nestling_part& part,
                              const std::string& name) {
  return Named(name, Measure(towers, hidden_size, part));
}

Result<Media> EncodePart(Towers& towers, size_t hidden_size, const nestling_part& part,
                         const std::string& name) {
  return Named(name, Encode(towers, hidden_size, part));
}

}  // namespace nestling
