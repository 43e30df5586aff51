// SPDX-License-Identifier: Apache-2.0
#include "runtime/speculative.h"

#include <algorithm>
#include <utility>

#include "sampling/random.h"

namespace nestling {
namespace {

// Drafts must not share random numbers with their judgement.
constexpr uint64_t kDraftSeed = 0x6472616674;  // "draft"

double ProbabilityOf(int32_t id, std::span<const TokenProbability> distribution) {
  for (const TokenProbability& candidate : distribution) {
    if (candidate.id == id) return candidate.probability;
  }
  return 0;
}

}  // namespace

Result<std::unique_ptr<Speculation>> Speculation::Create(const SamplingOptions& options,
                                                         size_t vocab_size, size_t limit,
                                                         uint32_t max_drafts) {
  if (max_drafts == 0 || max_drafts > kMaxDraftTokens) {
    return InvalidArgument(max_drafts, " draft tokens, want 1 to ", kMaxDraftTokens);
  }
  std::unique_ptr<Speculation> speculation(new Speculation(limit, max_drafts));
  SamplingOptions draft = options;
  draft.seed = Random(options.seed ^ kDraftSeed).Next();
  ASSIGN_OR_RETURN(speculation->draft_sampler_, Sampler::Create(draft, vocab_size));
  // As many candidates as a distribution can have.
  size_t candidates = std::min(vocab_size, limit);
  if (options.temperature == 0) {
    candidates = 1;
  } else if (options.top_k != 0) {
    candidates = std::min<size_t>(candidates, options.top_k);
  }
  speculation->batch_.reserve(max_drafts + 1);
  speculation->tokens_.reserve(max_drafts + 1);
  speculation->draft_distributions_.resize(max_drafts);
  for (std::vector<TokenProbability>& distribution : speculation->draft_distributions_) {
    distribution.reserve(candidates);
  }
  speculation->residual_.reserve(candidates);
  speculation->subtracted_.resize(vocab_size);
  return speculation;
}

void Speculation::Begin(int32_t last, uint32_t most, const Sampler& sampler) {
  wanted_ = std::clamp<uint32_t>(next_drafts_, 1, most);
  done_ = false;
  batch_.assign(1, last);
  tokens_.clear();
  draft_sampler_->CopyRecent(sampler);
}

Status Speculation::Draft(std::span<const float> logits) {
  ASSIGN_OR_RETURN(const auto distribution, draft_sampler_->Distribution(logits, limit_));
  draft_distributions_[num_drafts()].assign(distribution.begin(), distribution.end());
  const int32_t id = draft_sampler_->Draw(distribution);
  draft_sampler_->Accept(id);
  batch_.push_back(id);
  ++num_drafted_;
  return OkStatus();
}

Status Speculation::Judge(std::span<const float> logits, Sampler& sampler) {
  NESTLING_DCHECK(!done_);
  ASSIGN_OR_RETURN(const auto p, sampler.Distribution(logits, limit_));
  const size_t index = tokens_.size();
  if (index == num_drafts()) {
    if (num_drafts() == next_drafts_) next_drafts_ = std::min(next_drafts_ + 1, max_drafts_);
    Finish(sampler.Draw(p), sampler);
    return OkStatus();
  }
  const int32_t draft = batch_[index + 1];
  const double q_draft = ProbabilityOf(draft, draft_distributions_[index]);
  // Accepted with probability min(1, p / q). Greedy: 0 or 1.
  if (sampler.NextUniform() * q_draft < ProbabilityOf(draft, p)) {
    tokens_.push_back(draft);
    sampler.Accept(draft);
    ++num_accepted_;
    return OkStatus();
  }
  next_drafts_ = std::max(next_drafts_ - 1, 1u);
  Finish(sampler.Draw(Residual(p, index)), sampler);
  return OkStatus();
}

void Speculation::Finish(int32_t token, Sampler& sampler) {
  tokens_.push_back(token);
  sampler.Accept(token);
  done_ = true;
}

std::span<const TokenProbability> Speculation::Residual(std::span<const TokenProbability> p,
                                                        size_t index) {
  const std::vector<TokenProbability>& q = draft_distributions_[index];
  for (const TokenProbability& candidate : q) {
    subtracted_[static_cast<size_t>(candidate.id)] = candidate.probability;
  }
  residual_.clear();
  for (const TokenProbability& candidate : p) {
    const float left = candidate.probability - subtracted_[static_cast<size_t>(candidate.id)];
    if (left > 0) residual_.push_back({candidate.id, left});
  }
  for (const TokenProbability& candidate : q) subtracted_[static_cast<size_t>(candidate.id)] = 0;
  // A rejection means that q exceeds p somewhere, so p exceeds q elsewhere; only rounding can hide
  // it, and then p and q are the same.
  return residual_.empty() ? p : residual_;
}

}  // namespace nestling
