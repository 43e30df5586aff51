// SPDX-License-Identifier: Apache-2.0
// Images and sounds in sessions, against the reference (tests/golden/multimodal).
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "modality/sound_recording.h"
#include "modality/towers.h"
#include "runtime/conversation.h"
#include "runtime/session.h"
#include "tests/runtime/replies.h"
#include "tests/support/multimodal_model.h"
#include "tests/support/tiny_model.h"

namespace nestling {
namespace {

using testing::GetMultimodalExpected;
using testing::GreedyIds;
using ::testing::HasSubstr;
using testing::MultimodalExpected;
using testing::MultimodalModelOptions;
using Ids = std::vector<int32_t>;

std::unique_ptr<Engine> OpenEngine(const MultimodalModelOptions& model = {},
                                   const EngineOptions& options = {.num_threads = 2}) {
  const testing::TemporaryPath path;
  const Status written = testing::WriteMultimodalModel(path.path(), model);
  EXPECT_TRUE(written.ok()) << written.message();
  auto engine = Engine::Create(path.path(), options);
  EXPECT_TRUE(engine.ok()) << engine.status().message();
  return engine.ok() ? std::move(engine).value() : nullptr;
}

ImageView Picture() {
  const MultimodalExpected& expected = GetMultimodalExpected();
  return {.pixels = expected.raw,
          .width = expected.raw_width,
          .height = expected.raw_height,
          .stride_bytes = 3 * expected.raw_width};
}

class MultimodalTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_FALSE(expected_.logits.empty()) << "no golden data";
    engine_ = OpenEngine();
    ASSERT_NE(engine_, nullptr);
  }

  std::vector<Media> EncodeBoth() {
    auto image = engine_->towers().EncodeImage(Picture());
    auto sound = engine_->towers().EncodeSound(expected_.waveform);
    EXPECT_TRUE(image.ok()) << image.status().message();
    EXPECT_TRUE(sound.ok()) << sound.status().message();
    if (!image.ok() || !sound.ok()) return {};
    return {*image, *sound};
  }

  Result<SoftRows> Assign(std::span<const int32_t> tokens, std::span<const Media> media) {
    return SoftRows::Assign(tokens, engine_->header().special_tokens, media,
                            engine_->container().content_hash(),
                            engine_->text_config().hidden_size);
  }

  std::unique_ptr<Session> NewSession(uint32_t chunk_tokens = 0) {
    SessionOptions options;
    options.chunk_tokens = chunk_tokens;
    auto session = Session::Create(*engine_, options);
    EXPECT_TRUE(session.ok()) << session.status().message();
    return session.ok() ? std::move(session).value() : nullptr;
  }

  // The largest difference from the reference's logits from position `first` on.
  float LogitError(std::span<const float> logits, size_t first = 0) const {
    const size_t vocab = engine_->text_config().vocab_size;
    float worst = 0;
    for (size_t i = 0; i < logits.size(); ++i) {
      worst = std::max(worst, std::abs(logits[i] - expected_.logits[first * vocab + i]));
    }
    return worst;
  }

  const MultimodalExpected& expected_ = GetMultimodalExpected();
  std::unique_ptr<Engine> engine_;
};

TEST_F(MultimodalTest, LogitsAndGreedyTokensAreTheReferencesHoweverChunksCutTheMedia) {
  const std::vector<Media> media = EncodeBoth();
  ASSERT_EQ(media.size(), 2u);
  const auto rows = Assign(expected_.input_ids, media);
  ASSERT_TRUE(rows.ok()) << rows.status().message();
  for (const uint32_t chunk : {0u, 1u, 7u, 16u, 33u}) {
    SCOPED_TRACE(chunk);
    const auto session = NewSession(chunk);
    std::vector<float> logits;
    const Status status = session->PrefillWithLogits(
        expected_.input_ids,
        [&](size_t, std::span<const float> row) {
          logits.insert(logits.end(), row.begin(), row.end());
          return OkStatus();
        },
        *rows);
    ASSERT_TRUE(status.ok()) << status.message();
    ASSERT_EQ(logits.size(), expected_.logits.size());
    EXPECT_LT(LogitError(logits), expected_.logits_tolerance);
    EXPECT_EQ(GreedyIds(*session, expected_.greedy.size()), expected_.greedy);
  }
}

