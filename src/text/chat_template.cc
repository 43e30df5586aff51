// SPDX-License-Identifier: Apache-2.0
#include "text/chat_template.h"

#include <algorithm>
#include <utility>

#include "text/utf8.h"

namespace nestling {
namespace {

constexpr std::string_view kBos = "<bos>";
constexpr std::string_view kStartOfTurn = "<start_of_turn>";
constexpr std::string_view kEndOfTurn = "<end_of_turn>";

// How one image or sound looks in a prompt.
struct Placeholder {
  const char* what;
  std::string_view start;
  std::string_view soft;
  std::string_view end;
};

constexpr Placeholder kImage = {"image", "<start_of_image>", "<image_soft_token>",
                                "<end_of_image>"};
constexpr Placeholder kAudio = {"audio", "<start_of_audio>", "<audio_soft_token>",
                                "<end_of_audio>"};

// Grows a prompt; neighbours of the same kind share a segment.
class PromptBuilder {
 public:
  explicit PromptBuilder(const PlaceholderCounts& counts) : counts_(counts) {}

  // Our own text: special strings count.
  void Markup(std::string_view text) { Append(text, /*parse_special=*/true); }
  // Somebody else's: they do not.
  void Foreign(std::string_view text) { Append(text, /*parse_special=*/false); }

  Status Image() {
    ++prompt_.num_images;
    return Expand(kImage, counts_.image_tokens);
  }
  Status Audio() {
    ++prompt_.num_audios;
    return Expand(kAudio, counts_.audio_tokens);
  }

  Prompt Take() { return std::move(prompt_); }

 private:
  void Append(std::string_view text, bool parse_special) {
    if (text.empty()) return;
    std::vector<PromptSegment>& segments = prompt_.segments;
    if (segments.empty() || segments.back().parse_special != parse_special) {
      segments.push_back({std::string(), parse_special});
    }
    segments.back().text.append(text);
  }

  Status Expand(const Placeholder& placeholder, uint32_t num_tokens) {
    if (num_tokens == 0) {
      return Unsupported("the prompt has an ", placeholder.what, ", but the model has no ",
                         placeholder.what, " tower");
    }
    // The newlines join those of the text around; the tokenizer sees the whole run at once.
    Markup("\n\n");
    Markup(placeholder.start);
    for (uint32_t i = 0; i < num_tokens; ++i) Markup(placeholder.soft);
    Markup(placeholder.end);
    Markup("\n\n");
    return OkStatus();
  }

