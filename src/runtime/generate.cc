// SPDX-License-Identifier: Apache-2.0
// The decode loop: logits, sample (or draft and verify), text, callback.
#include <algorithm>
#include <chrono>
#include <optional>
#include <utility>

#include "runtime/decoder.h"
#include "runtime/scratch.h"
#include "runtime/session.h"
#include "runtime/speculative.h"
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

// Another plan for a while.
class PlanScope {
 public:
  PlanScope(Decoder& decoder, Decoder::Plan& plan) : decoder_(decoder), plan_(plan) {
    decoder_.SwapPlan(plan_);
  }
  ~PlanScope() { decoder_.SwapPlan(plan_); }
  PlanScope(const PlanScope&) = delete;
  PlanScope& operator=(const PlanScope&) = delete;

 private:
  Decoder& decoder_;
  Decoder::Plan& plan_;
};

}  // namespace

struct Session::Drafting {
  std::unique_ptr<Speculation> speculation;
  Decoder::Plan plan;
};

Result<std::unique_ptr<Session::Drafting>> Session::MakeDrafting(const GenerateOptions& options) {
  if (options.draft_slice.empty()) return std::unique_ptr<Drafting>();
  const uint32_t wanted = options.draft_tokens != 0 ? options.draft_tokens : kDefaultDraftTokens;
  // Drafts and the token before them are verified as one chunk.
  const uint32_t room = decoder_->chunk_tokens() - 1;
  if (room == 0) return InvalidArgument("drafts need a chunk of 2 or more tokens");
  ASSIGN_OR_RETURN(const SliceConfig slice, engine_.ChooseSlice(options.draft_slice));
  auto drafting = std::make_unique<Drafting>();
  ASSIGN_OR_RETURN(drafting->plan, decoder_->MakePlan(slice));
  const TextConfig& config = engine_.text_config();
  ASSIGN_OR_RETURN(
      drafting->speculation,
      Speculation::Create(options.sampling, config.vocab_size, config.ple_vocab_size,
                          wanted <= kMaxDraftTokens ? std::min(wanted, room) : wanted));
  return drafting;
}

Status Session::Speculate(Sampler& sampler, Drafting& drafting, size_t most_drafts) {
  Speculation& speculation = *drafting.speculation;
  ASSIGN_OR_RETURN(const ScratchLease scratch, ScratchLease::Take(engine_.scratch_pool()));
  speculation.Begin(tokens_.back(), static_cast<uint32_t>(most_drafts), sampler);
  const size_t position = num_cached_;  // of the last token
  {
    const PlanScope scope(*decoder_, drafting.plan);
    while (speculation.wants_draft()) {
      const std::span<const int32_t> batch = speculation.batch();
      RETURN_IF_ERROR(
          RunChunk(*scratch, batch.last(1), position + batch.size() - 1, Want::kLast, {}));
      ASSIGN_OR_RETURN(const std::span<const float> logits, decoder_->LastLogits());
      RETURN_IF_ERROR(speculation.Draft(logits));
    }
  }
  // Writes its own keys and values over the draft's; those of rejected drafts are beyond
  // num_cached_ and never seen.
  return RunChunk(*scratch, speculation.batch(), position, Want::kAll,
                  [&](size_t, std::span<const float> logits) {
                    return speculation.done() ? OkStatus() : speculation.Judge(logits, sampler);
                  });
}

Result<std::span<const int32_t>> Session::NextTokens(Sampler& sampler, Drafting* drafting,
                                                     size_t most) {
  const bool last_is_pending = !row_valid_ && num_cached_ + 1 == tokens_.size();
  if (drafting != nullptr && last_is_pending && most > 1) {
    RETURN_IF_ERROR(Speculate(sampler, *drafting, most - 1));
    return drafting->speculation->tokens();
  }
  if (!row_valid_) RETURN_IF_ERROR(Refresh());
  ASSIGN_OR_RETURN(next_token_, SampleNext(sampler));
  sampler.Accept(next_token_);
  return std::span<const int32_t>(&next_token_, 1);
}

