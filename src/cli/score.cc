// SPDX-License-Identifier: Apache-2.0
#include "cli/score.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "cli/command.h"

namespace nestling::cli {
namespace {

// Tokens whose reference logits are kept at once: 16 rows of a 262,400-word vocabulary are 17 MB.
constexpr size_t kStepTokens = 16;

double LogSumExp(std::span<const float> logits) {
  const double highest = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float logit : logits) sum += std::exp(logit - highest);
  return highest + std::log(sum);
}

size_t MostLikely(std::span<const float> logits) {
  return static_cast<size_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

double KlDivergence(std::span<const float> reference, std::span<const float> model) {
  const double reference_sum = LogSumExp(reference);
  const double model_sum = LogSumExp(model);
  double kl = 0;
  for (size_t i = 0; i < reference.size(); ++i) {
    const double log_p = reference[i] - reference_sum;
    kl += std::exp(log_p) * (log_p - (model[i] - model_sum));
  }
  return std::max(kl, 0.0);  // rounding may leave a negative zero's worth
}

void AddToken(std::span<const float> logits, int32_t token, Score* score) {
  score->nll += NegativeLogLikelihood(logits, token);
  ++score->num_tokens;
}

}  // namespace

double Score::Perplexity() const { return std::exp(MeanNll()); }

double Divergence::MeanKl() const {
  return model.num_tokens == 0 ? 0 : kl / static_cast<double>(model.num_tokens);
}

double Divergence::Top1Agreement() const {
  return model.num_tokens == 0 ? 0
                               : static_cast<double>(top1) / static_cast<double>(model.num_tokens);
}

double NegativeLogLikelihood(std::span<const float> logits, int32_t token) {
  if (token < 0 || static_cast<size_t>(token) >= logits.size()) {
    throw ToolError("token id " + std::to_string(token) + ", the vocabulary has " +
                    std::to_string(logits.size()));
  }
  return LogSumExp(logits) - logits[static_cast<size_t>(token)];
}

void AddScore(Session& session, std::span<const int32_t> tokens, Score* score) {
  session.Reset();
  // The last token predicts nothing that is known.
  session.Eval(tokens.first(tokens.size() - 1), [&](size_t index, std::span<const float> logits) {
    AddToken(logits, tokens[index + 1], score);
    return true;
  });
}

void AddDivergence(Session& model, Session& reference, std::span<const int32_t> tokens,
                   Divergence* divergence) {
  model.Reset();
  reference.Reset();
  const size_t count = tokens.size() - 1;
  std::vector<std::vector<float>> rows(std::min(count, kStepTokens));
  for (size_t begin = 0; begin < count; begin += kStepTokens) {
    const auto step = tokens.subspan(begin, std::min(kStepTokens, count - begin));
    reference.Eval(step, [&](size_t index, std::span<const float> logits) {
      rows[index].assign(logits.begin(), logits.end());
      AddToken(logits, tokens[begin + index + 1], &divergence->reference);
      return true;
    });
    model.Eval(step, [&](size_t index, std::span<const float> logits) {
      AddToken(logits, tokens[begin + index + 1], &divergence->model);
      const double kl = KlDivergence(rows[index], logits);
      divergence->kl += kl;
      divergence->max_kl = std::max(divergence->max_kl, kl);
      if (MostLikely(rows[index]) == MostLikely(logits)) ++divergence->top1;
      return true;
    });
  }
}

}  // namespace nestling::cli