TEST_F(MultimodalTest, PrefillOfTheLastTokenAloneGivesTheSameLogits) {
  const auto rows = Assign(expected_.input_ids, EncodeBoth());
  ASSERT_TRUE(rows.ok());
  const auto session = NewSession(/*chunk_tokens=*/16);
  ASSERT_TRUE(session->Prefill(expected_.input_ids, *rows).ok());
  const auto logits = session->Logits();
  ASSERT_TRUE(logits.ok());
  EXPECT_LT(LogitError(*logits, expected_.input_ids.size() - 1), expected_.logits_tolerance);
}

TEST_F(MultimodalTest, ATokenInsideAnImageIsRunAgainWithItsRowAfterTruncation) {
  const std::vector<Media> media = EncodeBoth();
  const auto rows = Assign(expected_.input_ids, media);
  ASSERT_TRUE(rows.ok());
  // Position 12 is the fifth soft token of the image; the window is not exceeded before it.
  constexpr uint32_t kInside = 13;
  const auto session = NewSession();
  const Ids begin(expected_.input_ids.begin(), expected_.input_ids.begin() + 20);
  SoftRows begin_rows = *rows;
  begin_rows.Truncate(begin.size());
  ASSERT_TRUE(session->Prefill(begin, begin_rows).ok());
  const Status status = session->Truncate(kInside);
  ASSERT_TRUE(status.ok()) << status.message();
  const auto logits = session->Logits();
  ASSERT_TRUE(logits.ok()) << logits.status().message();
  EXPECT_LT(LogitError(*logits, kInside - 1), expected_.logits_tolerance);
  // And what follows goes on from there.
  SoftRows rest = *rows;
  rest.DropFront(kInside);
  const Ids end(expected_.input_ids.begin() + kInside, expected_.input_ids.end());
  ASSERT_TRUE(session->Prefill(end, rest).ok());
  EXPECT_EQ(GreedyIds(*session, expected_.greedy.size()), expected_.greedy);
}

TEST_F(MultimodalTest, RowsGoWhenTheirPositionsCannotBeRunAgain) {
  const auto rows = Assign(expected_.input_ids, EncodeBoth());
  ASSERT_TRUE(rows.ok());
  const auto session = NewSession(/*chunk_tokens=*/8);
  // Up to the end of the sound, of which each position may still be the last one that is kept.
  const Ids begin(expected_.input_ids.begin(), expected_.input_ids.begin() + 56);
  ASSERT_TRUE(session->Prefill(begin, *rows).ok());
  EXPECT_GT(session->soft_token_bytes(), 0u);
  // Text, until the sliding window of 16 and a chunk have left the media behind.
  ASSERT_TRUE(session->Prefill(Ids(100, 5)).ok());
  EXPECT_EQ(session->soft_token_bytes(), 0u);
  EXPECT_EQ(session->Truncate(50).code(), StatusCode::kFailedPrecondition);
  ASSERT_TRUE(session->Logits().ok());
}

TEST_F(MultimodalTest, RawAndPreparedPicturesAreTheSameImage) {
  const auto raw = engine_->towers().EncodeImage(Picture());
  const auto prepared = engine_->towers().EncodePixels(expected_.pixels);
  ASSERT_TRUE(raw.ok() && prepared.ok());
  EXPECT_EQ(raw->pieces[0]->values, prepared->pieces[0]->values);
}

TEST_F(MultimodalTest, APlaceholderWithoutContentIsRefusedAndTheSessionStaysAsItWas) {
  const auto session = NewSession();
  ASSERT_TRUE(session->Prefill(Ids{2, 444, 384}).ok());
  const int32_t image = engine_->header().special_tokens.image_soft;
  const int32_t sound = engine_->header().special_tokens.audio_soft;
  for (const int32_t id : {image, sound}) {
    const Status status = session->Prefill(Ids{5, id, 6});
    EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
    EXPECT_THAT(status.message(), HasSubstr("token 1 is the placeholder of"));
    EXPECT_EQ(session->num_tokens(), 3u);
  }
}

