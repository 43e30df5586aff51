// SPDX-License-Identifier: Apache-2.0
#include "cli/audio_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sndfile.h>
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/lsan_interface.h>
#endif

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <fstream>
#include <iterator>
#include <numbers>
#include <random>

#include "tests/support/hf_folder.h"

namespace nestling::cli {
namespace {

using nestling::testing::TemporaryFolder;
using nestling::testing::WriteTextFile;
using ::testing::HasSubstr;

constexpr double kTone = 440.0;

class AudioFileTest : public ::testing::Test {
 protected:
  // Channel c holds (c + 1) times the tone at `amplitude`.
  std::string Write(int format, int rate, int channels, double seconds, double amplitude = 0.1) {
    const std::string path = folder_ / "sound";
    SF_INFO info = {};
    info.samplerate = rate;
    info.channels = channels;
    info.format = format;
    SNDFILE* file = sf_open(path.c_str(), SFM_WRITE, &info);
    EXPECT_NE(file, nullptr) << sf_strerror(nullptr);
    if (file == nullptr) return path;
    const auto count = static_cast<size_t>(seconds * rate);
    std::vector<float> frames;
    for (size_t i = 0; i < count; ++i) {
      const double value =
          amplitude * std::sin(2.0 * std::numbers::pi * kTone * static_cast<double>(i) / rate);
      for (int c = 0; c < channels; ++c) frames.push_back(static_cast<float>((c + 1) * value));
    }
    EXPECT_EQ(sf_writef_float(file, frames.data(), static_cast<sf_count_t>(count)),
              static_cast<sf_count_t>(count));
    sf_close(file);
    return path;
  }

  static std::string ReadBytes(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }

