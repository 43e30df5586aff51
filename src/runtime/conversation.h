// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "runtime/session.h"
#include "text/chat_template.h"

namespace nestling {

// A part of a message: text, or an image or a sound.
struct MessagePart {
  std::string_view text;
  const Media* media = nullptr;  // null: text
};

// Messages in the model's chat template on top of a session. History lives in the kv cache: each
// message is tokenised once, and run once by the Reply after it. Same threads as the session.
class Conversation {
 public:
  // `session` is borrowed and must be empty at the first message.
  explicit Conversation(Session& session) : session_(session) {}

  // Adds the text of `role`, checking that it fits. kInvalidArgument (not UTF-8), kContextFull and
  // kFailedPrecondition (not this role's turn; tokens in the session that are no messages; no
  // tokenizer) leave everything as it was. An assistant's message is a reply from elsewhere, which
  // Reply() may continue. Runs nothing.
  Status AddMessage(Role role, std::string_view text);
  // The same for text, images and sounds in any order; only the user's messages have the latter. A
  // sound of several clips takes a placeholder for each. kInvalidArgument also for media of another
  // model.
  Status AddMessage(Role role, std::span<const MessagePart> parts);

  // What AddMessage checks before it looks at the content: for callers whose content is expensive.
  Status CheckMessage(Role role) const;

  // Runs what waits and generates the model's reply, or more of it if it was cut short. A reply
  // that is cancelled before its first token is an empty one: kCancelled with no tokens. After an
  // error the call may be repeated. kFailedPrecondition when there is nothing to reply to, or the
  // reply is complete.
  Result<GenerateResult> Reply(const GenerateOptions& options, Session::TokenCallback callback);

  // A message was added since the beginning or Reset().
  bool started() const { return state_ != State::kEmpty; }
  // Of messages that wait for Reply().
  size_t num_pending_tokens() const { return pending_.size(); }
  // Forgets the messages; the caller resets the session.
  void Reset();

 private:
  enum class State {
    kEmpty,
    kSystem,     // only a system text, which is rendered with the user's first message
    kModelTurn,  // the model's turn was opened and holds nothing yet
    kReply,      // it holds a reply, complete or not
  };

  // Ids that a message adds, its role's turn being checked.
  Result<std::vector<int32_t>> Render(Role role, std::span<const MessagePart> parts) const;
  Status CheckTurn(Role role) const;
  Status CheckRoom(size_t num_tokens) const;
  bool EndsWithEndOfTurn() const;
  // Prefills pending_; what the session took is no longer pending, whatever happens.
  Status RunPending();
  // A stop token such as <eos> ends the text, but is no part of the template.
  void DropForeignStopToken();

  Session& session_;
  State state_ = State::kEmpty;
  std::string system_text_;
  std::vector<int32_t> pending_;
  SoftRows pending_rows_;  // of placeholders among them
};

}  // namespace nestling
