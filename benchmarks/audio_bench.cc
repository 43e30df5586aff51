// SPDX-License-Identifier: Apache-2.0
// 30 seconds of sound through the audio tower of a container, in f32 and in int8, at once and as it
// is recorded. The real-time factor is the time of encoding over the time of the sound; `finish_s`
// is how long the soft tokens take after the last sample has been pushed.
//   nestling synth --preset e2b -o e2b.nest
//   audio_bench e2b.nest [threads]
#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <random>
#include <span>
#include <utility>
#include <vector>

#include "base/memory_info.h"
#include "base/thread_pool.h"
#include "benchmarks/model_benchmark.h"
#include "container/reader.h"
#include "modality/audio/audio_stream.h"
#include "modality/audio/audio_tower.h"

namespace nestling {
namespace {

struct Setup {
  std::unique_ptr<ContainerReader> reader;
  std::unique_ptr<ThreadPool> pool;
};

double SecondsSince(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

std::vector<float> Noise(size_t num_samples) {
  std::mt19937 random(1);
  std::uniform_real_distribution<float> uniform(-0.5f, 0.5f);
  std::vector<float> pcm(num_samples);
  for (float& sample : pcm) sample = uniform(random);
  return pcm;
}

// Pushes 100 ms at a time, as fast as they are taken.
Result<SoftTokens> Stream(const AudioTower& tower, std::span<const float> pcm, double* finish) {
  constexpr size_t kStep = kAudioSampleRate / 10;
  ASSIGN_OR_RETURN(std::unique_ptr<AudioStream> stream, AudioStream::Create(tower));
  for (size_t i = 0; i < pcm.size(); i += kStep) {
    RETURN_IF_ERROR(stream->Push(pcm.subspan(i, std::min(kStep, pcm.size() - i))));
  }
  const auto start = std::chrono::steady_clock::now();
  Result<SoftTokens> tokens = stream->Finish();
  *finish = SecondsSince(start);
  return tokens;
}

void Encode(benchmark::State& state, const Setup& setup, AudioCompute compute, bool streamed) {
  const uint64_t before = ReadProcessMemory().resident;
  const auto start = std::chrono::steady_clock::now();
  auto tower = AudioTower::Create(*setup.reader, *setup.pool, {compute});
  if (!tower.ok()) {
    state.SkipWithError(tower.status().message().c_str());
    return;
  }
  const double load = SecondsSince(start);
  const std::vector<float> pcm = Noise((*tower)->config().max_samples());
  double first = 0.0, best = 1e30, finish = 0.0;
  for (auto _ : state) {
    const auto begin = std::chrono::steady_clock::now();
    const auto tokens = streamed ? Stream(**tower, pcm, &finish) : (*tower)->Encode(pcm);
    const double seconds = SecondsSince(begin);
    if (!tokens.ok()) {
      state.SkipWithError(tokens.status().message().c_str());
      return;
    }
    if (first == 0.0) first = seconds;
    best = std::min(best, seconds);
  }
  const double sound = static_cast<double>(pcm.size()) / kAudioSampleRate;
  state.counters["load_s"] = load;
  state.counters["first_s"] = first;
  state.counters["best_s"] = best;
  state.counters["real_time_factor"] = best / sound;
  if (streamed) state.counters["finish_s"] = finish;
  state.counters["weights_MB"] = 1e-6 * static_cast<double>((*tower)->weight_bytes());
  const double resident = static_cast<double>(ReadProcessMemory().resident - before);
  state.counters["resident_MB"] = 1e-6 * resident;
}

Status Run(const std::string& path, size_t num_threads) {
  static Setup setup;
  ASSIGN_OR_RETURN(setup.reader, ContainerReader::Open(path));
  ASSIGN_OR_RETURN(setup.pool, ThreadPool::Create(num_threads));
  const std::pair<const char*, AudioCompute> computes[] = {{"f32", AudioCompute::kF32},
                                                           {"int8", AudioCompute::kInt8}};
  for (const auto& [name, compute] : computes) {
    for (const bool streamed : {false, true}) {
      benchmark::RegisterBenchmark(StrCat(streamed ? "stream/" : "encode/", name).c_str(),
                                   [compute = compute, streamed](benchmark::State& state) {
                                     Encode(state, setup, compute, streamed);
                                   })
          ->Unit(benchmark::kMillisecond)
          ->Iterations(3)
          ->UseRealTime();
    }
  }
  benchmark::RunSpecifiedBenchmarks();
  return OkStatus();
}

}  // namespace
}  // namespace nestling

int main(int argc, char** argv) {
  return nestling::ModelBenchmarkMain("audio_bench", argc, argv, &nestling::Run);
}
