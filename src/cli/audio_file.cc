// SPDX-License-Identifier: Apache-2.0
#include "cli/audio_file.h"

#include <sndfile.h>
#include <soxr.h>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <memory>
#include <utility>

namespace nestling::cli {
namespace {

constexpr size_t kBlockFrames = 16384;
constexpr size_t kMaxSamples = static_cast<size_t>(kMaxSoundSeconds) * kSoundRate;

struct FileCloser {
  void operator()(SNDFILE* file) const { sf_close(file); }
};
using SoundFile = std::unique_ptr<SNDFILE, FileCloser>;

struct StdioCloser {
  void operator()(std::FILE* file) const { std::fclose(file); }
};

struct ResamplerDeleter {
  void operator()(soxr* resampler) const { soxr_delete(resampler); }
};
using Resampler = std::unique_ptr<soxr, ResamplerDeleter>;

std::string Quoted(const std::string& path) { return "\"" + path + "\""; }

std::string TooLong(const std::string& path) {
  return Quoted(path) + ": longer than " + std::to_string(kMaxSoundSeconds) + " seconds";
}

// libsndfile shortens a WAV file that is cut off to what is there, and says nothing: its RIFF
// header tells how long it should be. Programs that write to a pipe leave 0 or 2^32 - 1 and the
// like there.
bool IsCutOffWave(const std::string& path) {
  const std::unique_ptr<std::FILE, StdioCloser> file(std::fopen(path.c_str(), "rb"));
  uint8_t header[12];
  if (file == nullptr || std::fread(header, 1, sizeof(header), file.get()) != sizeof(header)) {
    return false;
  }
  if (std::memcmp(header, "RIFF", 4) != 0 || std::memcmp(header + 8, "WAVE", 4) != 0) return false;
  uint32_t size = 0;  // of what follows the field
  for (int i = 3; i >= 0; --i) size = size << 8 | header[4 + i];
  constexpr uint32_t kUnknown = 0x7ffff000;
  if (std::fseek(file.get(), 0, SEEK_END) != 0) return false;
  const long end = std::ftell(file.get());
  return end >= 0 && size != 0 && size < kUnknown &&
         uint64_t{size} + 8 > static_cast<uint64_t>(end);
}

bool IsWanted(int format) {
  switch (format & SF_FORMAT_TYPEMASK) {
    case SF_FORMAT_WAV:
    case SF_FORMAT_WAVEX:
    case SF_FORMAT_RF64:
    case SF_FORMAT_FLAC:
    case SF_FORMAT_OGG:
    case SF_FORMAT_MPEG:
      return true;
    default:
      return false;
  }
}

// Empty if the sound may be decoded.
std::string CheckInfo(const std::string& path, const SF_INFO& info) {
  if (!IsWanted(info.format)) return Quoted(path) + ": not a WAV, FLAC, OGG or MP3 file";
  if (info.samplerate < kMinSoundFileRate || info.samplerate > kMaxSoundFileRate) {
    return Quoted(path) + ": " + std::to_string(info.samplerate) + " Hz, want " +
           std::to_string(kMinSoundFileRate) + " to " + std::to_string(kMaxSoundFileRate);
  }
  if (info.channels < 1 || info.channels > kMaxSoundChannels) {
    return Quoted(path) + ": " + std::to_string(info.channels) + " channels, want 1 to " +
           std::to_string(kMaxSoundChannels);
  }
  // Pipes and the like have no length that is known before the end.
  if (info.frames != SF_COUNT_MAX && info.frames / info.samplerate > kMaxSoundSeconds) {
    return TooLong(path);
  }
  return "";
}

// [frames, channels] -> the mean of the channels.
void MixDown(const float* frames, size_t num_frames, int channels, float* mono) {
  const float scale = 1.0f / static_cast<float>(channels);
  for (size_t i = 0; i < num_frames; ++i) {
    float sum = 0.0f;
    for (int c = 0; c < channels; ++c) sum += *frames++;
    mono[i] = sum * scale;
  }
}

// Appends mono samples at any rate to samples at kSoundRate.
class Output {
 public:
  // An error, or empty.
  std::string Open(int rate) {
    if (rate == kSoundRate) return "";
    soxr_error_t error = nullptr;
    const soxr_quality_spec_t quality = soxr_quality_spec(SOXR_HQ, 0);
    resampler_.reset(soxr_create(rate, kSoundRate, 1, &error, nullptr, &quality, nullptr));
    // One block in, at most so many out, and what the filter had kept.
    resampled_.resize(kBlockFrames * static_cast<size_t>(kSoundRate) / static_cast<size_t>(rate) +
                      kBlockFrames);
    return error == nullptr ? "" : error;
  }

