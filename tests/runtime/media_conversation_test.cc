// SPDX-License-Identifier: Apache-2.0
// Messages of texts, images and sounds.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/conversation.h"
#include "tests/runtime/replies.h"
#include "tests/support/multimodal_model.h"
#include "tests/support/tiny_model.h"

namespace nestling {
namespace {

using ::testing::ElementsAreArray;
using testing::GetMultimodalExpected;
using testing::GreedyIds;
using testing::GreedyOptions;
using ::testing::HasSubstr;
using testing::MultimodalExpected;
using Ids = std::vector<int32_t>;

class MediaConversationTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_FALSE(expected_.logits.empty()) << "no golden data";
    const testing::TemporaryPath path;
    const Status written = testing::WriteMultimodalModel(path.path(), {.tokenizer = true});
    ASSERT_TRUE(written.ok()) << written.message();
    EngineOptions options;
    options.num_threads = 2;
    options.chunk_tokens = 16;
    auto engine = Engine::Create(path.path(), options);
    ASSERT_TRUE(engine.ok()) << engine.status().message();
    engine_ = std::move(engine).value();
    const auto image = engine_->towers().EncodePixels(expected_.pixels);
    const auto sound = engine_->towers().EncodeSound(expected_.waveform);
    ASSERT_TRUE(image.ok() && sound.ok());
    image_ = *image;
    sound_ = *sound;
    Start();
  }

  void Start(uint32_t context_tokens = 0) {
    conversation_.reset();
    SessionOptions options;
    options.context_tokens = context_tokens;
    auto session = Session::Create(*engine_, options);
    ASSERT_TRUE(session.ok()) << session.status().message();
    session_ = std::move(session).value();
    conversation_ = std::make_unique<Conversation>(*session_);
  }

  Ids Reply(uint32_t max_tokens) {
    Ids ids;
    const auto result =
        conversation_->Reply(GreedyOptions(max_tokens), [&](const GeneratedToken& token) {
          if (token.id >= 0) ids.push_back(token.id);
          return true;
        });
    EXPECT_TRUE(result.ok()) << result.status().message();
    return ids;
  }

  Ids Encode(std::string_view text) const {
    auto ids = engine_->tokenizer()->Encode(text, {.add_bos = false, .parse_special = true});
    EXPECT_TRUE(ids.ok());
    return *ids;
  }
  Ids History() const { return {session_->tokens().begin(), session_->tokens().end()}; }

  // What stands for the golden image and for a clip in a prompt, as the template writes it.
  static std::string Image() { return Expanded("image", 16); }
  static std::string Sound() { return Expanded("audio", 20); }
  static std::string Expanded(const std::string& what, size_t count) {
    std::string text = "\n\n<start_of_" + what + ">";
    for (size_t i = 0; i < count; ++i) text += "<" + what + "_soft_token>";
    return text + "<end_of_" + what + ">\n\n";
  }

  const MultimodalExpected& expected_ = GetMultimodalExpected();
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<Session> session_;
  std::unique_ptr<Conversation> conversation_;
  Media image_, sound_;
};

TEST_F(MediaConversationTest, PartsComeInTheOrderInWhichTheyAreGiven) {
  const MessagePart parts[] = {{" hello "}, {{}, &sound_}, {{}, &image_}, {"world"}, {{}, &image_}};
  ASSERT_TRUE(conversation_->AddMessage(Role::kUser, parts).ok());
  Reply(2);
  Ids history = History();
  history.resize(history.size() - 2);
  EXPECT_THAT(history, ElementsAreArray(Encode("<bos><start_of_turn>user\nhello" + Sound() +
                                               Image() + "world" + Image() +
                                               "<end_of_turn>\n<start_of_turn>model\n")));
}

TEST_F(MediaConversationTest, AFollowUpQuestionEqualsAFreshSessionWithTheSameHistory) {
  const MessagePart first[] = {{{}, &image_}, {"hello"}};
  ASSERT_TRUE(conversation_->AddMessage(Role::kUser, first).ok());
  Reply(5);
  const MessagePart second[] = {{"world"}, {{}, &sound_}};
  ASSERT_TRUE(conversation_->AddMessage(Role::kUser, second).ok());
  const Ids reply = Reply(6);
  Ids history = History();
  history.resize(history.size() - reply.size());
  const Media media[] = {image_, sound_};
  const auto rows =
      SoftRows::Assign(history, engine_->header().special_tokens, media,
                       engine_->container().content_hash(), engine_->text_config().hidden_size);
  ASSERT_TRUE(rows.ok()) << rows.status().message();
  auto fresh = Session::Create(*engine_, {});
  ASSERT_TRUE(fresh.ok());
  ASSERT_TRUE((*fresh)->Prefill(history, *rows).ok());
  EXPECT_EQ(GreedyIds(**fresh, 6), reply);
}

TEST_F(MediaConversationTest, AnotherImageGivesAnotherReply) {
  const auto other = engine_->towers().EncodePixels(std::vector<float>(expected_.pixels.size()));
  ASSERT_TRUE(other.ok());
  std::vector<std::vector<float>> logits;
  for (const Media* image : std::initializer_list<const Media*>{&image_, &*other}) {
    Start();
    const MessagePart parts[] = {{{}, image}, {"hello"}};
    ASSERT_TRUE(conversation_->AddMessage(Role::kUser, parts).ok());
    Reply(1);
    const auto row = session_->Logits();
    ASSERT_TRUE(row.ok());
    logits.emplace_back(row->begin(), row->end());
  }
  float difference = 0;
  for (size_t i = 0; i < logits[0].size(); ++i) {
    difference = std::max(difference, std::abs(logits[0][i] - logits[1][i]));
  }
  EXPECT_GT(difference, 0.1f);
}

