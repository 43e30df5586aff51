// SPDX-License-Identifier: Apache-2.0
#include "runtime/conversation.h"

#include <span>
#include <utility>

#include "text/utf8.h"

namespace nestling {
namespace {

Message ToMessage(Role role, std::span<const MessagePart> parts) {
  Message message{role, {}};
  for (const MessagePart& part : parts) {
    if (part.media == nullptr) {
      message.parts.push_back({ContentPart::Type::kText, std::string(part.text)});
      continue;
    }
    const bool image = part.media->kind == TowerKind::kVision;
    for (size_t i = 0; i < part.media->pieces.size(); ++i) {
      message.parts.push_back({image ? ContentPart::Type::kImage : ContentPart::Type::kAudio, {}});
    }
  }
  return message;
}

Message TextMessage(Role role, std::string_view text) {
  const MessagePart part{text};
  return ToMessage(role, {&part, 1});
}

}  // namespace

void Conversation::Reset() {
  state_ = State::kEmpty;
  system_text_.clear();
  pending_.clear();
  pending_rows_ = SoftRows();
}

Status Conversation::CheckTurn(Role role) const {
  switch (role) {
    case Role::kSystem:
      if (state_ == State::kEmpty) return OkStatus();
      return FailedPrecondition("role system: only the first message may have it");
    case Role::kUser:
      if (state_ != State::kModelTurn) return OkStatus();
      return FailedPrecondition(
          "role user: the last message has it too; generate the reply, or add ", "the assistant's");
    case Role::kAssistant:
      if (state_ == State::kModelTurn) return OkStatus();
      return FailedPrecondition("role assistant: no user message to answer");
  }
  return InvalidArgument("role: unknown");
}

bool Conversation::EndsWithEndOfTurn() const {
  if (!pending_.empty() || session_.tokens().empty()) return false;
  const int32_t end_of_turn = session_.engine().tokenizer()->FindSpecial("<end_of_turn>");
  return end_of_turn >= 0 && session_.tokens().back() == end_of_turn;
}

Result<std::vector<int32_t>> Conversation::Render(Role role,
                                                  std::span<const MessagePart> parts) const {
  const Tokenizer& tokenizer = *session_.engine().tokenizer();
  const PlaceholderCounts counts = session_.engine().placeholder_counts();
  if (role == Role::kAssistant) {
    // The turn is open already, so that the text is all there is to add.
    std::string text;
    for (const MessagePart& part : parts) text += StripWhitespace(part.text);
    return tokenizer.Encode(text, EncodeOptions{});
  }
  if (state_ == State::kReply) {
    ASSIGN_OR_RETURN(const Prompt prompt,
                     RenderNextTurn(ToMessage(role, parts), EndsWithEndOfTurn(), counts));
    return EncodePrompt(tokenizer, prompt, /*add_bos=*/false);
  }
  std::vector<Message> messages;
  if (state_ == State::kSystem) messages.push_back(TextMessage(Role::kSystem, system_text_));
  messages.push_back(ToMessage(role, parts));
  ASSIGN_OR_RETURN(const Prompt prompt, RenderChat(messages, counts));
  return EncodePrompt(tokenizer, prompt, /*add_bos=*/false);
}

Status Conversation::CheckRoom(size_t num_tokens) const {
  const size_t taken = session_.num_tokens() + pending_.size();
  const size_t room = session_.context_tokens() - taken;
  // One more for the first token of the reply.
  if (num_tokens < room) return OkStatus();
  return ContextFull("message of ", num_tokens, " tokens and a reply: the context has room for ",
                     room, " of ", session_.context_tokens());
}

Status Conversation::AddMessage(Role role, std::string_view text) {
  const MessagePart part{text};
  return AddMessage(role, {&part, 1});
}

Status Conversation::CheckMessage(Role role) const {
  if (session_.engine().tokenizer() == nullptr) {
    return FailedPrecondition("the container has no tokenizer: messages need one");
  }
  RETURN_IF_ERROR(CheckTurn(role));
  if (state_ == State::kEmpty && session_.num_tokens() != 0) {
    return FailedPrecondition("the session holds ", session_.num_tokens(),
                              " tokens that are no messages: reset it first");
  }
  return OkStatus();
}

Status Conversation::AddMessage(Role role, std::span<const MessagePart> parts) {
  RETURN_IF_ERROR(CheckMessage(role));
  std::vector<Media> media;
  for (const MessagePart& part : parts) {
    if (part.media != nullptr) {
      if (role != Role::kUser) {
        return InvalidArgument("an image or a sound in a message that is not the user's");
      }
      media.push_back(*part.media);
    } else if (const size_t at = FindInvalidUtf8(part.text); at != std::string_view::npos) {
      return InvalidArgument("text: not UTF-8 at byte ", at);
    }
  }
  if (role == Role::kSystem) {
    system_text_.clear();
    for (const MessagePart& part : parts) system_text_ += part.text;
    state_ = State::kSystem;
    return OkStatus();
  }
  ASSIGN_OR_RETURN(const std::vector<int32_t> tokens, Render(role, parts));
  RETURN_IF_ERROR(CheckRoom(tokens.size()));
  const Engine& engine = session_.engine();
  ASSIGN_OR_RETURN(const SoftRows rows, SoftRows::Assign(tokens, engine.header().special_tokens,
                                                         media, engine.container().content_hash(),
                                                         engine.text_config().hidden_size));
  pending_rows_.Append(rows, pending_.size());
  pending_.insert(pending_.end(), tokens.begin(), tokens.end());
  state_ = role == Role::kUser ? State::kModelTurn : State::kReply;
  return OkStatus();
}

Status Conversation::RunPending() {
  const uint32_t before = session_.num_tokens();
  const Status status = session_.Prefill(pending_, pending_rows_);
  const uint32_t taken = session_.num_tokens() - before;
  pending_.erase(pending_.begin(), pending_.begin() + taken);
  pending_rows_.DropFront(taken);
  return status;
}

void Conversation::DropForeignStopToken() {
  if (EndsWithEndOfTurn() || !session_.engine().tokenizer()->IsSpecial(session_.tokens().back())) {
    return;
  }
  // The last generated token is not in the kv cache yet, so this cannot fail; if it ever did, the
  // history would have a token too many, and the reply is good all the same.
  static_cast<void>(session_.Truncate(session_.num_tokens() - 1));
}

Result<GenerateResult> Conversation::Reply(const GenerateOptions& options,
                                           Session::TokenCallback callback) {
  if (state_ == State::kEmpty || state_ == State::kSystem) {
    return FailedPrecondition("no user message to reply to");
  }
  if (state_ == State::kReply && EndsWithEndOfTurn()) {
    return FailedPrecondition("the reply is complete: add a message");
  }
  if (const Status status = RunPending(); !status.ok()) {
    if (status.code() != StatusCode::kCancelled) return status;
    state_ = State::kReply;
    GenerateResult result;
    result.reason = StopReason::kCancelled;
    return result;
  }
  const uint32_t before = session_.num_tokens();
  Result<GenerateResult> result = session_.Generate(options, callback);
  if (session_.num_tokens() != before || result.ok()) state_ = State::kReply;
  if (result.ok() && result->reason == StopReason::kStopToken) DropForeignStopToken();
  return result;
}

}  // namespace nestling
