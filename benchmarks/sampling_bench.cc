// SPDX-License-Identifier: Apache-2.0
// What follows the output head in a decode step, for 262,144 logits on one thread: soft-capping,
// and choosing a token in the ways that a conversation uses. Beside it one copy of the logits.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <random>
#include <vector>

#include "kernels/softcap/softcap.h"
#include "sampling/sampler.h"

namespace nestling {
namespace {

constexpr size_t kVocab = 262144;

// A bell curve with a few likely tokens, capped at 30.
std::vector<float> Logits() {
  std::mt19937 random(1);
  std::normal_distribution<float> normal(-4.0f, 3.0f);
  std::vector<float> logits(kVocab);
  for (float& logit : logits) logit = normal(random);
  for (size_t i = 0; i < 20; ++i) logits[random() % kVocab] = 12.0f + static_cast<float>(i) / 4;
  kernels::SoftCap(logits.data(), kVocab, 30.0f);
  return logits;
}

void SoftCap(benchmark::State& state) {
  std::vector<float> logits = Logits();
  for (auto _ : state) {
    kernels::SoftCap(logits.data(), kVocab, 30.0f);
    benchmark::ClobberMemory();
  }
}
BENCHMARK(SoftCap);

void Copy(benchmark::State& state) {
  const std::vector<float> logits = Logits();
  std::vector<float> copy(kVocab);
  for (auto _ : state) {
    std::copy(logits.begin(), logits.end(), copy.begin());
    benchmark::ClobberMemory();
  }
}
BENCHMARK(Copy);

void Sample(benchmark::State& state, const SamplingOptions& options) {
  const std::vector<float> logits = Logits();
  const auto sampler = Sampler::Create(options, kVocab);
  if (!sampler.ok()) {
    state.SkipWithError("options");
    return;
  }
  for (auto _ : state) benchmark::DoNotOptimize((*sampler)->Sample(logits, kVocab));
}
BENCHMARK_CAPTURE(Sample, greedy, SamplingOptions{.temperature = 0});
BENCHMARK_CAPTURE(Sample, top_k_64_top_p, SamplingOptions{.top_k = 64, .top_p = 0.95f});
BENCHMARK_CAPTURE(Sample, top_p, SamplingOptions{.top_p = 0.95f});
BENCHMARK_CAPTURE(Sample, min_p, SamplingOptions{.min_p = 0.05f});

}  // namespace
}  // namespace nestling

BENCHMARK_MAIN();
