// SPDX-License-Identifier: Apache-2.0
#include "modality/audio/audio_tower.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <map>
#include <random>
#include <string>
#include <thread>

#include "modality/audio/audio_stream.h"
#include "tests/modality/audio_golden.h"

namespace nestling {
namespace {

using testing::AudioContainerOptions;
using testing::CosineSimilarity;
using testing::GetAudioGolden;
using ::testing::HasSubstr;
using testing::OpenAudioContainer;
using testing::RelativeError;

// The reference in f32 differs from itself in f64 by up to 7e-6 of the rms of a stage (oracle cases
// of this structure, 20 times that is their bound); sums here are in another order.
constexpr double kTolerance = 5e-5;

class AudioTowerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto pool = ThreadPool::Create(2);
    ASSERT_TRUE(pool.ok());
    pool_ = std::move(pool).value();
  }

  Result<std::unique_ptr<AudioTower>> Create(const AudioContainerOptions& container = {},
                                             AudioCompute compute = AudioCompute::kAuto) {
    ASSIGN_OR_RETURN(const auto reader, OpenAudioContainer(container));
    return AudioTower::Create(*reader, *pool_, {compute});
  }
  std::unique_ptr<AudioTower> Make(const AudioContainerOptions& container = {},
                                   AudioCompute compute = AudioCompute::kAuto) {
    auto tower = Create(container, compute);
    EXPECT_TRUE(tower.ok()) << tower.status().message();
    return tower.ok() ? std::move(tower).value() : nullptr;
  }

  static std::vector<float> Expected(const std::string& name) {
    return GetAudioGolden().expected.at(name).values;
  }
  static std::vector<float> Sound() { return Expected("waveform"); }
  static std::vector<float> Encode(const AudioTower& tower, std::span<const float> pcm) {
    auto tokens = tower.Encode(pcm);
    EXPECT_TRUE(tokens.ok()) << tokens.status().message();
    return tokens.ok() ? tokens->values : std::vector<float>();
  }

  std::unique_ptr<ThreadPool> pool_;
};

TEST_F(AudioTowerTest, EveryStageMatchesTheReference) {
  const auto tower = Make();
  ASSERT_NE(tower, nullptr);
  std::map<std::string, std::vector<float>> stages;
  const auto tokens = tower->Encode(
      Sound(), [&](std::string_view stage, const float* rows, size_t num_rows, size_t width) {
        std::vector<float>& all = stages[std::string(stage)];
        all.insert(all.end(), rows, rows + num_rows * width);
      });
  ASSERT_TRUE(tokens.ok()) << tokens.status().message();
  EXPECT_EQ(tokens->count, 9u);
  stages["tokens"] = tokens->values;
  for (const char* stage : {"conv_1", "subsample", "conformer0.ffw_start", "conformer0.attention",
                            "conformer0.lconv", "conformer0.ffw_end", "conformer0", "conformer1",
                            "conformer2", "encodings", "soft_tokens"}) {
    EXPECT_LT(RelativeError(stages[stage], Expected(stage)), kTolerance) << stage;
  }
  EXPECT_EQ(stages["tokens"], stages["soft_tokens"]);
}

// The checkpoint is bf16, so that nothing is lost in any of the three.
TEST_F(AudioTowerTest, StoredHalvesAreWidenedExactly) {
  const auto f32 = Make(), bf16 = Make({.dtype = DType::kBF16});
  ASSERT_TRUE(f32 && bf16);
  EXPECT_EQ(Encode(*bf16, Sound()), Encode(*f32, Sound()));
  const auto f16 = Make({.dtype = DType::kF16});
  ASSERT_NE(f16, nullptr);
  EXPECT_LT(RelativeError(Encode(*f16, Sound()), Expected("soft_tokens")), 1e-4);
}

TEST_F(AudioTowerTest, Int8StaysNearTheReference) {
  // A tower of 32 channels averages few rounding errors out; the full size is nearer.
  constexpr double kLeastCosine = 0.998;
  const std::vector<float> want = Expected("soft_tokens");
  const auto check = [&](const AudioTower* tower, const char* how) {
    ASSERT_NE(tower, nullptr);
    const std::vector<float> got = Encode(*tower, Sound());
    EXPECT_GT(CosineSimilarity(got, want), kLeastCosine) << how;
    EXPECT_LT(CosineSimilarity(got, want), 0.9999999) << how << ": not int8";
  };
  check(Make({.dtype = DType::kQ8C}).get(), "tiles, in place");
  check(Make({.dtype = DType::kQ8C, .tiles = false}).get(), "rows, packed");
  check(Make({}, AudioCompute::kInt8).get(), "quantised at loading");
}

