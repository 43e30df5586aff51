// SPDX-License-Identifier: Apache-2.0
#include "runtime/conversation.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "tests/runtime/replies.h"
#include "tests/support/chat_model.h"

namespace nestling {
namespace {

using ::testing::ElementsAreArray;
using testing::GreedyIds;
using ::testing::HasSubstr;
using Ids = std::vector<int32_t>;

class ConversationTest : public ::testing::Test {
 protected:
  void SetUp() override { Open(/*context_tokens=*/0); }

  void Open(uint32_t context_tokens) {
    testing::TinyModelOptions model = testing::ChatModelOptions();
    const testing::TemporaryPath path;
    ASSERT_TRUE(testing::WriteTinyModel(path.path(), model).ok());
    EngineOptions engine_options;
    engine_options.num_threads = 1;
    engine_options.chunk_tokens = 4;
    auto engine = Engine::Create(path.path(), engine_options);
    ASSERT_TRUE(engine.ok()) << engine.status().message();
    conversation_.reset();
    session_.reset();
    engine_ = std::move(engine).value();
    SessionOptions options;
    options.context_tokens = context_tokens;
    auto session = Session::Create(*engine_, options);
    ASSERT_TRUE(session.ok()) << session.status().message();
    session_ = std::move(session).value();
    conversation_ = std::make_unique<Conversation>(*session_);
  }

  void Add(Role role, std::string_view text) {
    const Status status = conversation_->AddMessage(role, text);
    ASSERT_TRUE(status.ok()) << status.message();
  }

  // Ids of the reply, greedy unless `sampling` says otherwise.
  Ids Reply(uint32_t max_tokens, const SamplingOptions* sampling = nullptr,
            const Ids& stop_tokens = {}) {
    GenerateOptions options;
    options.max_tokens = max_tokens;
    options.sampling.temperature = 0;
    if (sampling != nullptr) options.sampling = *sampling;
    options.stop_tokens = stop_tokens;
    options.ignore_stop_tokens = stop_tokens.empty();
    Ids ids;
    const auto result = conversation_->Reply(options, [&](const GeneratedToken& token) {
      if (token.id >= 0) ids.push_back(token.id);
      return true;
    });
    EXPECT_TRUE(result.ok()) << result.status().message();
    if (result.ok()) last_ = *result;
    return ids;
  }

  Ids Encode(std::string_view text) const {
    auto ids = engine_->tokenizer()->Encode(text, {.add_bos = false, .parse_special = true});
    EXPECT_TRUE(ids.ok());
    return *ids;
  }

  Ids History() const { return {session_->tokens().begin(), session_->tokens().end()}; }

  static Ids Join(std::initializer_list<Ids> parts) {
    Ids all;
    for (const Ids& part : parts) all.insert(all.end(), part.begin(), part.end());
    return all;
  }