  // Null ends the sound.
  std::string Add(const float* mono, size_t count) {
    if (resampler_ == nullptr) {
      if (mono != nullptr) samples_.insert(samples_.end(), mono, mono + count);
      return "";
    }
    size_t used = 0, made = 0;
    do {
      size_t step = 0;
      const soxr_error_t error =
          soxr_process(resampler_.get(), mono == nullptr ? nullptr : mono + used, count - used,
                       &step, resampled_.data(), resampled_.size(), &made);
      if (error != nullptr) return error;
      used += step;
      samples_.insert(samples_.end(), resampled_.begin(),
                      resampled_.begin() + static_cast<ptrdiff_t>(made));
    } while (used < count || (mono == nullptr && made > 0));
    return "";
  }

  std::vector<float>& samples() { return samples_; }

 private:
  Resampler resampler_;  // null: the rate is right
  std::vector<float> resampled_;
  std::vector<float> samples_;
};

}  // namespace

std::string ReadAudioFile(const std::string& path, std::vector<float>* samples) {
  SF_INFO info = {};
  const SoundFile file(sf_open(path.c_str(), SFM_READ, &info));
  if (file == nullptr) return Quoted(path) + ": " + sf_strerror(nullptr);
  if (const std::string problem = CheckInfo(path, info); !problem.empty()) return problem;
  if (IsCutOffWave(path)) return Quoted(path) + ": the file is cut off";

  Output output;
  if (const std::string problem = output.Open(info.samplerate); !problem.empty()) {
    return Quoted(path) + ": resampling: " + problem;
  }
  std::vector<float> frames(kBlockFrames * static_cast<size_t>(info.channels));
  std::vector<float> mono(kBlockFrames);
  sf_count_t total = 0;
  while (true) {
    const sf_count_t count =
        sf_readf_float(file.get(), frames.data(), static_cast<sf_count_t>(kBlockFrames));
    if (count <= 0) break;
    total += count;
    MixDown(frames.data(), static_cast<size_t>(count), info.channels, mono.data());
    const std::string problem = output.Add(mono.data(), static_cast<size_t>(count));
    if (!problem.empty()) return Quoted(path) + ": resampling: " + problem;
    if (output.samples().size() > kMaxSamples) return TooLong(path);
  }
  if (sf_error(file.get()) != SF_ERR_NO_ERROR) {
    return Quoted(path) + ": " + sf_strerror(file.get());
  }
  // The length of an MP3 file may be an estimate.
  const bool exact = (info.format & SF_FORMAT_TYPEMASK) != SF_FORMAT_MPEG;
  if (exact && info.frames != SF_COUNT_MAX && total < info.frames) {
    return Quoted(path) + ": ends after " + std::to_string(total) + " of " +
           std::to_string(info.frames) + " frames";
  }
  if (total == 0) return Quoted(path) + ": there is no sound in it";
  const std::string problem = output.Add(nullptr, 0);
  if (!problem.empty()) return Quoted(path) + ": resampling: " + problem;
  if (output.samples().size() > kMaxSamples) return TooLong(path);
  *samples = std::move(output.samples());
  return "";
}

}  // namespace nestling::cli
