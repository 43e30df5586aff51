// SPDX-License-Identifier: Apache-2.0
// The output head of a model and the choice of a token: lm_head_bench MODEL.nest [threads]
//
//   row/<options>         all logits, then Sampler::Sample
//   candidates/<options>  LmHead::FindCandidates, then Sampler::SampleCandidates
#include <algorithm>
#include <memory>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "base/aligned_buffer.h"
#include "benchmarks/model_benchmark.h"
#include "graph/decoder_blocks.h"
#include "runtime/engine.h"
#include "runtime/lm_head.h"
#include "sampling/sampler.h"

namespace nestling {
namespace {

struct Choice {
  const char* name;
  SamplingOptions options;
};
const Choice kChoices[] = {
    {"greedy", {.temperature = 0}},
    {"top_k_64", {.top_k = 64, .top_p = 0.95f}},
    {"top_k_64_penalty", {.repetition_penalty = 1.1f, .top_k = 64, .top_p = 0.95f}},
    {"top_k_256", {.top_k = 256}},
    {"top_k_1024", {.top_k = 1024}},
};

// What a bench runs: the head, its input, the tokens so far.
struct Setting {
  LmHead& head;
  std::span<const float> x;
  size_t limit;
};

std::unique_ptr<Sampler> MakeSampler(const SamplingOptions& options, size_t vocab) {
  auto sampler = std::move(Sampler::Create(options, vocab)).value();
  for (int32_t id = 0; id < 64; ++id) sampler->Accept(id * 101);
  return sampler;
}

void Register(const Setting& setting, const Choice& choice) {
  const std::string name = choice.name;
  benchmark::RegisterBenchmark(
      ("row/" + name).c_str(),
      [=](benchmark::State& state) {
        const auto sampler = MakeSampler(choice.options, setting.limit);
        for (auto _ : state) {
          const auto logits = setting.head.Logits(setting.x.data(), 1);
          benchmark::DoNotOptimize(sampler->Sample(*logits, setting.limit));
        }
      })
      ->UseRealTime()
      ->Unit(benchmark::kMicrosecond);
  benchmark::RegisterBenchmark(
      ("candidates/" + name).c_str(),
      [=](benchmark::State& state) {
        const auto sampler = MakeSampler(choice.options, setting.limit);
        for (auto _ : state) {
          const auto query = sampler->Query(setting.limit);
          if (!query) return state.SkipWithError("these options need all logits");
          const Candidates candidates =
              setting.head.FindCandidates(setting.x.data(), *query, setting.limit);
          benchmark::DoNotOptimize(sampler->SampleCandidates(candidates, setting.limit));
        }
      })
      ->UseRealTime()
      ->Unit(benchmark::kMicrosecond);
}

Status Run(const std::string& path, size_t num_threads) {
  EngineOptions options;
  options.num_threads = static_cast<uint32_t>(num_threads);
  ASSIGN_OR_RETURN(const auto engine, Engine::Create(path, options));
  const TextConfig& config = engine->text_config();
  ASSIGN_OR_RETURN(const auto head,
                   LmHead::Create(engine->blocks().lm_head(), engine->pool(), config));
  if (!head->has_candidates()) return Unsupported("the output head does not lie in tiles");
  ASSIGN_OR_RETURN(auto x, AlignedBuffer<float>::Create(config.hidden_size));
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  std::generate_n(x.data(), x.size(), [&] { return normal(random); });
  const Setting setting{*head, x.span(), std::min(config.vocab_size, config.ple_vocab_size)};
  for (const Choice& choice : kChoices) Register(setting, choice);
  benchmark::RunSpecifiedBenchmarks();
  return OkStatus();
}

}  // namespace
}  // namespace nestling

int main(int argc, char** argv) {
  return nestling::ModelBenchmarkMain("lm_head_bench", argc, argv, nestling::Run);
}
