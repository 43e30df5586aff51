// SPDX-License-Identifier: Apache-2.0
// The decode loop: logits, sample, text, callback.
#include <algorithm>
#include <chrono>
#include <optional>
#include <utility>

#include "runtime/session.h"
#include "sampling/sampler.h"
#include "text/detokenizer.h"
#include "text/stop_matcher.h"

namespace nestling {
namespace {

using Clock = std::chrono::steady_clock;

// From tokens to the text that may be shown: whole characters, no part of a stop string.
class TextStream {
 public:
  static Result<TextStream> Create(const Tokenizer* tokenizer,
                                   std::span<const std::string> stop_strings) {
    if (tokenizer == nullptr && !stop_strings.empty()) {
      return FailedPrecondition("stop strings need a tokenizer, the container has none");
    }
    ASSIGN_OR_RETURN(StopMatcher matcher, StopMatcher::Create(stop_strings));
    TextStream stream(std::move(matcher));
    if (tokenizer != nullptr) stream.detokenizer_.emplace(*tokenizer, DecodeOptions{});
    return stream;
  }

  Result<std::string_view> Push(int32_t id) {
    if (!detokenizer_) return std::string_view();
    ASSIGN_OR_RETURN(const std::string_view text, detokenizer_->Push(id));
    return matcher_.Push(text);
  }

  // What was held back when the reply ended for another reason than a stop string.
  std::string Flush() {
    if (!detokenizer_) return {};
    std::string rest(matcher_.Push(detokenizer_->Flush()));
    if (!matcher_.stopped()) rest += matcher_.Flush();
    return rest;
  }

  bool stopped() const { return matcher_.stopped(); }

 private:
  explicit TextStream(StopMatcher matcher) : matcher_(std::move(matcher)) {}
  std::optional<StreamingDetokenizer> detokenizer_;
  StopMatcher matcher_;
};

}  // namespace

Result<GenerateResult> Session::Generate(const GenerateOptions& options, TokenCallback callback) {
  if (tokens_.empty()) return FailedPrecondition("nothing to continue: the session has no tokens");
  const TextConfig& config = engine_.text_config();
  ASSIGN_OR_RETURN(const auto sampler, Sampler::Create(options.sampling, config.vocab_size));
  ASSIGN_OR_RETURN(TextStream text, TextStream::Create(engine_.tokenizer(), options.stop_strings));
  const std::vector<int32_t>& stop_tokens =
      options.stop_tokens.empty() ? engine_.header().generation.stop_tokens : options.stop_tokens;
  for (const int32_t id : tokens_) sampler->Accept(id);

  const RunningCall running(*this);
  const Clock::time_point start = Clock::now();
  const auto seconds = [&] { return std::chrono::duration<double>(Clock::now() - start).count(); };
  GenerateResult result;
  while (true) {
    const Result<std::span<const float>> logits = Logits();
    if (logits.status().code() == StatusCode::kCancelled || cancelled_.load()) {
      result.reason = StopReason::kCancelled;
      break;
    }
    if (!logits.ok()) return logits.status();
    if (tokens_.size() == context_tokens_) {
      result.reason = StopReason::kContextFull;
      break;
    }
    // Rows beyond the PLE table are placeholders of images and sounds: never an answer.
    ASSIGN_OR_RETURN(const int32_t id, sampler->Sample(*logits, config.ple_vocab_size));
    sampler->Accept(id);
    tokens_.push_back(id);
    logits_valid_ = false;
    ++result.num_tokens;
    ++counters_.decode_tokens;
    if (result.num_tokens == 1) counters_.first_token_seconds = seconds();
    if (!options.ignore_stop_tokens &&
        std::find(stop_tokens.begin(), stop_tokens.end(), id) != stop_tokens.end()) {
      result.reason = StopReason::kStopToken;
      break;
    }
    ASSIGN_OR_RETURN(const std::string_view shown, text.Push(id));
    if (callback && !callback(GeneratedToken{id, shown})) {
      result.reason = StopReason::kCallback;
      break;
    }
    if (text.stopped()) {
      result.reason = StopReason::kStopString;
      break;
    }
    if (options.max_tokens != 0 && result.num_tokens == options.max_tokens) {
      result.reason = StopReason::kMaxTokens;
      break;
    }
  }
  counters_.decode_seconds += seconds();
  const std::string rest = text.Flush();
  if (!rest.empty() && callback && result.reason != StopReason::kCallback) {
    callback(GeneratedToken{-1, rest});
  }
  return result;
}

}  // namespace nestling
