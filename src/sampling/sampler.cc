// SPDX-License-Identifier: Apache-2.0
// Compiled without contraction to fused multiply-adds: a weight's last bit has to be the same on
// every platform.
#include "sampling/sampler.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <limits>

namespace nestling {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr uint32_t kMaxRepetitionWindow = 1u << 20;
constexpr size_t kBlock = 64;  // logits that are looked at together

// e^x for x <= 0, relative error below 3e-7; 0 below e^-87. Not libm's, whose last bit differs from
// one platform to the next. NaN gives an arbitrary number.
float ExpNegative(float x) {
  constexpr float kLog2E = 1.44269504f;
  constexpr float kLn2High = 355.0f / 512.0f;  // few bits: k * kLn2High is exact
  constexpr float kLn2Low = -2.12194440e-4f;   // ln 2 - kLn2High
  constexpr float kRound = 0x1.8p23f;          // adding it rounds to a whole number
  const float clamped = x > -87.0f ? x : -87.0f;
  const float k = (clamped * kLog2E + kRound) - kRound;
  const float r = (clamped - k * kLn2High) - k * kLn2Low;  // |r| <= ln 2 / 2
  float y = 1.0f / 5040;                                   // Taylor: the next term is below 6e-9
  y = y * r + 1.0f / 720;
  y = y * r + 1.0f / 120;
  y = y * r + 1.0f / 24;
  y = y * r + 1.0f / 6;
  y = y * r + 0.5f;
  y = y * r + 1.0f;
  y = y * r + 1.0f;
  const float power = std::bit_cast<float>((static_cast<int32_t>(k) + 127) << 23);  // 2^k
  return x > -87.0f ? y * power : 0.0f;
}

// The order of a distribution.
bool Better(const TokenProbability& a, const TokenProbability& b) {
  return a.probability != b.probability ? a.probability > b.probability : a.id < b.id;
}

// Largest of kBlock logits, -infinity when all are NaN. In lanes, which compilers turn into SIMD.
float BlockMaximum(const float* logits) {
  std::array<float, 16> lanes;
  lanes.fill(-kInfinity);
  for (size_t i = 0; i < kBlock; i += lanes.size()) {
    for (size_t lane = 0; lane < lanes.size(); ++lane) {
      const float logit = logits[i + lane];
      lanes[lane] = logit > lanes[lane] ? logit : lanes[lane];
    }
  }
  return *std::max_element(lanes.begin(), lanes.end());
}

// The highest logit, of equal ones the lowest id; nothing found: -infinity and id 0.
TokenProbability FindMaximum(std::span<const float> logits) {
  TokenProbability best{0, -kInfinity};
  for (size_t begin = 0; begin < logits.size(); begin += kBlock) {
    const size_t end = std::min(begin + kBlock, logits.size());
    if (end - begin == kBlock && !(BlockMaximum(&logits[begin]) > best.probability)) continue;
    for (size_t i = begin; i < end; ++i) {
      if (logits[i] > best.probability) best = {static_cast<int32_t>(i), logits[i]};
    }
  }
  return best;
}

// Weight of a logit relative to the highest one; 0 for NaN. An infinite maximum takes everything.
float Weigh(float logit, float maximum, float temperature) {
  if (maximum == kInfinity) return logit == kInfinity ? 1.0f : 0.0f;
  const float weight = ExpNegative((logit - maximum) / temperature);
  return logit <= maximum ? weight : 0.0f;
}

Status CheckRange(const char* name, float value, float low, float high, const char* wanted) {
  if (value >= low && value <= high) return OkStatus();
  return InvalidArgument(name, " is ", value, ", want ", wanted);
}

}  // namespace

Status ValidateSamplingOptions(const SamplingOptions& options) {
  constexpr float kMax = std::numeric_limits<float>::max();
  constexpr float kMin = std::numeric_limits<float>::min();
  RETURN_IF_ERROR(
      CheckRange("temperature", options.temperature, 0, kMax, "a number of at least 0"));
  RETURN_IF_ERROR(CheckRange("top_p", options.top_p, 0, 1, "0 to 1"));
  RETURN_IF_ERROR(CheckRange("min_p", options.min_p, 0, 1, "0 to 1"));
  RETURN_IF_ERROR(
      CheckRange("repetition_penalty", options.repetition_penalty, kMin, kMax, "a number above 0"));
  if (options.repetition_window > kMaxRepetitionWindow) {
    return InvalidArgument("repetition_window is ", options.repetition_window, ", want at most ",
                           kMaxRepetitionWindow);
  }
  return OkStatus();
}

