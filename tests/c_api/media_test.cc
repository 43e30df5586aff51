// SPDX-License-Identifier: Apache-2.0
// Images and sounds through the public interface: what works by nestling.hpp, what is refused by
// the functions of nestling.h.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <iterator>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "nestling/nestling.hpp"

namespace {

using nestling::MakeStruct;
using nestling::Part;
using nestling::Role;
using testing::HasSubstr;

const std::string kModels = NESTLING_MODELS;

template <typename T>
std::vector<T> ReadValues(const std::string& name) {
  std::ifstream file(kModels + "/media/" + name, std::ios::binary);
  const std::string bytes((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  std::vector<T> values(bytes.size() / sizeof(T));
  std::memcpy(values.data(), bytes.data(), values.size() * sizeof(T));
  EXPECT_FALSE(values.empty()) << name;
  return values;
}

// What the reference makes of a prompt with an image and a sound (make_models.cc).
struct Golden {
  std::vector<uint8_t> raw = ReadValues<uint8_t>("raw");
  std::vector<float> pixels = ReadValues<float>("pixels");
  std::vector<float> waveform = ReadValues<float>("waveform");
  std::vector<float> image_tokens = ReadValues<float>("image_tokens");
  std::vector<float> audio_tokens = ReadValues<float>("audio_tokens");
  std::vector<float> logits = ReadValues<float>("logits");
  std::vector<int32_t> ids = ReadValues<int32_t>("ids");
  std::vector<int32_t> greedy = ReadValues<int32_t>("greedy");
};
constexpr uint32_t kRawWidth = 177, kRawHeight = 131, kSide = 192;
constexpr float kLogitTolerance = 1.4e-3f, kSoftTolerance = 1.2e-4f;

float LargestDifference(std::span<const float> a, std::span<const float> b) {
  EXPECT_EQ(a.size(), b.size());
  float largest = 0;
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    largest = std::max(largest, std::abs(a[i] - b[i]));
  }
  return largest;
}

// The call is refused with this status, and says so.
#define EXPECT_REFUSED(call, status, words)                           \
  do {                                                                \
    EXPECT_EQ((call), status);                                        \
    const char* const message = nestling_last_error();                \
    EXPECT_THAT(message != nullptr ? message : "", HasSubstr(words)); \
  } while (false)

class MediaTest : public testing::Test {
 protected:
  static nestling::EngineOptions Options() {
    nestling::EngineOptions options;
    options.num_threads = 2;
    return options;
  }

  Part Image() const { return Part::Image(golden_.raw, kRawWidth, kRawHeight); }
  Part Prepared() const { return Part::PreparedImage(golden_.pixels, kSide, kSide); }
  Part Sound() const { return Part::Audio(golden_.waveform); }

  std::vector<int32_t> Greedy(nestling::Session& session) const {
    nestling::GenerateOptions options;
    options.max_tokens = static_cast<uint32_t>(golden_.greedy.size());
    options.sampling = NESTLING_SAMPLING_GREEDY;
    options.ignore_stop_tokens = true;
    std::vector<int32_t> ids;
    session.Generate(options, [&](const nestling::Token& token) {
      if (token.id >= 0) ids.push_back(token.id);
      return true;
    });
    return ids;
  }

  const Golden golden_;
  nestling::Engine engine_{kModels + "/media.nest", Options()};
};

TEST_F(MediaTest, SoftTokensAreTheReferences) {
  EXPECT_LT(LargestDifference(engine_.Encode(Image()), golden_.image_tokens), kSoftTolerance);
  EXPECT_LT(LargestDifference(engine_.Encode(Prepared()), golden_.image_tokens), kSoftTolerance);
  EXPECT_LT(LargestDifference(engine_.Encode(Sound()), golden_.audio_tokens), kSoftTolerance);
}

TEST_F(MediaTest, EvalAndPrefillTakeMediaInTheirFormsAndGiveTheReferencesTokens) {
  const std::vector<float> image_tokens = engine_.Encode(Prepared());
  const std::vector<float> audio_tokens = engine_.Encode(Sound());
  nestling::AudioStream stream(engine_);
  const std::span<const float> samples(golden_.waveform);
  for (size_t i = 0; i < samples.size(); i += 1000) {
    stream.Push(samples.subspan(i, std::min<size_t>(1000, samples.size() - i)));
  }
  stream.Finish();
  const std::vector<Part> forms[] = {
      {Image(), Sound()},
      {Sound(), Prepared()},  // each kind in its own order
      {Part::ImageTokens(image_tokens), Part::AudioTokens(audio_tokens)},
      {Prepared(), Part::Audio(stream.get())},
  };
  for (const std::vector<Part>& media : forms) {
    nestling::Session session(engine_);
    std::vector<float> logits;
    session.EvalMedia(golden_.ids, media, [&](size_t, std::span<const float> row) {
      logits.insert(logits.end(), row.begin(), row.end());
      return true;
    });
    EXPECT_LT(LargestDifference(logits, golden_.logits), kLogitTolerance);
    EXPECT_EQ(Greedy(session), golden_.greedy);

    nestling::Session other(engine_);
    other.PrefillMedia(golden_.ids, media);
    EXPECT_EQ(Greedy(other), golden_.greedy);
    EXPECT_GT(other.Info().soft_token_bytes, 0u);
    other.Reset();
    EXPECT_EQ(other.Info().soft_token_bytes, 0u);
  }
}

TEST_F(MediaTest, AConversationAboutAnImageAndASound) {
  nestling::Session session(engine_);
  const Part first[] = {Image(), Part::Text("hello"), Sound()};
  session.AddMessage(Role::kUser, first);
  nestling::GenerateOptions options;
  options.max_tokens = 3;
  options.ignore_stop_tokens = true;
  EXPECT_EQ(session.Generate(options).num_tokens, 3u);
  const auto before = engine_.SoftTokenCacheInfo();
  const Part again[] = {Part::Text("world"), Image()};
  session.AddMessage(Role::kUser, again);
  EXPECT_EQ(session.Generate(options).num_tokens, 3u);
  const auto after = engine_.SoftTokenCacheInfo();
  EXPECT_EQ(after.hits, before.hits + 1);  // nothing was encoded again
  EXPECT_EQ(after.misses, before.misses);
  EXPECT_EQ(engine_.TowerInfo(NESTLING_TOWER_VISION).num_encodes, 1u);
}

TEST_F(MediaTest, WrittenPlaceholdersAreExpandedOnlyIfTheFlagSaysSo) {
  const std::string text = "hello <image_soft_token> world <audio_soft_token>";
  const auto count = [](const std::vector<int32_t>& ids, int32_t id) {
    return std::count(ids.begin(), ids.end(), id);
  };
  const int32_t image = engine_.TowerInfo(NESTLING_TOWER_VISION).placeholder_token;
  const int32_t sound = engine_.TowerInfo(NESTLING_TOWER_AUDIO).placeholder_token;
  const uint32_t expand = NESTLING_TOKENIZE_PARSE_SPECIAL | NESTLING_TOKENIZE_EXPAND_MEDIA;
  EXPECT_EQ(count(engine_.Tokenize(text), image), 0);
  EXPECT_EQ(count(engine_.Tokenize(text, NESTLING_TOKENIZE_PARSE_SPECIAL), image), 1);
  const std::vector<int32_t> ids = engine_.Tokenize(text, expand | NESTLING_TOKENIZE_ADD_BOS);
  EXPECT_EQ(count(ids, image), 16);
  EXPECT_EQ(count(ids, sound), 20);
  EXPECT_EQ(ids.front(), engine_.Info().bos_token);
  nestling::Session session(engine_);
  const Part media[] = {Image(), Sound()};
  session.PrefillMedia(ids, media);
  size_t needed = 0;
  EXPECT_REFUSED(nestling_engine_tokenize(engine_.get(), "", 0, NESTLING_TOKENIZE_EXPAND_MEDIA,
                                          nullptr, 0, &needed),
                 NESTLING_INVALID_ARGUMENT, "flags");
}

TEST_F(MediaTest, SizesAreKnownBeforeAnythingIsLoaded) {
  const auto image = engine_.MeasureMedia(Image());
  EXPECT_EQ(image.num_clips, 1u);
  EXPECT_EQ(image.num_soft_tokens, 16u);
  EXPECT_EQ(image.num_positions, 16u);
  const auto sound = engine_.MeasureMedia(Sound());
  EXPECT_EQ(sound.num_clips, 1u);
  EXPECT_EQ(sound.num_soft_tokens, 13u);
  EXPECT_EQ(sound.num_positions, 20u);
  const auto audio = engine_.TowerInfo(NESTLING_TOWER_AUDIO);
  const std::vector<float> longer(2 * audio.clip_samples + 1);
  EXPECT_EQ(engine_.MeasureMedia(Part::Audio(longer)).num_clips, 3u);
  size_t needed = 0;
  const Part part = Image();
  EXPECT_EQ(nestling_engine_encode(engine_.get(), &part.get(), nullptr, 0, &needed), NESTLING_OK);
  EXPECT_EQ(needed, golden_.image_tokens.size());
  for (const nestling_tower tower : {NESTLING_TOWER_VISION, NESTLING_TOWER_AUDIO}) {
    EXPECT_EQ(engine_.TowerInfo(tower).state, NESTLING_TOWER_UNLOADED);
  }
}

TEST_F(MediaTest, TowersComeAndGoAsTheyAreTold) {
  for (const nestling_tower tower : {NESTLING_TOWER_VISION, NESTLING_TOWER_AUDIO}) {
    engine_.LoadTower(tower);
    auto info = engine_.TowerInfo(tower);
    EXPECT_EQ(info.state, NESTLING_TOWER_READY);
    EXPECT_EQ(info.load_status, NESTLING_OK);
    EXPECT_GT(info.weight_bytes, 0u);
    engine_.UnloadTower(tower);
    info = engine_.TowerInfo(tower);
    EXPECT_EQ(info.state, NESTLING_TOWER_UNLOADED);
    EXPECT_EQ(info.weight_bytes, 0u);
    engine_.LoadTower(tower, /*in_background=*/true);
    engine_.LoadTower(tower);  // waits
    EXPECT_EQ(engine_.TowerInfo(tower).num_loads, 2u);
  }
  EXPECT_REFUSED(nestling_engine_load_tower(engine_.get(), 2, 0), NESTLING_INVALID_ARGUMENT,
                 "tower");
  EXPECT_REFUSED(nestling_engine_load_tower(engine_.get(), NESTLING_TOWER_AUDIO, 2),
                 NESTLING_INVALID_ARGUMENT, "flags");
  EXPECT_REFUSED(nestling_engine_unload_tower(engine_.get(), -1), NESTLING_INVALID_ARGUMENT,
                 "tower");
  EXPECT_REFUSED(nestling_engine_load_tower(nullptr, 0, 0), NESTLING_INVALID_ARGUMENT, "engine");
}

TEST_F(MediaTest, TheCacheKeepsItsBoundAndIsCleared) {
  nestling::EngineOptions options = Options();
  options.soft_token_cache_bytes = golden_.image_tokens.size() * sizeof(float);
  nestling::Engine engine(kModels + "/media.nest", options);
  engine.Encode(Image());
  engine.Encode(Image());
  engine.Encode(Prepared());  // other bytes, another entry
  auto info = engine.SoftTokenCacheInfo();
  EXPECT_EQ(info.capacity_bytes, options.soft_token_cache_bytes);
  EXPECT_EQ(info.used_bytes, options.soft_token_cache_bytes);
  EXPECT_EQ(info.num_entries, 1u);
  EXPECT_EQ(info.hits, 1u);
  EXPECT_EQ(info.misses, 2u);
  EXPECT_EQ(engine.Memory().soft_token_cache_bytes, info.used_bytes);
  engine.ClearSoftTokenCache();
  info = engine.SoftTokenCacheInfo();
  EXPECT_EQ(info.used_bytes, 0u);
  EXPECT_EQ(info.num_entries, 0u);
}

TEST_F(MediaTest, SeveralThreadsEncodeAndUnloadAtTheSameTime) {
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 3; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 3; ++i) {
        const std::vector<float> got = engine_.Encode(t % 2 == 0 ? Prepared() : Sound());
        const std::vector<float>& want = t % 2 == 0 ? golden_.image_tokens : golden_.audio_tokens;
        if (LargestDifference(got, want) > kSoftTolerance) ++wrong;
        engine_.ClearSoftTokenCache();
        engine_.UnloadTower(t % 2 == 0 ? NESTLING_TOWER_VISION : NESTLING_TOWER_AUDIO);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
}

// ---- What is refused ----

class RefusedMediaTest : public MediaTest {
 protected:
  // `part` is refused wherever one can be given, and no session notices.
  void ExpectRefused(const nestling_part& part, nestling_status status, const char* words) {
    nestling_engine* const engine = engine_.get();
    size_t needed = 0;
    std::vector<float> buffer(1 << 16);
    EXPECT_REFUSED(nestling_engine_encode(engine, &part, buffer.data(), buffer.size(), &needed),
                   status, words);
    // Nothing else is wrong: the prompt's other placeholders get what they want.
    nestling_part media[] = {part, Part::ImageTokens(golden_.image_tokens).get()};
    if (part.type == NESTLING_PART_IMAGE || part.type == NESTLING_PART_PREPARED_IMAGE ||
        part.type == NESTLING_PART_IMAGE_TOKENS) {
      media[1] = Part::AudioTokens(golden_.audio_tokens).get();
    }
    nestling::Session raw(engine_);
    EXPECT_REFUSED(nestling_session_prefill_media(raw.get(), golden_.ids.data(), golden_.ids.size(),
                                                  media, std::size(media)),
                   status, words);
    EXPECT_EQ(raw.Info().num_tokens, 0u);
    nestling::Session session(engine_);
    session.AddMessage(Role::kSystem, "hello");
    nestling_part parts[2] = {part, part};
    NESTLING_INIT(&parts[0]);
    parts[0].struct_size = part.struct_size;
    parts[0].type = NESTLING_PART_TEXT;
    parts[0].data = "world";
    parts[0].size = NESTLING_NUL_TERMINATED;
    EXPECT_REFUSED(nestling_session_add_message_parts(session.get(), NESTLING_ROLE_USER, parts, 2),
                   status, words);
    EXPECT_EQ(session.Info().num_tokens, 0u);
    session.AddMessage(Role::kUser, "hello");  // still the user's turn
  }
  void ExpectMeasureRefused(const nestling_part& part, nestling_status status, const char* words) {
    auto size = MakeStruct<nestling_media_size>();
    EXPECT_REFUSED(nestling_engine_measure_media(engine_.get(), &part, &size), status, words);
  }
};

TEST_F(RefusedMediaTest, ImagesThatCannotBe) {
  const std::vector<uint8_t> pixels(10 * 31);
  const auto image = [&](uint32_t width, uint32_t height, size_t stride, size_t bytes) {
    nestling_part part = Part::Image(pixels, width, height).get();
    part.stride_bytes = stride;
    part.size = bytes;
    return part;
  };
  const nestling_part bad[] = {
      image(0, 0, 0, pixels.size()),
      image(0, 10, 0, pixels.size()),
      image(10, 0, 0, pixels.size()),
      image(30000, 30000, 0, pixels.size()),
      image(65536, 1, 0, pixels.size()),
      image(10, 10, 29, pixels.size()),
      image(10, 10, 0, 299),
      image(10, 10, 31, 308),
      image(10, 10, std::numeric_limits<size_t>::max(), pixels.size()),
      image(10, 10, 0, 0),
  };
  for (const nestling_part& part : bad) {
    SCOPED_TRACE(testing::Message() << part.width << " x " << part.height << " stride "
                                    << part.stride_bytes << " bytes " << part.size);
    ExpectRefused(part, NESTLING_INVALID_ARGUMENT, "image");
    ExpectMeasureRefused(part, NESTLING_INVALID_ARGUMENT, "image");
  }
  nestling_part part = image(10, 10, 0, 300);
  part.pixel_format = 7;
  ExpectRefused(part, NESTLING_INVALID_ARGUMENT, "pixel_format");
  part = image(10, 10, 0, 300);
  part.data = nullptr;
  ExpectRefused(part, NESTLING_INVALID_ARGUMENT, "NULL");
  EXPECT_EQ(engine_.TowerInfo(NESTLING_TOWER_VISION).num_loads, 0u);
}

TEST_F(RefusedMediaTest, PreparedImagesOfAnotherSizeOrWithNumbersThatAreNone) {
  ExpectRefused(Part::PreparedImage(golden_.pixels, kSide, kSide - 1).get(),
                NESTLING_INVALID_ARGUMENT, "image");
  ExpectRefused(
      Part::PreparedImage(std::span(golden_.pixels).first(golden_.pixels.size() - 1), kSide, kSide)
          .get(),
      NESTLING_INVALID_ARGUMENT, "image");
  std::vector<float> pixels = golden_.pixels;
  pixels[77] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_THROW(engine_.Encode(Part::PreparedImage(pixels, kSide, kSide)), nestling::Error);
}

TEST_F(RefusedMediaTest, SoundsThatAreNone) {
  const std::vector<float> few(512, 0.1f);
  ExpectRefused(Part::Audio(std::span(few)).get(), NESTLING_INVALID_ARGUMENT, "sound");
  ExpectMeasureRefused(Part::Audio(std::span(few)).get(), NESTLING_INVALID_ARGUMENT, "sound");
  nestling_part empty = Part::Audio(std::span(few)).get();
  empty.size = 0;
  ExpectRefused(empty, NESTLING_INVALID_ARGUMENT, "sound");
  for (const float bad :
       {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::infinity(), 1e20f}) {
    std::vector<float> pcm = golden_.waveform;
    pcm[12345] = bad;
    ExpectRefused(Part::Audio(std::span(pcm)).get(), NESTLING_INVALID_ARGUMENT, "12345");
  }
}

TEST_F(RefusedMediaTest, SoftTokensOfAWrongNumber) {
  const std::span<const float> image(golden_.image_tokens), sound(golden_.audio_tokens);
  const size_t hidden = engine_.Info().hidden_size;
  const std::vector<float> many(21 * hidden, 0.5f);
  const nestling_part bad[] = {
      Part::ImageTokens(image.first(image.size() - 1)).get(),
      Part::ImageTokens(image.first(image.size() - hidden)).get(),
      Part::ImageTokens(many).get(),
      Part::AudioTokens(sound.first(hidden - 1)).get(),
      Part::AudioTokens(many).get(),
      Part::AudioTokens(sound.first(0)).get(),
  };
  for (size_t i = 0; i < std::size(bad); ++i) {
    SCOPED_TRACE(i);
    ExpectRefused(bad[i], NESTLING_INVALID_ARGUMENT, "soft tokens");
    ExpectMeasureRefused(bad[i], NESTLING_INVALID_ARGUMENT, "soft tokens");
  }
  std::vector<float> values = golden_.image_tokens;
  values[5] = std::numeric_limits<float>::infinity();
  ExpectRefused(Part::ImageTokens(values).get(), NESTLING_INVALID_ARGUMENT, "soft tokens");
}

TEST_F(RefusedMediaTest, PartsThatAreNone) {
  nestling_part part = Image().get();
  part.type = 99;
  ExpectRefused(part, NESTLING_INVALID_ARGUMENT, "type");
  size_t needed = 0;
  const nestling_part text = Part::Text("hello").get();
  EXPECT_REFUSED(nestling_engine_encode(engine_.get(), &text, nullptr, 0, &needed),
                 NESTLING_INVALID_ARGUMENT, "type");
  EXPECT_REFUSED(nestling_engine_encode(engine_.get(), nullptr, nullptr, 0, &needed),
                 NESTLING_INVALID_ARGUMENT, "media");
  part = Image().get();
  part.struct_size = 3;
  EXPECT_REFUSED(nestling_engine_encode(engine_.get(), &part, nullptr, 0, &needed),
                 NESTLING_INVALID_ARGUMENT, "struct_size");
  float value = 0;
  part = Image().get();
  EXPECT_REFUSED(nestling_engine_encode(engine_.get(), &part, &value, 1, &needed),
                 NESTLING_INVALID_ARGUMENT, "capacity");
  EXPECT_EQ(needed, golden_.image_tokens.size());
  nestling::Session session(engine_);
  EXPECT_REFUSED(nestling_session_add_message_parts(session.get(), NESTLING_ROLE_USER, nullptr, 1),
                 NESTLING_INVALID_ARGUMENT, "parts");
  EXPECT_REFUSED(nestling_session_add_message_parts(session.get(), NESTLING_ROLE_USER, &text, 0),
                 NESTLING_INVALID_ARGUMENT, "parts");
  EXPECT_REFUSED(nestling_session_add_message_parts(session.get(), 9, &text, 1),
                 NESTLING_INVALID_ARGUMENT, "role");
  for (const nestling_role role : {NESTLING_ROLE_SYSTEM, NESTLING_ROLE_ASSISTANT}) {
    nestling::Session other(engine_);
    if (role == NESTLING_ROLE_ASSISTANT) other.AddMessage(Role::kUser, "hello");
    const uint32_t before = other.Info().num_tokens;
    EXPECT_REFUSED(nestling_session_add_message_parts(other.get(), role, &part, 1),
                   NESTLING_INVALID_ARGUMENT, "");
    EXPECT_EQ(other.Info().num_tokens, before);
  }
  EXPECT_EQ(engine_.TowerInfo(NESTLING_TOWER_VISION).num_loads, 0u);
}

TEST_F(RefusedMediaTest, PlaceholdersWithoutContentAndContentWithoutPlaceholders) {
  nestling::Session session(engine_);
  const auto refused = [&](const std::vector<int32_t>& ids, const std::vector<Part>& media) {
    EXPECT_REFUSED(
        nestling_session_prefill_media(session.get(), ids.data(), ids.size(),
                                       media.empty() ? nullptr : &media[0].get(), media.size()),
        NESTLING_INVALID_ARGUMENT, "placeholder");
    EXPECT_EQ(session.Info().num_tokens, 0u);
  };
  std::vector<int32_t> more = golden_.ids;
  more.push_back(engine_.TowerInfo(NESTLING_TOWER_VISION).placeholder_token);
  refused(golden_.ids, {});
  refused(golden_.ids, {Image()});
  refused(golden_.ids, {Sound()});
  refused(golden_.ids, {Image(), Sound(), Image()});
  refused(more, {Image(), Sound()});
  refused({2, 5, 6}, {Image()});
  EXPECT_REFUSED(nestling_session_prefill(session.get(), golden_.ids.data(), golden_.ids.size()),
                 NESTLING_INVALID_ARGUMENT, "placeholder");
  EXPECT_EQ(session.Info().num_tokens, 0u);
}

TEST_F(RefusedMediaTest, WhatDoesNotFitIsFoundBeforeATowerIsLoaded) {
  nestling::SessionOptions options;
  options.context_tokens = 20;
  nestling::Session session(engine_, options);
  const Part parts[] = {Image(), Sound()};
  EXPECT_REFUSED(nestling_session_add_message_parts(session.get(), NESTLING_ROLE_USER,
                                                    &parts[0].get(), std::size(parts)),
                 NESTLING_CONTEXT_FULL, "room for 20 of 20");
  nestling::Session other(engine_);
  const std::vector<Part> with_bad = {Image(), Part::Audio(std::span(golden_.waveform).first(5))};
  EXPECT_REFUSED(nestling_session_add_message_parts(other.get(), NESTLING_ROLE_USER,
                                                    &with_bad[0].get(), with_bad.size()),
                 NESTLING_INVALID_ARGUMENT, "parts[1]");
  EXPECT_REFUSED(nestling_session_prefill_media(other.get(), golden_.ids.data(), golden_.ids.size(),
                                                &parts[0].get(), 1),
                 NESTLING_INVALID_ARGUMENT, "placeholders of sounds");
  EXPECT_EQ(engine_.TowerInfo(NESTLING_TOWER_VISION).num_loads, 0u);
}

TEST_F(RefusedMediaTest, ModelsWithoutTowers) {
  nestling::Engine engine(kModels + "/chat.nest", Options());
  for (const nestling_tower tower : {NESTLING_TOWER_VISION, NESTLING_TOWER_AUDIO}) {
    EXPECT_EQ(engine.TowerInfo(tower).state, NESTLING_TOWER_ABSENT);
    for (const uint32_t flags : {0, +NESTLING_LOAD_IN_BACKGROUND}) {
      EXPECT_REFUSED(nestling_engine_load_tower(engine.get(), tower, flags), NESTLING_UNSUPPORTED,
                     "tower");
    }
    EXPECT_EQ(nestling_engine_unload_tower(engine.get(), tower), NESTLING_OK);
  }
  const std::vector<float> tokens(engine.Info().hidden_size, 0.5f);
  for (const Part& part :
       {Image(), Prepared(), Sound(), Part::ImageTokens(tokens), Part::AudioTokens(tokens)}) {
    SCOPED_TRACE(part.get().type);
    auto size = MakeStruct<nestling_media_size>();
    EXPECT_REFUSED(nestling_engine_measure_media(engine.get(), &part.get(), &size),
                   NESTLING_UNSUPPORTED, "tower");
    nestling::Session session(engine);
    EXPECT_REFUSED(
        nestling_session_add_message_parts(session.get(), NESTLING_ROLE_USER, &part.get(), 1),
        NESTLING_UNSUPPORTED, "tower");
    session.AddMessage(Role::kUser, "hello");
  }
  nestling_audio_stream* stream = nullptr;
  EXPECT_REFUSED(nestling_audio_stream_create(engine.get(), &stream), NESTLING_UNSUPPORTED,
                 "tower");
  EXPECT_EQ(stream, nullptr);
}

// ---- Streams ----

TEST_F(MediaTest, AStreamOutlivesItsEngineAndServesManyMessages) {
  auto engine = std::make_unique<nestling::Engine>(kModels + "/media.nest", Options());
  nestling::AudioStream stream(*engine);
  stream.Push(golden_.waveform);
  EXPECT_EQ(stream.Info().num_samples, golden_.waveform.size());
  EXPECT_EQ(stream.Info().num_clips, 0u);
  std::optional<nestling::Session> session(std::in_place, *engine);
  engine.reset();
  stream.Finish();
  EXPECT_EQ(stream.Info().num_clips, 1u);
  EXPECT_EQ(stream.Info().num_soft_tokens, 13u);
  const Part parts[] = {Part::Audio(stream.get()), Part::Text("hello"), Part::Audio(stream.get())};
  session->AddMessage(Role::kUser, parts);
  nestling::GenerateOptions options;
  options.max_tokens = 2;
  EXPECT_GE(session->Generate(options).num_tokens, 1u);
  session.reset();
}

TEST_F(MediaTest, AnUnloadedTowerStaysWithItsStream) {
  nestling::AudioStream stream(engine_);
  engine_.UnloadTower(NESTLING_TOWER_AUDIO);
  stream.Push(golden_.waveform);
  stream.Finish();
  EXPECT_LT(LargestDifference(engine_.Encode(Part::Audio(stream.get())), golden_.audio_tokens),
            kSoftTolerance);
  EXPECT_EQ(engine_.TowerInfo(NESTLING_TOWER_AUDIO).state, NESTLING_TOWER_UNLOADED);
}

TEST_F(RefusedMediaTest, StreamsInTheWrongStateOrOfAnotherModel) {
  nestling::AudioStream stream(engine_);
  ExpectRefused(Part::Audio(stream.get()).get(), NESTLING_FAILED_PRECONDITION, "stream");
  const float bad[] = {0.5f, std::numeric_limits<float>::quiet_NaN()};
  EXPECT_REFUSED(nestling_audio_stream_push(stream.get(), bad, 2), NESTLING_INVALID_ARGUMENT,
                 "sample 1");
  EXPECT_REFUSED(nestling_audio_stream_push(stream.get(), nullptr, 2), NESTLING_INVALID_ARGUMENT,
                 "samples");
  EXPECT_REFUSED(nestling_audio_stream_push(stream.get(), bad, std::numeric_limits<size_t>::max()),
                 NESTLING_INVALID_ARGUMENT, "num_samples");
  EXPECT_REFUSED(nestling_audio_stream_finish(stream.get()), NESTLING_INVALID_ARGUMENT, "sound");
  stream.Push(golden_.waveform);
  stream.Finish();
  EXPECT_REFUSED(nestling_audio_stream_finish(stream.get()), NESTLING_FAILED_PRECONDITION,
                 "stream");
  EXPECT_REFUSED(nestling_audio_stream_push(stream.get(), bad, 1), NESTLING_FAILED_PRECONDITION,
                 "stream");
  nestling_audio_stream_destroy(nullptr);

  // Its rows may be longer than another model's buffers.
  nestling::Engine other(kModels + "/media_other.nest", Options());
  nestling::AudioStream foreign(other);
  foreign.Push(golden_.waveform);
  foreign.Finish();
  ExpectRefused(Part::Audio(foreign.get()).get(), NESTLING_INVALID_ARGUMENT, "model");
}

}  // namespace