TEST_F(MultimodalTest, ContentWithoutPlaceholdersAndTooFewOrTooManyAreRefused) {
  const std::vector<Media> media = EncodeBoth();
  ASSERT_EQ(media.size(), 2u);
  const Ids text = {2, 444, 384};
  Ids fewer = expected_.input_ids, more = expected_.input_ids;
  const auto image = std::find(fewer.begin(), fewer.end(), 601);
  fewer.erase(image);
  more.push_back(601);
  for (const Ids& tokens : {text, fewer, more}) {
    const auto rows = Assign(tokens, media);
    EXPECT_EQ(rows.status().code(), StatusCode::kInvalidArgument);
    EXPECT_THAT(rows.status().message(), HasSubstr("placeholders"));
  }
}

TEST_F(MultimodalTest, EndsOfMediaAreEmbeddedByTheTowersAndNotAsText) {
  const SpecialTokens& special = engine_->header().special_tokens;
  HardEmbeddings& hard = engine_->towers().hard_embeddings();
  const size_t hidden = engine_->text_config().hidden_size;
  size_t found = 0;
  for (size_t i = 0; i < expected_.input_ids.size(); ++i) {
    const int32_t id = expected_.input_ids[i];
    if (id != special.end_of_image && id != special.end_of_audio) continue;
    ++found;
    const auto row = hard.Get(id);
    ASSERT_TRUE(row.ok()) << row.status().message();
    for (size_t h = 0; h < hidden; ++h) {
      EXPECT_NEAR((**row)[h], expected_.embeddings[i * hidden + h], 1e-5) << h;
    }
  }
  EXPECT_EQ(found, 2u);
  // Only the embedders were read.
  EXPECT_EQ(engine_->towers().Info(TowerKind::kVision).state, TowerState::kUnloaded);
  EXPECT_EQ(engine_->towers().Info(TowerKind::kAudio).state, TowerState::kUnloaded);
}

TEST_F(MultimodalTest, PositionsAfterASoundsSoftTokensHoldThePaddingEmbedding) {
  const auto sound = engine_->towers().EncodeSound(expected_.waveform);
  ASSERT_TRUE(sound.ok());
  ASSERT_EQ(sound->pieces.size(), 1u);
  EXPECT_EQ(sound->num_soft_tokens(), 13u);
  EXPECT_EQ(sound->positions, 20u);
  const size_t hidden = engine_->text_config().hidden_size;
  const auto last = std::find(expected_.input_ids.rbegin(), expected_.input_ids.rend(), 625);
  const size_t position = static_cast<size_t>(expected_.input_ids.rend() - last) - 1;
  ASSERT_NE(sound->padding, nullptr);
  for (size_t h = 0; h < hidden; ++h) {
    EXPECT_NEAR((*sound->padding)[h], expected_.embeddings[position * hidden + h], 1e-5) << h;
  }
}

TEST_F(MultimodalTest, TheSameImageAgainIsNotEncodedAgain) {
  Towers& towers = engine_->towers();
  const auto first = towers.EncodeImage(Picture());
  const auto again = towers.EncodeImage(Picture());
  ASSERT_TRUE(first.ok() && again.ok());
  EXPECT_EQ(first->pieces[0], again->pieces[0]);  // the same memory
  EXPECT_EQ(towers.cache_counters().hits, 1u);
  EXPECT_EQ(towers.cache_counters().misses, 1u);
  std::vector<uint8_t> changed = expected_.raw;
  changed.at(changed.size() / 2) ^= 1;
  ImageView other = Picture();
  other.pixels = changed;
  const auto different = towers.EncodeImage(other);
  ASSERT_TRUE(different.ok());
  EXPECT_EQ(towers.cache_counters().misses, 2u);
  // A cached image needs no tower.
  towers.Unload(TowerKind::kVision);
  ASSERT_TRUE(towers.EncodeImage(Picture()).ok());
  EXPECT_EQ(towers.Info(TowerKind::kVision).state, TowerState::kUnloaded);
}

