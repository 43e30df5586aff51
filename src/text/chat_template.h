// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "text/tokenizer.h"

namespace nestling {

enum class Role { kSystem, kUser, kAssistant };

// "system", "user", "assistant", and the model's own name for the last, "model".
Result<Role> ParseRole(std::string_view name);

struct ContentPart {
  enum class Type { kText, kImage, kAudio };
  Type type = Type::kText;
  std::string text;  // of kText
};

struct Message {
  Role role = Role::kUser;
  std::vector<ContentPart> parts;
};

// Soft tokens that stand for one image and one sound; 0: the model has no such tower.
struct PlaceholderCounts {
  uint32_t image_tokens = 0;
  uint32_t audio_tokens = 0;
};

// What is to be encoded, and how many images and sounds it asks for, to be taken in order.
struct Prompt {
  std::vector<PromptSegment> segments;
  uint32_t num_images = 0;
  uint32_t num_audios = 0;

  // As one string, special strings written out.
  std::string Text() const;
};

// A whole conversation by Gemma 3n's chat template, <bos> included, up to the point where the
// model's answer begins. The rules: an optional system message comes first and its text goes in
// front of the first user turn; then user and assistant alternate. Texts are stripped of white
// space at both ends, a system text is not. kInvalidArgument when the order is broken or a text is
// not UTF-8 (names the message); kUnsupported for an image or a sound without a tower.
Result<Prompt> RenderChat(std::span<const Message> messages, const PlaceholderCounts& counts);

// What has to follow in the kv cache for the next user turn, up to where the next answer begins.
// The conversation so far ended with the model's answer. `has_end_of_turn`: its <end_of_turn> is
// in the kv cache already; an answer that was cut short still needs one. Errors as above.
Result<Prompt> RenderNextTurn(const Message& user, bool has_end_of_turn,
                              const PlaceholderCounts& counts);

// A prompt that is used as it is, special strings and all, but for the placeholders
// "<image_soft_token>" and "<audio_soft_token>", each of which becomes one image or sound.
Result<Prompt> RenderRaw(std::string_view text, const PlaceholderCounts& counts);

// Ids of a prompt. kUnsupported when the tokenizer lacks one of the special tokens that the
// template needs; otherwise as Tokenizer::EncodeSegments. `add_bos` is for RenderRaw.
Result<std::vector<int32_t>> EncodePrompt(const Tokenizer& tokenizer, const Prompt& prompt,
                                          bool add_bos);

}  // namespace nestling
