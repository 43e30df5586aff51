// SPDX-License-Identifier: Apache-2.0
// The tiled matrix products at the shapes of Gemma 3n E2B, beside the machine's own limits measured
// in the same run: products of int8 registers (prefill) and reading memory (decode). The layers'
// shapes lie in the caches and show what a kernel computes at most; the LM head's does not, and
// shows how near to reading memory one row is.
#include <benchmark/benchmark.h>

#include <cstring>
#include <vector>

#include "kernels/isa.h"
#include "kernels/tiled_linear/tiled_linear.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace nestling::kernels {
namespace {

void FillBytes(std::vector<uint8_t>* bytes) {
  constexpr size_t kPattern = 4093;
  uint32_t state = 1;
  for (size_t i = 0; i < bytes->size(); ++i) {
    state = state * 1664525u + 1013904223u;
    (*bytes)[i] = i < kPattern ? static_cast<uint8_t>(state >> 24) : (*bytes)[i - kPattern];
  }
}

// One of a kernel's products: its name, its operands' sizes, and how it is called.
struct Product {
  const char* name;
  size_t weight_bits;
  bool block_scaled;
  void (*TiledLinearKernel::*run)(const TiledArgs& args);
};
constexpr Product kProducts[] = {{"Int4", 4, true, &TiledLinearKernel::int4},
                                 {"Int4Channel", 4, false, &TiledLinearKernel::int4_channel},
                                 {"Int8", 8, false, &TiledLinearKernel::int8}};

struct Problem {
  Problem(const TiledLinearKernel& kernel, const Product& product, size_t rows_in, size_t k_in,
          size_t outputs_in)
      : rows(rows_in),
        k(k_in),
        outputs(outputs_in),
        x(rows * k, 0.5f),
        codes(rows * k),
        row_scales(rows),
        offsets(rows * k / 32),
        totals(rows),
        weights(outputs * k * product.weight_bits / 8),
        scales(product.block_scaled ? outputs * k / 16 : outputs * 4),
        out(rows * outputs) {
    FillBytes(&weights);
    for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i % 17) - 8.0f;
    for (size_t r = 0; r < rows; ++r) {
      kernel.quantize(&x[r * k], k, &codes[r * k], &row_scales[r], &offsets[r * k / 32],
                      &totals[r]);
    }
    args = {{codes.data(), row_scales.data(), offsets.data(), totals.data()},
            rows,
            k,
            weights.data(),
            scales.data(),
            0,
            outputs / 16,
            out.data(),
            outputs};
  }
  size_t rows, k, outputs;
  std::vector<float> x;
  std::vector<int8_t> codes;
  std::vector<float> row_scales;
  std::vector<int32_t> offsets, totals;
  std::vector<uint8_t> weights, scales;
  std::vector<float> out;
  TiledArgs args;
};

void Run(benchmark::State& state, const TiledLinearKernel& kernel, const Product& product,
         size_t rows, size_t k, size_t outputs) {
  if ((kernel.needs_isa & ~AvailableIsa()) != 0) {
    state.SkipWithError("not on this CPU");
    return;
  }
  Problem problem(kernel, product, rows, k, outputs);
  for (auto _ : state) {
    (kernel.*product.run)(problem.args);
    benchmark::DoNotOptimize(problem.out.data());
  }
  const double products = static_cast<double>(state.iterations()) * rows * k * outputs;
  state.counters["GOPS"] = benchmark::Counter(2e-9 * products, benchmark::Counter::kIsRate);
  state.counters["weights_GB"] =
      benchmark::Counter(1e-9 * static_cast<double>(state.iterations()) *
                             static_cast<double>(problem.weights.size() + problem.scales.size()),
                         benchmark::Counter::kIsRate);
}

void ReadMemory(benchmark::State& state) {
  std::vector<uint64_t> memory((256 << 20) / 8, 1);
  for (auto _ : state) {
    uint64_t sums[8] = {};
    for (size_t i = 0; i < memory.size(); i += 8) {
      for (size_t j = 0; j < 8; ++j) sums[j] += memory[i + j];
    }
    benchmark::DoNotOptimize(sums);
  }
  state.counters["weights_GB"] = benchmark::Counter(
      1e-9 * static_cast<double>(state.iterations()) * static_cast<double>(memory.size()) * 8,
      benchmark::Counter::kIsRate);
}
BENCHMARK(ReadMemory)->Threads(1)->Threads(2)->UseRealTime();

#if defined(__x86_64__)
__attribute__((target("avx512f,avx512vnni"))) void PeakVnni(benchmark::State& state) {
  if ((AvailableIsa() & kIsaAvx512Vnni) == 0) {
    state.SkipWithError("not on this CPU");
    return;
  }
  constexpr size_t kChains = 16, kSteps = 1024;
  __m512i sums[kChains];
  for (size_t i = 0; i < kChains; ++i) sums[i] = _mm512_set1_epi32(static_cast<int>(i));
  __m512i a = _mm512_set1_epi32(0x01020304), b = _mm512_set1_epi32(0x04030201);
  for (auto _ : state) {
    for (size_t step = 0; step < kSteps; ++step) {
      asm volatile("" : "+v"(a), "+v"(b));
#pragma GCC unroll 16
      for (size_t i = 0; i < kChains; ++i) sums[i] = _mm512_dpbusd_epi32(sums[i], a, b);
    }
    for (size_t i = 0; i < kChains; ++i) asm volatile("" : : "v"(sums[i]));
  }
  state.counters["GOPS"] =
      benchmark::Counter(2e-9 * 64 * kChains * kSteps * static_cast<double>(state.iterations()),
                         benchmark::Counter::kIsRate);
}
BENCHMARK(PeakVnni);
#endif

struct Shape {
  const char* name;
  size_t k, outputs;
};
constexpr Shape kShapes[] = {
    {"gate", 2048, 8192}, {"down", 8192, 2048}, {"q", 2048, 2048}, {"laurel", 2048, 64}};
constexpr Shape kHead = {"head", 2048, 262144};

void Register(const TiledLinearKernel& kernel, const Product& product, const Shape& shape,
              size_t rows, int most_threads) {
  const std::string name =
      std::string(product.name) + "/" + kernel.name + "/" + shape.name + "/" + std::to_string(rows);
  auto* registered = benchmark::RegisterBenchmark(
      name.c_str(), [&kernel, &product, shape, rows](benchmark::State& state) {
        Run(state, kernel, product, rows, shape.k, shape.outputs);
      });
  for (int threads = 1; threads <= most_threads; ++threads) registered->Threads(threads);
  registered->UseRealTime();
}

const int kRegistered = [] {
  for (const TiledLinearKernel* kernel : TiledLinearKernels()) {
    for (const Product& product : kProducts) {
      for (const Shape& shape : kShapes) {
        for (const size_t rows : {1u, 128u}) {
          if (kernel->needs_isa == kIsaNone && rows > 1) continue;
          Register(*kernel, product, shape, rows, /*most_threads=*/1);
        }
      }
      if (kernel->needs_isa != kIsaNone) Register(*kernel, product, kHead, 1, /*most_threads=*/2);
    }
  }
  return 0;
}();

}  // namespace
}  // namespace nestling::kernels

BENCHMARK_MAIN();
