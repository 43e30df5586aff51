// SPDX-License-Identifier: Apache-2.0
#include "modality/audio/mel.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numbers>

#include "tests/modality/audio_golden.h"

namespace nestling {
namespace {

std::unique_ptr<MelFrontEnd> Make(const MelConfig& config = {}) {
  auto mel = MelFrontEnd::Create(config);
  EXPECT_TRUE(mel.ok()) << mel.status().message();
  return std::move(mel).value();
}

// [frames, bins] of a clip.
std::vector<float> LogMel(std::vector<float> pcm) {
  const AudioConfig config;
  const std::unique_ptr<MelFrontEnd> mel = Make();
  const size_t num_frames = config.NumFrames(pcm.size());
  pcm.resize((pcm.size() + 127) / 128 * 128);
  std::vector<double> scratch(mel->ScratchSize());
  std::vector<float> frames(num_frames * config.mel.num_bins);
  for (size_t t = 0; t < num_frames; ++t) {
    mel->Compute(&pcm[160 * t], scratch.data(), &frames[t * config.mel.num_bins]);
  }
  return frames;
}

// Check values of gemma3n.md 5.2, taken from the reference.
TEST(MelTest, FiltersAreTheTrianglesOfTheReference) {
  const std::unique_ptr<MelFrontEnd> mel = Make();
  const auto expect = [&](size_t bin, size_t first_line, std::vector<double> weights) {
    EXPECT_EQ(mel->filter(bin).first_line, first_line) << bin;
    ASSERT_GE(mel->filter(bin).weights.size(), weights.size()) << bin;
    for (size_t i = 0; i < weights.size(); ++i) {
      EXPECT_NEAR(mel->filter(bin).weights[i], weights[i], 1e-6) << bin << ' ' << i;
    }
  };
  expect(0, 9, {0.952024472});
  expect(1, 9, {0.0479755, 0.9231734});
  expect(2, 10, {0.0768266, 0.9127834});
  expect(127, 468, {0.0299116});
  EXPECT_EQ(mel->filter(0).weights.size(), 1u);
  EXPECT_EQ(mel->filter(127).weights.size(), 486u - 468 + 1);
  for (size_t bin = 0; bin < 128; ++bin) EXPECT_FALSE(mel->filter(bin).weights.empty()) << bin;
}

// Check values of gemma3n.md 10.
TEST(MelTest, AToneGivesTheValuesOfTheReference) {
  std::vector<float> pcm(16000);
  for (size_t n = 0; n < pcm.size(); ++n) {
    pcm[n] = static_cast<float>(
        0.5 * std::sin(2.0 * std::numbers::pi * 440.0 * static_cast<double>(n) / 16000.0));
  }
  const std::vector<float> mel = LogMel(pcm);
  ASSERT_EQ(mel.size(), 97u * 128);
  for (const size_t frame : {0u, 50u}) {  // the tone's period divides 50 hops
    const float* const row = &mel[frame * 128];
    const float first[] = {-5.73793f, -6.59260f, -5.36562f, -6.17271f};
    for (size_t i = 0; i < 4; ++i) EXPECT_NEAR(row[i], first[i], 1e-4f) << frame << ' ' << i;
    const float middle[] = {-0.304992f, -1.534007f, -2.260675f, -3.176638f};
    for (size_t i = 0; i < 4; ++i) EXPECT_NEAR(row[20 + i], middle[i], 1e-4f) << frame << ' ' << i;
  }
  double sum = 0.0;
  for (const float value : mel) sum += value;
  EXPECT_NEAR(sum / static_cast<double>(mel.size()), -8.343521, 1e-4);
  const auto highest = std::max_element(mel.begin(), mel.begin() + 128);
  EXPECT_EQ(highest - mel.begin(), 17);
  EXPECT_NEAR(*highest, 2.696815f, 1e-4f);
  EXPECT_NEAR(*std::min_element(mel.begin(), mel.end()), -11.512925f, 1e-5f);
}

// The reference makes its window in f32 with a cosine that rounds as its machine's vector unit
// does: some weights differ by 6e-8, which shows where a quiet bin stands beside a loud one.
TEST(MelTest, MatchesTheReferenceWithinTheSpecifiedBound) {
  const testing::AudioGolden& golden = testing::GetAudioGolden();
  const std::vector<float>& want = golden.expected.at("mel").values;
  const std::vector<float> got = LogMel(golden.expected.at("waveform").values);
  ASSERT_EQ(got.size(), want.size());
  for (size_t i = 0; i < want.size(); ++i) ASSERT_NEAR(got[i], want[i], 1e-4f) << i;
}

TEST(MelTest, SilenceIsTheLogarithmOfTheFloor) {
  for (const float value : LogMel(std::vector<float>(2000))) {
    ASSERT_FLOAT_EQ(value, std::log(1e-5f));
  }
}

TEST(MelTest, RefusesATransformThatWouldNeedMemoryOfItsOwn) {
  MelConfig config;
  config.fft_length = 2 * 521;  // a prime
  EXPECT_EQ(MelFrontEnd::Create(config).status().code(), StatusCode::kUnsupported);
}

}  // namespace
}  // namespace nestling