TEST_F(MultimodalTest, TheBytesBetweenRowsDoNotTellImagesApart) {
  const size_t row = 3 * expected_.raw_width, stride = row + 5;
  std::vector<uint8_t> padded(stride * expected_.raw_height, 0xee);
  for (size_t y = 0; y < expected_.raw_height; ++y) {
    std::copy_n(expected_.raw.data() + y * row, row, padded.data() + y * stride);
  }
  ImageView image = Picture();
  image.pixels = padded;
  image.stride_bytes = stride;
  Towers& towers = engine_->towers();
  const auto plain = towers.EncodeImage(Picture());
  const auto strided = towers.EncodeImage(image);
  ASSERT_TRUE(plain.ok() && strided.ok());
  EXPECT_EQ(towers.cache_counters().hits, 1u);
}

TEST(MultimodalCacheTest, ACacheThatIsTooSmallKeepsNothingAndEverythingWorks) {
  const auto engine = OpenEngine({}, {.num_threads = 2, .towers = {.cache_bytes = 1}});
  ASSERT_NE(engine, nullptr);
  for (int i = 0; i < 2; ++i) ASSERT_TRUE(engine->towers().EncodeImage(Picture()).ok());
  EXPECT_EQ(engine->towers().cache_counters().hits, 0u);
  EXPECT_EQ(engine->towers().cache_counters().bytes, 0u);
}

// ---- Bad input ----