Result<std::unique_ptr<Sampler>> Sampler::Create(const SamplingOptions& options,
                                                 size_t vocab_size) {
  std::unique_ptr<Sampler> sampler(new Sampler(options));
  RETURN_IF_ERROR(sampler->SetOptions(options));
  sampler->Reserve(vocab_size);
  return sampler;
}

Status Sampler::SetOptions(const SamplingOptions& options) {
  RETURN_IF_ERROR(ValidateSamplingOptions(options));
  options_ = options;
  random_ = Random(options.seed);
  recent_.clear();
  next_recent_ = 0;
  Reserve(vocab_size_);
  return OkStatus();
}

void Sampler::Reserve(size_t vocab_size) {
  vocab_size_ = std::max(vocab_size_, vocab_size);
  size_t num_candidates = vocab_size_;
  if (greedy()) {
    num_candidates = 1;
  } else if (options_.top_k > 0) {
    num_candidates = std::min<size_t>(options_.top_k, vocab_size_);
  }
  const bool penalty = options_.repetition_penalty != 1.0f;
  if (penalty) {
    recent_.reserve(options_.repetition_window);
    penalized_.reserve(vocab_size_);
  }
  if (const size_t num_best = NumBest(); num_best != 0) {
    const size_t num_recent = penalty ? options_.repetition_window : 0;
    recent_ids_.reserve(num_recent);
    num_candidates = std::max(num_candidates, num_best + num_recent);
  }
  candidates_.reserve(num_candidates);
}

size_t Sampler::NumBest() const {
  const size_t chosen = greedy() ? 1 : options_.top_k;
  if (chosen == 0) return 0;
  // Recent tokens may all be among the best and fall behind by their penalty.
  const size_t penalized = options_.repetition_penalty != 1.0f ? options_.repetition_window : 0;
  return chosen + penalized <= kMaxCandidates ? chosen + penalized : 0;
}

Result<int32_t> Sampler::Sample(std::span<const float> logits, size_t limit) {
  ASSIGN_OR_RETURN(const auto distribution, Distribution(logits, limit));
  return Choose(distribution);
}

int32_t Sampler::Choose(std::span<const TokenProbability> distribution) {
  return greedy() ? distribution[0].id : Draw(distribution);
}

Result<std::span<const TokenProbability>> Sampler::Distribution(std::span<const float> logits,
                                                                size_t limit) {
  logits = logits.first(std::min(limit, logits.size()));
  if (logits.empty()) return InvalidArgument("sampling: no logits to choose from");
  logits = Penalize(logits);
  candidates_.clear();
  const bool sorted = options_.top_k > 0 && options_.top_k < logits.size();
  double total = 0;
  if (greedy()) {
    total = WeighMaximum(logits);
  } else {
    total = sorted ? WeighTopK(logits) : WeighAll(logits);
  }
  return Filter(total, sorted, logits.size());
}

std::optional<CandidateQuery> Sampler::Query(size_t limit) {
  const size_t num_best = NumBest();
  // With as many candidates as tokens, Distribution is by id.
  if (num_best == 0 || (!greedy() && options_.top_k >= limit)) return std::nullopt;
  recent_ids_.clear();
  for (const int32_t id : recent_) {
    if (id >= 0 && static_cast<size_t>(id) < limit) recent_ids_.push_back(id);
  }
  std::sort(recent_ids_.begin(), recent_ids_.end());
  recent_ids_.erase(std::unique(recent_ids_.begin(), recent_ids_.end()), recent_ids_.end());
  return CandidateQuery{num_best, recent_ids_};
}

Result<int32_t> Sampler::SampleCandidates(const Candidates& candidates, size_t limit) {
  ASSIGN_OR_RETURN(const auto distribution, CandidateDistribution(candidates, limit));
  return Choose(distribution);
}