TEST_F(MediaConversationTest, ALongSoundTakesAPlaceholderGroupForEachClip) {
  const uint32_t clip = engine_->towers().shape().max_samples;
  std::vector<float> pcm(2 * clip + 20000);
  for (size_t i = 0; i < pcm.size(); ++i) pcm[i] = 0.2f * std::sin(static_cast<float>(i) * 0.1f);
  const auto sound = engine_->towers().EncodeSound(pcm);
  ASSERT_TRUE(sound.ok());
  ASSERT_EQ(sound->pieces.size(), 3u);
  const MessagePart parts[] = {{{}, &*sound}, {"hello"}};
  ASSERT_TRUE(conversation_->AddMessage(Role::kUser, parts).ok());
  Reply(1);
  Ids history = History();
  history.resize(history.size() - 1);
  EXPECT_THAT(history,
              ElementsAreArray(Encode("<bos><start_of_turn>user\n" + Sound() + Sound() + Sound() +
                                      "hello<end_of_turn>\n<start_of_turn>model\n")));
}

TEST_F(MediaConversationTest, WhatAUserTypesIsNeverAPlaceholder) {
  ASSERT_TRUE(
      conversation_
          ->AddMessage(Role::kUser, "hello <image_soft_token><audio_soft_token> <start_of_image>")
          .ok());
  Reply(1);
  const SpecialTokens& special = engine_->header().special_tokens;
  for (const int32_t id : {special.image_soft, special.audio_soft, special.start_of_image}) {
    EXPECT_THAT(History(), ::testing::Not(::testing::Contains(id)));
  }
}

TEST_F(MediaConversationTest, OnlyUsersHaveImagesAndSounds) {
  const MessagePart parts[] = {{"hello"}, {{}, &image_}};
  EXPECT_EQ(conversation_->AddMessage(Role::kSystem, parts).code(), StatusCode::kInvalidArgument);
  EXPECT_FALSE(conversation_->started());
  ASSERT_TRUE(conversation_->AddMessage(Role::kUser, "hello").ok());
  const size_t pending = conversation_->num_pending_tokens();
  EXPECT_EQ(conversation_->AddMessage(Role::kAssistant, parts).code(),
            StatusCode::kInvalidArgument);
  EXPECT_EQ(conversation_->num_pending_tokens(), pending);
}

TEST_F(MediaConversationTest, AMessageThatIsRefusedLeavesEverythingAsItWas) {
  Start(/*context_tokens=*/60);
  const MessagePart large[] = {{{}, &image_}, {{}, &sound_}, {{}, &image_}};
  const Status full = conversation_->AddMessage(Role::kUser, large);
  EXPECT_EQ(full.code(), StatusCode::kContextFull);
  const MessagePart damaged[] = {{{}, &image_}, {"\xff"}};
  EXPECT_EQ(conversation_->AddMessage(Role::kUser, damaged).code(), StatusCode::kInvalidArgument);
  Media foreign = image_;
  ++foreign.model;
  const MessagePart other[] = {{{}, &foreign}};
  EXPECT_EQ(conversation_->AddMessage(Role::kUser, other).code(), StatusCode::kInvalidArgument);
  EXPECT_FALSE(conversation_->started());
  EXPECT_EQ(conversation_->num_pending_tokens(), 0u);
  const MessagePart fits[] = {{{}, &image_}, {"hello"}};
  ASSERT_TRUE(conversation_->AddMessage(Role::kUser, fits).ok());
  EXPECT_EQ(Reply(2).size(), 2u);
}

TEST_F(MediaConversationTest, ACancelledPrefillGoesOnInTheMiddleOfAnImage) {
  const MessagePart parts[] = {{{}, &image_}, {"hello"}, {{}, &sound_}};
  ASSERT_TRUE(conversation_->AddMessage(Role::kUser, parts).ok());
  const Ids whole = Reply(4);
  const Ids history = History();
  // The same tokens, cut where a cancellation may cut them: rows move with what is left.
  for (const size_t cut : {size_t{1}, size_t{9}, size_t{20}, size_t{40}}) {
    SCOPED_TRACE(cut);
    const Media media[] = {image_, sound_};
    Ids prompt(history.begin(), history.end() - 4);
    const auto rows =
        SoftRows::Assign(prompt, engine_->header().special_tokens, media,
                         engine_->container().content_hash(), engine_->text_config().hidden_size);
    ASSERT_TRUE(rows.ok());
    SoftRows front = *rows, back = *rows;
    front.Truncate(cut);
    back.DropFront(cut);
    auto session = Session::Create(*engine_, {});
    ASSERT_TRUE(session.ok());
    const std::span<const int32_t> all(prompt);
    ASSERT_TRUE((*session)->Prefill(all.first(cut), front).ok());
    ASSERT_TRUE((*session)->Prefill(all.subspan(cut), back).ok());
    GenerateOptions options;
    options.max_tokens = 4;
    options.sampling.temperature = 0;
    options.ignore_stop_tokens = true;
    Ids ids;
    ASSERT_TRUE((*session)
                    ->Generate(options,
                               [&](const GeneratedToken& token) {
                                 if (token.id >= 0) ids.push_back(token.id);
                                 return true;
                               })
                    .ok());
    EXPECT_EQ(ids, whole);
  }
}

}  // namespace
}  // namespace nestling
