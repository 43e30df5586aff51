// SPDX-License-Identifier: Apache-2.0
// One image through the vision tower of a container, in f32 and in int8, beside the limit that the
// processor sets in the same run: its multiply-adds per second on all threads of the pool.
//   nestling synth --preset e2b -o e2b.nest
//   vision_bench e2b.nest [threads]
#include <benchmark/benchmark.h>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/memory_info.h"
#include "base/thread_pool.h"
#include "benchmarks/model_benchmark.h"
#include "container/reader.h"
#include "kernels/isa.h"
#include "modality/vision/vision_config.h"
#include "modality/vision/vision_tower.h"

namespace nestling {
namespace {

constexpr int kSums = 12;  // independent chains: more than latency times units
constexpr int64_t kSteps = 4 << 20;

double SecondsSince(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

#if defined(__x86_64__)
__attribute__((target("avx512f"))) void MultiplyAddAvx512() {
  __m512 sums[kSums];
  for (__m512& sum : sums) sum = _mm512_set1_ps(1.0f);
  const __m512 factor = _mm512_set1_ps(0.5f);
  for (int64_t i = 0; i < kSteps; ++i) {
#pragma GCC unroll 12
    for (__m512& sum : sums) sum = _mm512_fmadd_ps(sum, factor, factor);
  }
  for (__m512& sum : sums) benchmark::DoNotOptimize(sum);
}
__attribute__((target("avx2,fma"))) void MultiplyAddAvx2() {
  __m256 sums[kSums];
  for (__m256& sum : sums) sum = _mm256_set1_ps(1.0f);
  const __m256 factor = _mm256_set1_ps(0.5f);
  for (int64_t i = 0; i < kSteps; ++i) {
#pragma GCC unroll 12
    for (__m256& sum : sums) sum = _mm256_fmadd_ps(sum, factor, factor);
  }
  for (__m256& sum : sums) benchmark::DoNotOptimize(sum);
}
#elif defined(__aarch64__)
void MultiplyAddNeon() {
  float32x4_t sums[kSums];
  for (float32x4_t& sum : sums) sum = vdupq_n_f32(1.0f);
  const float32x4_t factor = vdupq_n_f32(0.5f);
  for (int64_t i = 0; i < kSteps; ++i) {
#pragma GCC unroll 12
    for (float32x4_t& sum : sums) sum = vfmaq_f32(factor, sum, factor);
  }
  for (float32x4_t& sum : sums) benchmark::DoNotOptimize(sum);
}
#endif

// f32 operations a second (two a multiply-add) of all threads, the best of several runs.
double PeakFlops(const ThreadPool& pool) {
  void (*body)() = nullptr;
  int64_t lanes = 0;
#if defined(__x86_64__)
  const uint32_t isa = kernels::AvailableIsa();
  if ((isa & kernels::kIsaAvx512) != 0) {
    body = &MultiplyAddAvx512;
    lanes = 16;
  } else if ((isa & kernels::kIsaAvx2) != 0) {
    body = &MultiplyAddAvx2;
    lanes = 8;
  }
#elif defined(__aarch64__)
  body = &MultiplyAddNeon;
  lanes = 4;
#endif
  if (body == nullptr) return 0.0;
  double best = 0.0;
  for (int run = 0; run < 5; ++run) {
    const auto start = std::chrono::steady_clock::now();
    pool.ParallelFor(pool.num_threads(), [&](size_t) { body(); });
    const double operations =
        2.0 * kSums * static_cast<double>(lanes * kSteps) * static_cast<double>(pool.num_threads());
    best = std::max(best, operations / SecondsSince(start));
  }
  return best;
}

// Multiply-accumulates of all matrix products of one image, attention included.
double MultiplyAdds(const VisionConfig& config) {
  const auto area = [](size_t height, size_t width) { return static_cast<double>(height * width); };
  double total = area(config.stem_height, config.stem_width) * static_cast<double>(config.stem) *
                 3.0 * static_cast<double>(config.stem_kernel * config.stem_kernel);
  for (const auto& stage : config.stages) {
    for (const VisionBlockConfig& b : stage) {
      const double in = area(b.in_height, b.in_width), out = area(b.out_height, b.out_width);
      const auto product = [](size_t x, size_t y) { return static_cast<double>(x * y); };
      switch (b.kind) {
        case VisionBlockConfig::Kind::kEdgeResidual:
          total += out * (product(b.in, b.middle) * static_cast<double>(b.kernel * b.kernel) +
                          product(b.middle, b.out));
          break;
        case VisionBlockConfig::Kind::kInvertedBottleneck:
          total += in * (product(b.in, b.middle) + product(b.in, b.start_kernel * b.start_kernel)) +
                   out * (product(b.middle, b.out) +
                          product(b.middle, b.middle_kernel * b.middle_kernel));
          break;
        case VisionBlockConfig::Kind::kAttention: {
          const double keys = area((b.in_height + b.kv_stride - 1) / b.kv_stride,
                                   (b.in_width + b.kv_stride - 1) / b.kv_stride);
          total += in * 2.0 * product(b.in, b.middle) + keys * 2.0 * product(b.in, b.head_dim) +
                   keys * 2.0 * product(b.in, b.kv_kernel * b.kv_kernel) +
                   in * keys * 2.0 * static_cast<double>(b.middle);
          break;
        }
      }
    }
  }
  const VisionBlockConfig& high = config.stages[config.stages.size() - 2].back();
  const VisionBlockConfig& low = config.stages.back().back();
  const auto middle = static_cast<double>(config.fusion_middle);
  return total +
         middle * (area(low.out_height, low.out_width) * static_cast<double>(low.out) +
                   area(high.out_height, high.out_width) *
                       static_cast<double>(high.out + config.features)) +
         static_cast<double>(config.num_soft_tokens() * config.features * config.hidden_size);
}

struct Setup {
  std::unique_ptr<ContainerReader> reader;
  std::unique_ptr<ThreadPool> pool;
  VisionConfig config;
};

void Encode(benchmark::State& state, const Setup& setup, VisionOptions::Compute compute) {
  const uint64_t before = ReadProcessMemory().resident;
  const auto start = std::chrono::steady_clock::now();
  auto tower = VisionTower::Create(*setup.reader, *setup.pool, {compute});
  if (!tower.ok()) {
    state.SkipWithError(tower.status().message().c_str());
    return;
  }
  const double load = SecondsSince(start);
  std::vector<float> pixels(3 * setup.config.image_height * setup.config.image_width);
  for (size_t i = 0; i < pixels.size(); ++i) {
    pixels[i] = static_cast<float>(i * 2654435761u % 256) / 255.0f;
  }
  double first = 0.0, best = 1e30;
  std::map<std::string, double> stages, best_stages;
  for (auto _ : state) {
    const auto begin = std::chrono::steady_clock::now();
    auto stage_begin = begin;
    const auto observe = [&](std::string_view stage, const FeatureMap&) {
      if (stage.starts_with("block")) return;
      stages[std::string(stage)] = SecondsSince(stage_begin);
      stage_begin = std::chrono::steady_clock::now();
    };
    const auto tokens = (*tower)->Encode(pixels, observe);
    const double seconds = SecondsSince(begin);
    if (!tokens.ok()) {
      state.SkipWithError(tokens.status().message().c_str());
      return;
    }
    if (first == 0.0) first = seconds;
    if (seconds < best) best_stages = stages;
    best = std::min(best, seconds);
  }
  const double peak = PeakFlops(*setup.pool);
  state.counters["load_s"] = load;
  state.counters["first_image_s"] = first;
  state.counters["image_s"] = best;
  for (const auto& [stage, seconds] : best_stages) state.counters[stage + "_s"] = seconds;
  state.counters["GFLOPS"] = 2e-9 * MultiplyAdds(setup.config) / best;
  state.counters["peak_GFLOPS"] = 1e-9 * peak;
  state.counters["of_peak"] = 2.0 * MultiplyAdds(setup.config) / best / peak;
  const double resident = static_cast<double>(ReadProcessMemory().resident - before);
  state.counters["resident_MB"] = 1e-6 * resident;
  state.counters["activations_MB"] = 1e-6 * static_cast<double>((*tower)->activation_bytes());
}

Status Run(const std::string& path, size_t num_threads) {
  static Setup setup;
  ASSIGN_OR_RETURN(setup.reader, ContainerReader::Open(path));
  ASSIGN_OR_RETURN(setup.pool, ThreadPool::Create(num_threads));
  ASSIGN_OR_RETURN(setup.config, ReadVisionConfig(*setup.reader));
  const std::pair<const char*, VisionOptions::Compute> computes[] = {
      {"image/f32", VisionOptions::Compute::kF32}, {"image/int8", VisionOptions::Compute::kInt8}};
  for (const auto& [name, compute] : computes) {
    benchmark::RegisterBenchmark(
        name, [compute = compute](benchmark::State& state) { Encode(state, setup, compute); })
        ->Unit(benchmark::kMillisecond)
        ->Iterations(3)
        ->UseRealTime();
  }
  benchmark::RunSpecifiedBenchmarks();
  return OkStatus();
}

}  // namespace
}  // namespace nestling

int main(int argc, char** argv) {
  return nestling::ModelBenchmarkMain("vision_bench", argc, argv, &nestling::Run);
}