  TemporaryFolder folder_;
  std::vector<float> samples_;
};

// Amplitude of the tone in the middle of the samples, whatever its phase.
double ToneAmplitude(const std::vector<float>& samples) {
  const size_t begin = samples.size() / 4, end = begin + 16000 / 440 * 44;
  if (end > samples.size()) return 0.0;
  double in_phase = 0.0, quadrature = 0.0;
  size_t count = 0;
  for (size_t i = begin; i + 400 <= samples.size() * 3 / 4; i += 400) {  // 11 periods
    for (size_t j = i; j < i + 400; ++j, ++count) {
      const double phase = 2.0 * std::numbers::pi * kTone * static_cast<double>(j) / kSoundRate;
      in_phase += samples[j] * std::sin(phase);
      quadrature += samples[j] * std::cos(phase);
    }
  }
  return 2.0 * std::hypot(in_phase, quadrature) / static_cast<double>(count);
}

TEST_F(AudioFileTest, EveryFormatRateAndChannelCountBecomesMonoAt16Kilohertz) {
  const struct {
    const char* name;
    int format, rate, channels;
    double tolerance;  // of the amplitude
    size_t padding;    // samples that an encoder may add
  } cases[] = {{"wav 16 bit", SF_FORMAT_WAV | SF_FORMAT_PCM_16, 16000, 1, 1e-3, 0},
               {"wav 8 bit", SF_FORMAT_WAV | SF_FORMAT_PCM_U8, 8000, 1, 5e-3, 2},
               {"wav 24 bit", SF_FORMAT_WAV | SF_FORMAT_PCM_24, 44100, 2, 1e-3, 2},
               {"wav float", SF_FORMAT_WAV | SF_FORMAT_FLOAT, 48000, 3, 1e-3, 2},
               {"wav low rate", SF_FORMAT_WAV | SF_FORMAT_PCM_16, 1000, 1, 1e-2, 32},
               {"wav high rate", SF_FORMAT_WAV | SF_FORMAT_PCM_16, 384000, 1, 1e-3, 2},
               {"flac", SF_FORMAT_FLAC | SF_FORMAT_PCM_16, 22050, 2, 1e-3, 2},
               {"ogg vorbis", SF_FORMAT_OGG | SF_FORMAT_VORBIS, 44100, 2, 2e-2, 2},
               {"ogg opus", SF_FORMAT_OGG | SF_FORMAT_OPUS, 48000, 1, 2e-2, 2},
               {"mp3", SF_FORMAT_MPEG | SF_FORMAT_MPEG_LAYER_III, 44100, 2, 2e-2, 2500}};
  for (const auto& c : cases) {
    SCOPED_TRACE(c.name);
    ASSERT_EQ(ReadAudioFile(Write(c.format, c.rate, c.channels, 2.0), &samples_), "");
    EXPECT_GE(samples_.size() + 32, 32000u);
    EXPECT_LE(samples_.size(), 32000 + c.padding);
    const double mean_gain = (c.channels + 1) / 2.0;
    EXPECT_NEAR(ToneAmplitude(samples_), 0.1 * mean_gain, c.tolerance);
  }
}

TEST_F(AudioFileTest, SamplesAtTheRightRateAreLeftAlone) {
  ASSERT_EQ(ReadAudioFile(Write(SF_FORMAT_WAV | SF_FORMAT_FLOAT, 16000, 1, 0.1), &samples_), "");
  ASSERT_EQ(samples_.size(), 1600u);
  for (size_t i = 0; i < samples_.size(); ++i) {
    const double phase = 2.0 * std::numbers::pi * kTone * static_cast<double>(i) / 16000.0;
    ASSERT_FLOAT_EQ(samples_[i], static_cast<float>(0.1 * std::sin(phase)));
  }
}

TEST_F(AudioFileTest, WhatIsNoSoundFileIsRefusedAndNothingChanges) {
  samples_ = {1.0f};
  const std::string missing = ReadAudioFile(folder_ / "missing.wav", &samples_);
  EXPECT_THAT(missing, HasSubstr("missing.wav"));
  EXPECT_NE(ReadAudioFile(folder_.path(), &samples_), "");
  const std::string path = folder_ / "x";
  for (const std::string& bytes : {std::string(), std::string("RIFF"), std::string(5000, '\0'),
                                   std::string("not a sound, but text\n")}) {
    WriteTextFile(path, bytes);
    EXPECT_NE(ReadAudioFile(path, &samples_), "") << bytes.size();
  }
  EXPECT_EQ(samples_, std::vector<float>{1.0f});
}

TEST_F(AudioFileTest, OtherFormatsAreRefused) {
  const std::string path = Write(SF_FORMAT_AU | SF_FORMAT_PCM_16, 16000, 1, 0.1);
  EXPECT_THAT(ReadAudioFile(path, &samples_), HasSubstr("not a WAV, FLAC, OGG or MP3"));
}

TEST_F(AudioFileTest, AFileWithoutFramesIsRefused) {
  const std::string path = Write(SF_FORMAT_WAV | SF_FORMAT_PCM_16, 16000, 1, 0.0);
  EXPECT_THAT(ReadAudioFile(path, &samples_), HasSubstr("no sound"));
}

TEST_F(AudioFileTest, FilesThatAreCutOffAreRefused) {
  for (const int format : {SF_FORMAT_WAV | SF_FORMAT_PCM_16, SF_FORMAT_FLAC | SF_FORMAT_PCM_16}) {
    const std::string path = Write(format, 16000, 1, 2.0);
    const std::string bytes = ReadBytes(path);
    WriteTextFile(path, bytes.substr(0, bytes.size() / 2));
    EXPECT_NE(ReadAudioFile(path, &samples_), "") << format;
  }
}

TEST_F(AudioFileTest, TooLongTooFastAndTooManyChannelsAreRefusedByTheHeader) {
  // An hour and a second at the lowest rate: 7 MB.
  std::string path = Write(SF_FORMAT_WAV | SF_FORMAT_PCM_U8, 1000, 1, kMaxSoundSeconds + 1.0);
  EXPECT_THAT(ReadAudioFile(path, &samples_), HasSubstr("longer than 3600 seconds"));
  path = Write(SF_FORMAT_WAV | SF_FORMAT_PCM_U8, 999, 1, 0.1);
  EXPECT_THAT(ReadAudioFile(path, &samples_), HasSubstr("999 Hz"));
  path = Write(SF_FORMAT_WAV | SF_FORMAT_PCM_U8, 400000, 1, 0.1);
  EXPECT_THAT(ReadAudioFile(path, &samples_), HasSubstr("400000 Hz"));
  path = Write(SF_FORMAT_WAV | SF_FORMAT_PCM_U8, 16000, 17, 0.1, 0.01);
  EXPECT_THAT(ReadAudioFile(path, &samples_), HasSubstr("17 channels"));
}

// libsndfile 1.2 forgets some kilobytes of libvorbis for a damaged OGG header: not ours to
// report.
struct IgnoreLeaks {
#if defined(__SANITIZE_ADDRESS__)
  IgnoreLeaks() { __lsan_disable(); }
  ~IgnoreLeaks() { __lsan_enable(); }
#endif
};

// Whatever the damage, there is an error or a sound within the limits.
TEST_F(AudioFileTest, MutatedFilesNeverDoHarm) {
  std::mt19937 random(3);
  const std::string mutated = folder_ / "mutated";
  for (const int format :
       {SF_FORMAT_WAV | SF_FORMAT_PCM_16, SF_FORMAT_FLAC | SF_FORMAT_PCM_16,
        SF_FORMAT_OGG | SF_FORMAT_VORBIS, SF_FORMAT_MPEG | SF_FORMAT_MPEG_LAYER_III}) {
    const std::string bytes = ReadBytes(Write(format, 16000, 2, 0.3));
    for (int run = 0; run < 60; ++run) {
      std::string damaged = bytes;
      const size_t range = run % 2 == 0 ? std::min<size_t>(64, damaged.size()) : damaged.size();
      for (int i = 0; i < 8; ++i) damaged[random() % range] = static_cast<char>(random());
      WriteTextFile(mutated, damaged);
      samples_.clear();
      [[maybe_unused]] const IgnoreLeaks ignore;
      if (ReadAudioFile(mutated, &samples_).empty()) {
        EXPECT_LE(samples_.size(), static_cast<size_t>(kMaxSoundSeconds) * kSoundRate);
      } else {
        EXPECT_TRUE(samples_.empty());
      }
    }
  }
}

}  // namespace
}  // namespace nestling::cli