Result<std::span<const TokenProbability>> Sampler::CandidateDistribution(
    const Candidates& candidates, size_t limit) {
  if (limit == 0) return InvalidArgument("sampling: no logits to choose from");
  return Filter(WeighCandidates(candidates), /*sorted=*/true, limit);
}

Result<std::span<const TokenProbability>> Sampler::Filter(double total, bool sorted,
                                                          size_t num_logits) {
  if (total == 0) {
    return Internal("sampling: none of ", num_logits, " logits is a number above -infinity");
  }
  if (options_.top_p < 1.0f) KeepMass(total, sorted);
  if (options_.min_p > 0.0f) KeepMinP(sorted || options_.top_p < 1.0f);
  total = 0;
  for (const TokenProbability& candidate : candidates_) total += candidate.probability;
  for (TokenProbability& candidate : candidates_) {
    candidate.probability = static_cast<float>(candidate.probability / total);
  }
  return std::span<const TokenProbability>(candidates_);
}

int32_t Sampler::Draw(std::span<const TokenProbability> distribution) {
  double total = 0;
  for (const TokenProbability& candidate : distribution) total += candidate.probability;
  const double target = random_.NextUniform() * total;  // < total
  double mass = 0;
  for (const TokenProbability& candidate : distribution) {
    mass += candidate.probability;
    if (mass > target) return candidate.id;
  }
  return distribution.back().id;
}

void Sampler::Accept(int32_t id) {
  if (options_.repetition_penalty == 1.0f || options_.repetition_window == 0) return;
  if (recent_.size() < options_.repetition_window) {
    recent_.push_back(id);
    return;
  }
  recent_[next_recent_] = id;
  next_recent_ = (next_recent_ + 1) % recent_.size();
}

void Sampler::CopyRecent(const Sampler& other) {
  recent_.assign(other.recent_.begin(), other.recent_.end());
  next_recent_ = other.next_recent_;
}

std::span<const float> Sampler::Penalize(std::span<const float> logits) {
  if (recent_.empty()) return logits;
  penalized_.assign(logits.begin(), logits.end());
  for (const int32_t id : recent_) {
    if (id < 0 || static_cast<size_t>(id) >= logits.size()) continue;
    // From the original logit: a token that occurred twice is penalised once.
    penalized_[id] = Penalized(logits[id]);
  }
  return penalized_;
}

float Sampler::Penalized(float logit) const {
  return logit > 0 ? logit / options_.repetition_penalty : logit * options_.repetition_penalty;
}

double Sampler::WeighMaximum(std::span<const float> logits) {
  const TokenProbability best = FindMaximum(logits);
  if (best.probability == -kInfinity) return 0;
  candidates_.push_back({best.id, 1.0f});
  return 1;
}

// A heap holds the best so far, the worst of them on top: its logit is what others have to exceed.
// Later ones have higher ids, so an equal logit loses. Nearly all blocks are passed over after one
// comparison.
double Sampler::WeighTopK(std::span<const float> logits) {
  const size_t k = options_.top_k;
  float threshold = -kInfinity;
  const auto offer = [&](size_t id) {
    if (!(logits[id] > threshold)) return;
    if (candidates_.size() == k) {
      std::pop_heap(candidates_.begin(), candidates_.end(), Better);
      candidates_.pop_back();
    }
    candidates_.push_back({static_cast<int32_t>(id), logits[id]});
    std::push_heap(candidates_.begin(), candidates_.end(), Better);
    if (candidates_.size() == k) threshold = candidates_.front().probability;
  };
  size_t id = 0;
  for (; id + kBlock <= logits.size(); id += kBlock) {
    if (!(BlockMaximum(&logits[id]) > threshold)) continue;
    for (size_t i = id; i < id + kBlock; ++i) offer(i);
  }
  for (; id < logits.size(); ++id) offer(id);
  std::sort_heap(candidates_.begin(), candidates_.end(), Better);
  return WeighSorted();
}