TEST_F(AudioTowerTest, Int8WeightsCanBeComputedWithInF32) {
  const auto int8 = Make({.dtype = DType::kQ8C}, AudioCompute::kF32);
  const auto rows = Make({.dtype = DType::kQ8C, .tiles = false}, AudioCompute::kF32);
  ASSERT_TRUE(int8 && rows);
  const std::vector<float> got = Encode(*int8, Sound());
  EXPECT_EQ(Encode(*rows, Sound()), got);  // the layout does not matter
  // Only the weights are rounded, to a 254th of each row's range.
  EXPECT_GT(CosineSimilarity(got, Expected("soft_tokens")), 0.999);
  EXPECT_LT(CosineSimilarity(got, Expected("soft_tokens")), 0.9999999);
}

// Every push size, and pieces that cut frames, convolution rows and soft tokens anywhere. Rows of
// matrix products do not depend on how many there are, but XNNPACK does not promise it.
TEST_F(AudioTowerTest, AStreamGivesTheTokensOfTheWholeClipHoweverItIsPushed) {
  const auto tower = Make();
  ASSERT_NE(tower, nullptr);
  const std::vector<float> sound = Sound(), whole = Encode(*tower, sound);
  std::mt19937 random(7);
  for (const size_t block_steps : {1u, 2u, 3u, 7u, 13u, 64u}) {
    for (const size_t push : {1u, 159u, 160u, 513u, 997u, 7001u, 0u}) {
      SCOPED_TRACE(::testing::Message() << block_steps << " steps, pushes of " << push);
      auto stream = AudioStream::Create(*tower, block_steps);
      ASSERT_TRUE(stream.ok());
      for (size_t i = 0; i < sound.size();) {
        const size_t size = push != 0 ? push : random() % 2000;  // 0: any size, none included
        const size_t end = std::min(i + size, sound.size());
        const Status status = (*stream)->Push(std::span(sound).subspan(i, end - i));
        ASSERT_TRUE(status.ok()) << status.message();
        i = end;
      }
      const auto tokens = (*stream)->Finish();
      ASSERT_TRUE(tokens.ok()) << tokens.status().message();
      EXPECT_LT(RelativeError(tokens->values, whole), 1e-5);
    }
  }
}

TEST_F(AudioTowerTest, LengthsAroundFrameStepAndTokenBoundariesGiveTheirTokens) {
  const auto tower = Make();
  ASSERT_NE(tower, nullptr);
  const std::vector<float> sound(tower->config().max_samples(), 0.25f);
  for (const size_t samples : {513u, 640u, 641u, 769u, 2560u, 2944u, 3072u, 5632u, 29999u}) {
    const auto tokens = tower->Encode(std::span(sound).first(samples));
    ASSERT_TRUE(tokens.ok()) << samples << ": " << tokens.status().message();
    EXPECT_EQ(tokens->count, tower->config().NumSoftTokens(samples)) << samples;
    EXPECT_EQ(tokens->values.size(), tokens->count * 64) << samples;
  }
  const auto longest = tower->Encode(sound);
  ASSERT_TRUE(longest.ok());
  EXPECT_EQ(longest->count, tower->num_positions());
}

// Nothing that comes later changes a token but the 60 ms of look-ahead.
TEST_F(AudioTowerTest, TokensDoNotDependOnTheFuture) {
  const auto tower = Make();
  ASSERT_NE(tower, nullptr);
  const std::vector<float> sound = Sound();
  const std::vector<float> whole = Encode(*tower, sound);
  const std::vector<float> part = Encode(*tower, std::span(sound).first(15000));
  const size_t same = (part.size() / 64 - 1) * 64;
  ASSERT_GT(same, 64u);
  EXPECT_LT(RelativeError({part.begin(), part.begin() + static_cast<ptrdiff_t>(same)},
                          {whole.begin(), whole.begin() + static_cast<ptrdiff_t>(same)}),
            1e-5);
}

TEST_F(AudioTowerTest, BadSoundIsRefused) {
  const auto tower = Make();
  ASSERT_NE(tower, nullptr);
  const auto code = [&](const std::vector<float>& pcm) {
    return tower->Encode(pcm).status().code();
  };
  constexpr float kInf = std::numeric_limits<float>::infinity();
  EXPECT_EQ(code({}), StatusCode::kInvalidArgument);
  EXPECT_EQ(code(std::vector<float>(512)), StatusCode::kInvalidArgument);
  EXPECT_EQ(code(std::vector<float>(tower->config().max_samples() + 1)),
            StatusCode::kInvalidArgument);
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), kInf, -kInf, 3e38f}) {
    std::vector<float> pcm(2000);
    pcm[1234] = bad;
    const auto tokens = tower->Encode(pcm);
    EXPECT_EQ(tokens.status().code(), StatusCode::kInvalidArgument);
    EXPECT_THAT(tokens.status().message(), HasSubstr("1234"));
  }
}