  std::unique_ptr<Engine> engine_;
  std::unique_ptr<Session> session_;
  std::unique_ptr<Conversation> conversation_;
  GenerateResult last_;
};

TEST_F(ConversationTest, HistoryIsTheTemplateOverAllMessagesAndReplies) {
  Add(Role::kSystem, " world");
  Add(Role::kUser, "  hello ");
  EXPECT_EQ(session_->num_tokens(), 0u);  // nothing runs before the reply
  const Ids first = Reply(5);
  Add(Role::kUser, "world");
  const Ids second = Reply(3);
  EXPECT_THAT(
      History(),
      ElementsAreArray(Join(
          {Encode("<bos><start_of_turn>user\n world\n\nhello<end_of_turn>\n<start_of_turn>model\n"),
           first,
           Encode("<end_of_turn>\n<start_of_turn>user\nworld<end_of_turn>\n<start_of_turn>model\n"),
           second})));
}

TEST_F(ConversationTest, ARepliesSecondTurnEqualsAFreshSessionWithTheSameHistory) {
  Add(Role::kUser, "hello");
  Reply(6);
  Add(Role::kUser, "world");
  const Ids reply = Reply(8);
  Ids history = History();
  history.resize(history.size() - reply.size());
  auto fresh = Session::Create(*engine_, {});
  ASSERT_TRUE(fresh.ok());
  ASSERT_TRUE((*fresh)->Prefill(history).ok());
  EXPECT_EQ(GreedyIds(**fresh, 8), reply);
}

TEST_F(ConversationTest, AnEndOfTurnThatTheModelEmittedIsNotWrittenTwice) {
  const int32_t end_of_turn = engine_->tokenizer()->FindSpecial("<end_of_turn>");
  Add(Role::kUser, "hello");
  SamplingOptions uniform;  // all of the few hundred tokens are about equally likely
  uniform.temperature = 1000.0f;
  uniform.seed = 3;
  const Ids reply = Reply(0, &uniform, {end_of_turn});
  ASSERT_EQ(last_.reason, StopReason::kStopToken);
  ASSERT_EQ(session_->tokens().back(), end_of_turn);
  const Ids before = History();
  // The reply is complete, so that there is nothing to continue.
  EXPECT_EQ(conversation_->Reply({}, {}).status().code(), StatusCode::kFailedPrecondition);
  Add(Role::kUser, "world");
  const Ids second = Reply(2);
  EXPECT_THAT(
      History(),
      ElementsAreArray(
          Join({before, Encode("\n<start_of_turn>user\nworld<end_of_turn>\n<start_of_turn>model\n"),
                second})));
}

TEST_F(ConversationTest, AnotherStopTokenIsNoPartOfTheHistory) {
  Add(Role::kUser, "hello");
  SamplingOptions uniform;
  uniform.temperature = 1000.0f;
  uniform.seed = 3;
  const int32_t eos = engine_->tokenizer()->special_tokens().eos;
  const Ids reply = Reply(0, &uniform, {eos});
  ASSERT_EQ(last_.reason, StopReason::kStopToken);
  EXPECT_EQ(last_.num_tokens, reply.size() + 1);
  EXPECT_THAT(History(),
              ElementsAreArray(Join(
                  {Encode("<bos><start_of_turn>user\nhello<end_of_turn>\n<start_of_turn>model\n"),
                   reply})));
}

TEST_F(ConversationTest, AReplyThatWasCutShortMayBeContinued) {
  Add(Role::kUser, "hello");
  Ids pieces = Reply(4);
  const Ids more = Reply(4);
  pieces.insert(pieces.end(), more.begin(), more.end());
  conversation_->Reset();
  session_->Reset();
  Add(Role::kUser, "hello");
  EXPECT_THAT(Reply(8), ElementsAreArray(pieces));
}

TEST_F(ConversationTest, AnAssistantsMessageRestoresHistoryOrIsContinued) {
  Add(Role::kUser, "hello");
  Add(Role::kAssistant, " world ");
  const Ids continued = Reply(2);
  Add(Role::kUser, "hello");
  Add(Role::kAssistant, "world");
  Add(Role::kUser, "hello");
  const Ids reply = Reply(1);
  const Ids next =
      Encode("<end_of_turn>\n<start_of_turn>user\nhello<end_of_turn>\n<start_of_turn>model\n");
  EXPECT_THAT(History(),
              ElementsAreArray(Join(
                  {Encode("<bos><start_of_turn>user\nhello<end_of_turn>\n<start_of_turn>model\n"),
                   Encode("world"), continued, next, Encode("world"), next, reply})));
}

TEST_F(ConversationTest, ACancelledPrefillLeavesAnEmptyReplyAndAUsableConversation) {
  Add(Role::kUser, "hello world hello world hello world hello world");
  // Cancel has an effect only while the call runs: repeat it from another thread until it took.
  std::atomic<bool> done{false};
  std::thread canceller([&] {
    while (!done.load()) session_->Cancel();
  });
  GenerateOptions options;
  options.sampling.temperature = 0;
  options.ignore_stop_tokens = true;
  const auto result = conversation_->Reply(options, {});
  done.store(true);
  canceller.join();
  ASSERT_TRUE(result.ok()) << result.status().message();
  EXPECT_EQ(result->reason, StopReason::kCancelled);
  const size_t generated = result->num_tokens;
  Add(Role::kUser, "hello");
  const Ids reply = Reply(2);
  Ids history = History();
  const Ids begin = Encode(
      "<bos><start_of_turn>user\nhello world hello world hello world hello world<end_of_turn>\n"
      "<start_of_turn>model\n");
  ASSERT_GE(history.size(), begin.size() + generated);
  history.erase(history.begin() + static_cast<ptrdiff_t>(begin.size()),
                history.begin() + static_cast<ptrdiff_t>(begin.size() + generated));
  EXPECT_THAT(history, ElementsAreArray(
                           Join({begin,
                                 Encode("<end_of_turn>\n<start_of_turn>user\nhello<end_of_turn>\n"
                                        "<start_of_turn>model\n"),
                                 reply})));
}

TEST_F(ConversationTest, AMessageThatDoesNotFitNamesBothNumbersAndChangesNothing) {
  Open(/*context_tokens=*/40);
  Add(Role::kUser, "hello");
  Reply(2);
  const uint32_t before = session_->num_tokens();
  const Status status = conversation_->AddMessage(
      Role::kUser,
      "hello world hello world hello world hello world hello world hello world "
      "hello world hello world hello world hello world hello world hello world");
  EXPECT_EQ(status.code(), StatusCode::kContextFull);
  EXPECT_THAT(status.message(), HasSubstr(std::to_string(40 - before)));
  EXPECT_THAT(status.message(), HasSubstr("40"));
  EXPECT_EQ(session_->num_tokens(), before);
  EXPECT_EQ(conversation_->num_pending_tokens(), 0u);
  Add(Role::kUser, "hello");
  EXPECT_EQ(Reply(1).size(), 1u);
}

TEST_F(ConversationTest, MarkupInAMessageIsText) {
  Add(Role::kUser, "<end_of_turn>");
  Reply(1);
  const int32_t end_of_turn = engine_->tokenizer()->FindSpecial("<end_of_turn>");
  const Ids history = History();
  EXPECT_EQ(std::count(history.begin(), history.end(), end_of_turn), 1);  // the template's own
}

TEST_F(ConversationTest, RolesTakeTurns) {
  const auto code = [&](Role role) { return conversation_->AddMessage(role, "hello").code(); };
  EXPECT_EQ(conversation_->Reply({}, {}).status().code(), StatusCode::kFailedPrecondition);
  EXPECT_EQ(code(Role::kAssistant), StatusCode::kFailedPrecondition);
  EXPECT_EQ(code(Role::kSystem), StatusCode::kOk);
  EXPECT_EQ(code(Role::kSystem), StatusCode::kFailedPrecondition);
  EXPECT_EQ(conversation_->Reply({}, {}).status().code(), StatusCode::kFailedPrecondition);
  EXPECT_EQ(code(Role::kUser), StatusCode::kOk);
  EXPECT_EQ(code(Role::kUser), StatusCode::kFailedPrecondition);
  EXPECT_EQ(code(Role::kAssistant), StatusCode::kOk);
  EXPECT_EQ(code(Role::kAssistant), StatusCode::kFailedPrecondition);
}

TEST_F(ConversationTest, RawTokensAndMessagesDoNotMix) {
  const Ids tokens = Encode("hello");
  ASSERT_TRUE(session_->Prefill(tokens).ok());
  EXPECT_EQ(conversation_->AddMessage(Role::kUser, "hello").code(),
            StatusCode::kFailedPrecondition);
}

}  // namespace
}  // namespace nestling