TEST_F(MultimodalTest, BadImagesAreRefusedBeforeATowerIsLoaded) {
  const std::vector<uint8_t> pixels(300, 7);
  const auto refused = [&](size_t width, size_t height, size_t stride) {
    const auto result = engine_->towers().EncodeImage(
        {.pixels = pixels, .width = width, .height = height, .stride_bytes = stride});
    EXPECT_EQ(result.status().code(), StatusCode::kInvalidArgument)
        << width << " x " << height << ", stride " << stride;
    EXPECT_THAT(result.status().message(), HasSubstr("image"));
  };
  refused(0, 0, 0);
  refused(0, 10, 30);
  refused(10, 0, 30);
  refused(30000, 30000, 90000);
  refused(10, 10, 29);  // a row does not fit
  refused(10, 10, 31);  // the last rows are not there
  refused(10, 10, std::numeric_limits<size_t>::max());
  refused(std::numeric_limits<size_t>::max(), std::numeric_limits<size_t>::max(), 30);
  const std::vector<float> prepared(5, 0.5f);
  EXPECT_EQ(engine_->towers().EncodePixels(prepared).status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(engine_->towers().cache_counters().bytes, 0u);
}

TEST_F(MultimodalTest, BadSoundsAreRefused) {
  Towers& towers = engine_->towers();
  for (const size_t samples : {size_t{0}, size_t{1}, size_t{512}}) {
    const std::vector<float> pcm(samples, 0.1f);
    EXPECT_EQ(towers.EncodeSound(pcm).status().code(), StatusCode::kInvalidArgument) << samples;
  }
  for (const float bad :
       {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(), -1e30f}) {
    std::vector<float> pcm = expected_.waveform;
    pcm[20000] = bad;
    const auto result = towers.EncodeSound(pcm);
    EXPECT_EQ(result.status().code(), StatusCode::kInvalidArgument) << bad;
    EXPECT_THAT(result.status().message(), HasSubstr("sample 20000"));
  }
  EXPECT_EQ(towers.cache_counters().bytes, 0u);
}

TEST(MultimodalAbsentTest, WithoutTowersTextWorksAndMediaAreRefused) {
  const auto engine = OpenEngine({.tokenizer = true, .vision = false, .audio = false});
  ASSERT_NE(engine, nullptr);
  Towers& towers = engine->towers();
  for (const TowerKind kind : {TowerKind::kVision, TowerKind::kAudio}) {
    EXPECT_EQ(towers.Info(kind).state, TowerState::kAbsent);
    EXPECT_FALSE(towers.Load(kind, /*in_background=*/false).ok());
    EXPECT_FALSE(towers.Load(kind, /*in_background=*/true).ok());
    towers.Unload(kind);
  }
  EXPECT_FALSE(towers.EncodeImage(Picture()).ok());
  EXPECT_FALSE(towers.EncodeSound(GetMultimodalExpected().waveform).ok());
  auto session = Session::Create(*engine, {});
  ASSERT_TRUE(session.ok());
  Conversation conversation(**session);
  ASSERT_TRUE(conversation.AddMessage(Role::kUser, "hello").ok());
  GenerateOptions options;
  options.max_tokens = 3;
  EXPECT_TRUE(conversation.Reply(options, {}).ok());
}

// ---- Recordings ----

TEST_F(MultimodalTest, ARecordingIsCutLikeTheWholeSoundWhateverIsPushedAtATime) {
  const uint32_t clip = engine_->towers().shape().max_samples;
  const size_t second = 16000;
  for (const size_t length : {size_t{513}, second, size_t{clip}, clip + size_t{1},
                              clip + second - 1, clip + second, 2 * size_t{clip} + 777}) {
    SCOPED_TRACE(length);
    std::vector<float> pcm(length);
    for (size_t i = 0; i < length; ++i) {
      pcm[i] = 0.3f * std::sin(static_cast<float>(i) * 0.07f) *
               std::sin(static_cast<float>(i) * 0.0003f);
    }
    const auto whole = engine_->towers().EncodeSound(pcm);
    ASSERT_TRUE(whole.ok()) << whole.status().message();
    auto recording = SoundRecording::Create(engine_->towers());
    ASSERT_TRUE(recording.ok());
    for (size_t done = 0, step = 1; done < length; step = step * 3 % 20011 + 1) {
      const size_t count = std::min(step, length - done);
      ASSERT_TRUE((*recording)->Push(std::span<const float>(pcm).subspan(done, count)).ok());
      done += count;
    }
    EXPECT_EQ((*recording)->num_samples(), length);
    const auto streamed = (*recording)->Finish();
    ASSERT_TRUE(streamed.ok()) << streamed.status().message();
    ASSERT_EQ(streamed->pieces.size(), whole->pieces.size());
    for (size_t p = 0; p < whole->pieces.size(); ++p) {
      ASSERT_EQ(streamed->pieces[p]->count, whole->pieces[p]->count);
      for (size_t i = 0; i < whole->pieces[p]->values.size(); ++i) {
        // Steps run in other groups: sums in another order.
        ASSERT_NEAR(streamed->pieces[p]->values[i], whole->pieces[p]->values[i], 1e-4);
      }
    }
  }
}

TEST_F(MultimodalTest, ARecordingRefusesWhatIsNotSoundAndGoesOn) {
  auto recording = SoundRecording::Create(engine_->towers());
  ASSERT_TRUE(recording.ok());
  const std::vector<float> bad = {0.1f, std::numeric_limits<float>::quiet_NaN()};
  EXPECT_EQ((*recording)->Push(bad).code(), StatusCode::kInvalidArgument);
  EXPECT_EQ((*recording)->num_samples(), 0u);
  ASSERT_TRUE((*recording)->Push({}).ok());
  ASSERT_TRUE((*recording)->Push(std::vector<float>(500, 0.1f)).ok());
  EXPECT_EQ((*recording)->Finish().status().code(), StatusCode::kInvalidArgument);  // too short
  ASSERT_TRUE((*recording)->Push(std::vector<float>(500, 0.1f)).ok());
  EXPECT_TRUE((*recording)->Finish().ok());
  EXPECT_EQ((*recording)->Push(std::vector<float>(5)).code(), StatusCode::kFailedPrecondition);
  EXPECT_EQ((*recording)->Finish().status().code(), StatusCode::kFailedPrecondition);
}

}  // namespace
}  // namespace nestling