// The best after the penalty are recent tokens or the best of the others, and of these as many are
// there as can be chosen.
double Sampler::WeighCandidates(const Candidates& candidates) {
  candidates_.clear();
  for (const TokenLogit& token : candidates.best) {
    if (std::binary_search(recent_ids_.begin(), recent_ids_.end(), token.id)) continue;
    candidates_.push_back({token.id, token.logit});
  }
  for (size_t i = 0; i < recent_ids_.size(); ++i) {
    const float logit = Penalized(candidates.logits[i]);
    if (logit > -kInfinity) candidates_.push_back({recent_ids_[i], logit});
  }
  const size_t chosen = std::min<size_t>(greedy() ? 1 : options_.top_k, candidates_.size());
  const auto end = candidates_.begin() + static_cast<ptrdiff_t>(chosen);
  std::partial_sort(candidates_.begin(), end, candidates_.end(), Better);
  candidates_.erase(end, candidates_.end());
  if (!greedy()) return WeighSorted();
  for (TokenProbability& candidate : candidates_) candidate.probability = 1.0f;
  return static_cast<double>(candidates_.size());
}

double Sampler::WeighSorted() {
  if (candidates_.empty()) return 0;
  const float maximum = candidates_.front().probability;
  double total = 0;
  for (TokenProbability& candidate : candidates_) {
    candidate.probability = Weigh(candidate.probability, maximum, options_.temperature);
    total += candidate.probability;
  }
  std::erase_if(candidates_, [](const TokenProbability& c) { return c.probability == 0; });
  return total;
}

double Sampler::WeighAll(std::span<const float> logits) {
  const float maximum = FindMaximum(logits).probability;
  if (maximum == -kInfinity) return 0;
  double total = 0;
  // Without top-p nobody asks for the mass of what min-p drops. A higher logit has no lower weight
  // but for rounding, which the factor covers.
  constexpr float kRounding = 1.001f;
  const bool skip = options_.min_p > 0.0f && options_.top_p == 1.0f;
  std::array<float, kBlock> weights;  // apart from the sum, so that compilers turn it into SIMD
  for (size_t begin = 0; begin < logits.size(); begin += kBlock) {
    const size_t size = std::min(kBlock, logits.size() - begin);
    if (skip && size == kBlock) {
      const float highest = BlockMaximum(&logits[begin]);
      if (kRounding * Weigh(highest, maximum, options_.temperature) < options_.min_p) continue;
    }
    for (size_t i = 0; i < size; ++i) {
      weights[i] = Weigh(logits[begin + i], maximum, options_.temperature);
    }
    for (size_t i = 0; i < size; ++i) {
      if (weights[i] == 0) continue;
      candidates_.push_back({static_cast<int32_t>(begin + i), weights[i]});
      total += weights[i];
    }
  }
  return total;
}

// Keeps the shortest beginning of the sorted candidates that has the mass top_p * total, and at
// least one of them.
void Sampler::KeepMass(double total, bool sorted) {
  const double wanted = options_.top_p * total;
  if (!sorted) {
    // All that are lighter than this weigh together less than what may be left out.
    const double negligible = (total - wanted) / static_cast<double>(candidates_.size());
    std::erase_if(candidates_,
                  [&](const TokenProbability& c) { return c.probability < negligible; });
  }
  double mass = 0;
  size_t kept = 0;
  // Unsorted candidates are sorted in growing stretches, as far as they are needed.
  for (size_t end = 0, stretch = 256; kept == 0 || (mass < wanted && kept < candidates_.size());
       stretch *= 4) {
    const auto first = candidates_.begin() + end;
    end = sorted ? candidates_.size() : std::min(candidates_.size(), end + stretch);
    const auto last = candidates_.begin() + end;
    if (!sorted) {
      if (last != candidates_.end()) std::nth_element(first, last, candidates_.end(), Better);
      std::sort(first, last, Better);
    }
    while (kept < end && (kept == 0 || mass < wanted)) mass += candidates_[kept++].probability;
  }
  candidates_.resize(kept);
}

void Sampler::KeepMinP(bool sorted) {
  // The most probable token has weight 1.
  std::erase_if(candidates_,
                [this](const TokenProbability& c) { return c.probability < options_.min_p; });
  if (!sorted) std::sort(candidates_.begin(), candidates_.end(), Better);
}

}  // namespace nestling