TEST_F(AudioTowerTest, ARefusedPushLeavesTheStreamAsItWas) {
  const auto tower = Make();
  ASSERT_NE(tower, nullptr);
  const std::vector<float> sound = Sound(), whole = Encode(*tower, sound);
  auto stream = AudioStream::Create(*tower);
  ASSERT_TRUE(stream.ok());
  ASSERT_TRUE((*stream)->Push(std::span(sound).first(10000)).ok());
  const std::vector<float> bad = {0.0f, std::numeric_limits<float>::quiet_NaN()};
  EXPECT_EQ((*stream)->Push(bad).code(), StatusCode::kInvalidArgument);
  const std::vector<float> too_long((*stream)->remaining_samples() + 1);
  EXPECT_EQ((*stream)->Push(too_long).code(), StatusCode::kInvalidArgument);
  EXPECT_EQ((*stream)->num_samples(), 10000u);
  ASSERT_TRUE((*stream)->Push(std::span(sound).subspan(10000)).ok());
  const auto tokens = (*stream)->Finish();
  ASSERT_TRUE(tokens.ok());
  EXPECT_LT(RelativeError(tokens->values, whole), 1e-5);
  EXPECT_EQ((*stream)->Push(sound).code(), StatusCode::kFailedPrecondition);
  EXPECT_EQ((*stream)->Finish().status().code(), StatusCode::kFailedPrecondition);
}

TEST_F(AudioTowerTest, AClipThatIsTooShortToFinishCanGoOn) {
  const auto tower = Make();
  ASSERT_NE(tower, nullptr);
  auto stream = AudioStream::Create(*tower);
  ASSERT_TRUE(stream.ok());
  EXPECT_EQ((*stream)->Finish().status().code(), StatusCode::kInvalidArgument);
  ASSERT_TRUE((*stream)->Push(std::vector<float>(600, 0.1f)).ok());
  EXPECT_TRUE((*stream)->Finish().ok());
  EXPECT_EQ(AudioStream::Create(*tower, 0).status().code(), StatusCode::kInvalidArgument);
}

TEST_F(AudioTowerTest, SplittingLosesNothingAndMakesNoPieceTooShort) {
  const auto tower = Make();
  ASSERT_NE(tower, nullptr);
  const size_t longest = tower->config().max_samples();
  EXPECT_EQ(tower->config().Split(512).status().code(), StatusCode::kInvalidArgument);
  for (const size_t samples : {size_t{513}, longest - 1, longest, longest + 1, longest + 512,
                               longest + 15999, 2 * longest, 2 * longest + 1, 7 * longest + 77}) {
    const auto pieces = tower->config().Split(samples);
    ASSERT_TRUE(pieces.ok()) << samples;
    EXPECT_EQ(pieces->size(), (samples + longest - 1) / longest) << samples;
    size_t next = 0;
    for (const SoundPiece& piece : *pieces) {
      EXPECT_EQ(piece.begin, next) << samples;
      EXPECT_TRUE(tower->config().CheckLength(piece.end - piece.begin).ok()) << samples;
      next = piece.end;
    }
    EXPECT_EQ(next, samples);
  }
}

TEST_F(AudioTowerTest, SeveralClipsCanBeEncodedAtATime) {
  const auto tower = Make();
  ASSERT_NE(tower, nullptr);
  const std::vector<float> sound = Sound(), whole = Encode(*tower, sound);
  std::vector<std::vector<float>> results(3);
  std::vector<std::thread> threads;
  for (std::vector<float>& result : results) {
    threads.emplace_back([&] {
      for (int run = 0; run < 3; ++run) result = Encode(*tower, sound);
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const std::vector<float>& result : results) EXPECT_EQ(result, whole);
}

TEST_F(AudioTowerTest, ADamagedContainerIsAnErrorThatNamesTheTensor) {
  const std::string name = "audio_tower.conformer.1.attention.post";
  const auto tower =
      Create({.edit = [&](testing::AudioGolden& golden) { golden.tensors.erase(name); }});
  EXPECT_EQ(tower.status().code(), StatusCode::kBadModel);
  EXPECT_THAT(tower.status().message(), HasSubstr(name));
}

}  // namespace
}  // namespace nestling