Result<int32_t> Session::SampleNext(Sampler& sampler) {
  const TextConfig& config = engine_.text_config();
  // Rows beyond the PLE table are placeholders of images and sounds: never an answer.
  const size_t limit = std::min(config.ple_vocab_size, config.vocab_size);
  // Logits that are there already cost less than any candidates.
  if (logits_.empty() && decoder_->has_candidates()) {
    if (const std::optional<CandidateQuery> query = sampler.Query(limit)) {
      const Candidates candidates = decoder_->LastCandidates(*query, limit);
      UpdateCounters();
      return sampler.SampleCandidates(candidates, limit);
    }
  }
  ASSIGN_OR_RETURN(const std::span<const float> logits, Logits());
  return sampler.Sample(logits, limit);
}

Result<GenerateResult> Session::Generate(const GenerateOptions& options, TokenCallback callback) {
  if (tokens_.empty()) return FailedPrecondition("nothing to continue: the session has no tokens");
  const TextConfig& config = engine_.text_config();
  ASSIGN_OR_RETURN(const auto sampler, Sampler::Create(options.sampling, config.vocab_size));
  ASSIGN_OR_RETURN(TextStream text, TextStream::Create(engine_.tokenizer(), options.stop_strings));
  const std::vector<int32_t>& stop_tokens =
      options.stop_tokens.empty() ? engine_.header().generation.stop_tokens : options.stop_tokens;
  ASSIGN_OR_RETURN(const auto drafting, MakeDrafting(options));
  for (const int32_t id : tokens_) sampler->Accept(id);

  const RunningCall running(*this);
  const TrimPleAtEnd trim(*decoder_);
  const Clock::time_point start = Clock::now();
  const auto seconds = [&] { return std::chrono::duration<double>(Clock::now() - start).count(); };
  GenerateResult result;
  const auto end = [&result](StopReason reason) {
    result.reason = reason;
    return true;
  };
  // Appends a token and shows it; true when the reply ends with it.
  const auto take = [&](int32_t id) -> Result<bool> {
    tokens_.push_back(id);
    num_cached_ = tokens_.size() - 1;
    ForgetLogits();
    ++result.num_tokens;
    ++counters_.decode_tokens;
    if (result.num_tokens == 1) counters_.first_token_seconds = seconds();
    if (!options.ignore_stop_tokens &&
        std::find(stop_tokens.begin(), stop_tokens.end(), id) != stop_tokens.end()) {
      return end(StopReason::kStopToken);
    }
    // Storage works while the callback runs and the next step begins. (A draft reads rows of its
    // own slice, and its verification finds most of them in the cache.)
    if (drafting == nullptr && result.num_tokens != options.max_tokens) {
      decoder_->Prefetch(std::span<const int32_t>(tokens_).last(1));
    }
    ASSIGN_OR_RETURN(const std::string_view shown, text.Push(id));
    if (callback && !callback(GeneratedToken{id, shown})) return end(StopReason::kCallback);
    if (text.stopped()) return end(StopReason::kStopString);
    if (options.max_tokens != 0 && result.num_tokens == options.max_tokens) {
      return end(StopReason::kMaxTokens);
    }
    return false;
  };
  for (bool ended = false; !ended;) {
    size_t most = context_tokens_ - tokens_.size();
    if (most == 0) {
      ended = end(StopReason::kContextFull);
      continue;
    }
    if (options.max_tokens != 0) {
      most = std::min<size_t>(most, options.max_tokens - result.num_tokens);
    }
    const auto next = NextTokens(*sampler, drafting.get(), most);
    if (!next.ok() && !cancelled_.load()) return next.status();
    const std::span<const int32_t> ids = next.ok() ? *next : std::span<const int32_t>();
    for (size_t i = 0; i < ids.size() && !ended && !cancelled_.load(); ++i) {
      ASSIGN_OR_RETURN(ended, take(ids[i]));
    }
    if (!ended && cancelled_.load()) ended = end(StopReason::kCancelled);
  }
  counters_.decode_seconds += seconds();
  if (drafting != nullptr) {
    result.num_drafted = static_cast<uint32_t>(drafting->speculation->num_drafted());
    result.num_accepted = static_cast<uint32_t>(drafting->speculation->num_accepted());
    counters_.draft_tokens += result.num_drafted;
    counters_.accepted_tokens += result.num_accepted;
  }
  const std::string rest = text.Flush();
  if (!rest.empty() && callback && result.reason != StopReason::kCallback) {
    callback(GeneratedToken{-1, rest});
  }
  return result;
}

}  // namespace nestling