  PlaceholderCounts counts_;
  Prompt prompt_;
};

const char* RoleName(Role role) {
  switch (role) {
    case Role::kSystem:
      return "system";
    case Role::kUser:
      return "user";
    case Role::kAssistant:
      break;
  }
  return "assistant";
}

Status CheckUtf8(std::string_view text, size_t message, size_t part) {
  const size_t invalid = FindInvalidUtf8(text);
  if (invalid == std::string_view::npos) return OkStatus();
  return InvalidArgument("message ", message, ", part ", part, ": not UTF-8 at byte ", invalid);
}

Status AppendContent(const Message& message, size_t index, PromptBuilder& prompt) {
  for (size_t i = 0; i < message.parts.size(); ++i) {
    const ContentPart& part = message.parts[i];
    switch (part.type) {
      case ContentPart::Type::kText:
        RETURN_IF_ERROR(CheckUtf8(part.text, index, i));
        prompt.Foreign(StripWhitespace(part.text));
        break;
      case ContentPart::Type::kImage:
        RETURN_IF_ERROR(prompt.Image());
        break;
      case ContentPart::Type::kAudio:
        RETURN_IF_ERROR(prompt.Audio());
        break;
    }
  }
  return OkStatus();
}

// The text of a system message: of its first part, as in the reference template.
Result<std::string_view> SystemText(const Message& message) {
  if (message.parts.empty()) return std::string_view();
  if (message.parts[0].type != ContentPart::Type::kText) {
    return InvalidArgument("message 0: a system message has to be text");
  }
  RETURN_IF_ERROR(CheckUtf8(message.parts[0].text, 0, 0));
  return std::string_view(message.parts[0].text);
}

void StartTurn(std::string_view name, PromptBuilder& prompt) {
  prompt.Markup(kStartOfTurn);
  prompt.Markup(name);
  prompt.Markup("\n");
}

}  // namespace

Result<Role> ParseRole(std::string_view name) {
  if (name == "system") return Role::kSystem;
  if (name == "user") return Role::kUser;
  if (name == "assistant" || name == "model") return Role::kAssistant;
  return InvalidArgument("role \"", name, "\", want system, user or assistant");
}

std::string Prompt::Text() const {
  std::string text;
  for (const PromptSegment& segment : segments) text += segment.text;
  return text;
}

Result<Prompt> RenderChat(std::span<const Message> messages, const PlaceholderCounts& counts) {
  PromptBuilder prompt(counts);
  prompt.Markup(kBos);
  const bool has_system = !messages.empty() && messages[0].role == Role::kSystem;
  std::string_view system_text;
  if (has_system) {
    ASSIGN_OR_RETURN(system_text, SystemText(messages[0]));
  }
  const size_t first = has_system ? 1 : 0;
  if (messages.size() == first) return InvalidArgument("the conversation has no user message");
  for (size_t i = first; i < messages.size(); ++i) {
    const Role wanted = (i - first) % 2 == 0 ? Role::kUser : Role::kAssistant;
    if (messages[i].role != wanted) {
      return InvalidArgument("message ", i, " has the role ", RoleName(messages[i].role), ", want ",
                             RoleName(wanted), ": user and assistant alternate, after at most one",
                             " system message");
    }
    StartTurn(wanted == Role::kUser ? "user" : "model", prompt);
    if (i == first && has_system) {
      prompt.Foreign(system_text);
      prompt.Markup("\n\n");
    }
    RETURN_IF_ERROR(AppendContent(messages[i], i, prompt));
    prompt.Markup(kEndOfTurn);
    prompt.Markup("\n");
  }
  StartTurn("model", prompt);
  return prompt.Take();
}

Result<Prompt> RenderNextTurn(const Message& user, bool has_end_of_turn,
                              const PlaceholderCounts& counts) {
  if (user.role != Role::kUser) {
    return InvalidArgument("the next turn has the role ", RoleName(user.role), ", want user");
  }
  PromptBuilder prompt(counts);
  if (!has_end_of_turn) prompt.Markup(kEndOfTurn);
  prompt.Markup("\n");
  StartTurn("user", prompt);
  RETURN_IF_ERROR(AppendContent(user, 0, prompt));
  prompt.Markup(kEndOfTurn);
  prompt.Markup("\n");
  StartTurn("model", prompt);
  return prompt.Take();
}

Result<Prompt> RenderRaw(std::string_view text, const PlaceholderCounts& counts) {
  PromptBuilder prompt(counts);
  size_t copied = 0;
  size_t image = text.find(kImage.soft);
  size_t audio = text.find(kAudio.soft);
  while (image != audio) {  // else both are npos
    const size_t at = std::min(image, audio);
    prompt.Markup(text.substr(copied, at - copied));
    if (at == image) {
      RETURN_IF_ERROR(prompt.Image());
      copied = at + kImage.soft.size();
      image = text.find(kImage.soft, copied);
    } else {
      RETURN_IF_ERROR(prompt.Audio());
      copied = at + kAudio.soft.size();
      audio = text.find(kAudio.soft, copied);
    }
  }
  prompt.Markup(text.substr(copied));
  return prompt.Take();
}

Result<std::vector<int32_t>> EncodePrompt(const Tokenizer& tokenizer, const Prompt& prompt,
                                          bool add_bos) {
  const auto require = [&](std::string_view name) {
    if (tokenizer.FindSpecial(name) >= 0) return OkStatus();
    return Unsupported("the prompt needs ", name, ", which the tokenizer lacks");
  };
  for (const PromptSegment& segment : prompt.segments) {
    if (!segment.parse_special) continue;
    for (const std::string_view name : {kBos, kStartOfTurn, kEndOfTurn}) {
      if (segment.text.find(name) != std::string::npos) RETURN_IF_ERROR(require(name));
    }
  }
  for (const auto& [placeholder, count] :
       {std::pair{kImage, prompt.num_images}, std::pair{kAudio, prompt.num_audios}}) {
    if (count == 0) continue;
    for (const std::string_view name : {placeholder.start, placeholder.soft, placeholder.end}) {
      RETURN_IF_ERROR(require(name));
    }
  }
  return tokenizer.EncodeSegments(prompt.segments, add_bos);
}

}  // namespace nestling
