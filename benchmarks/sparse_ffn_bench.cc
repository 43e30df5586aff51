// SPDX-License-Identifier: Apache-2.0
// Up and down projection of a sparse layer of Gemma 3n E2B: only the active neurons, beside the
// whole matrices in tiles, in the same run. One thread. The argument is how many neurons of 1000
// are active for a token, chosen independently; the model has 50. Layers take turns, so that
// weights come from memory as they do in a model.
#include <benchmark/benchmark.h>

#include <random>
#include <string>
#include <vector>

#include "base/aligned_buffer.h"
#include "kernels/isa.h"
#include "kernels/sparse_ffn/sparse_ffn.h"
#include "kernels/tiled_linear/tiled_linear.h"

namespace nestling::kernels {
namespace {

constexpr size_t kHidden = 2048, kNeurons = 8192, kLayers = 8;
constexpr size_t kBlocks = kNeurons / kNeuronBlock;
constexpr size_t kElements = kHidden * kNeurons;

// 4-bit weights of all layers, of one projection.
struct Weights {
  Weights()
      : codes(AlignedBuffer<uint8_t>::Create(kLayers * kElements / 2).value()),
        scales(AlignedBuffer<uint16_t>::Create(kLayers * kElements / 32).value()) {
    std::mt19937 random(1);
    for (size_t i = 0; i < codes.size(); ++i) codes.data()[i] = static_cast<uint8_t>(random());
    for (size_t i = 0; i < scales.size(); ++i) scales.data()[i] = 0x3c00;
  }
  NeuronRows Layer(size_t layer) const {
    return {NeuronFormat::kInt4, &codes.data()[layer * kElements / 2],
            &scales.data()[layer * kElements / 32], kHidden};
  }
  AlignedBuffer<uint8_t> codes;
  AlignedBuffer<uint16_t> scales;
};

const Weights& Up() {
  static const Weights weights;
  return weights;
}
const Weights& Down() {
  static const Weights weights;
  return weights;
}

// A chunk's inputs, quantised, and lists of its active neurons.
struct Chunk {
  Chunk(size_t num_tokens, size_t active_of_1000, size_t width)
      : tokens(num_tokens),
        floats(tokens * width),
        codes(tokens * width),
        scales(tokens),
        offsets(tokens * width / 32),
        totals(tokens),
        starts(kBlocks * (tokens + 1)),
        neurons(tokens * kNeurons),
        factors(tokens * kNeurons, 0.5f),
        out(tokens * kNeurons) {
    std::mt19937 random(2);
    std::normal_distribution<float> normal;
    for (float& value : floats) value = normal(random);
    for (size_t t = 0; t < tokens; ++t) {
      QuantizeInputs(&floats[t * width], width, &codes[t * width], &scales[t],
                     &offsets[t * width / 32], &totals[t]);
    }
    std::vector<std::vector<NeuronUse>> by_neuron(kNeurons);
    uint32_t count = 0;
    for (uint32_t b = 0; b < kBlocks; ++b) {
      if (tokens > 1) count = 0;  // a single token has one list
      for (uint32_t t = 0; t < tokens; ++t) {
        for (uint32_t n = b * kNeuronBlock; n < (b + 1) * kNeuronBlock; ++n) {
          if (random() % 1000 >= active_of_1000) continue;
          neurons[(tokens > 1 ? b * kNeuronBlock * tokens : 0) + count++] = n;
          by_neuron[n].push_back({n, t});
        }
        starts[b * (tokens + 1) + t + 1] = count;
      }
    }
    for (const auto& list : by_neuron) uses.insert(uses.end(), list.begin(), list.end());
    dots.resize(uses.size() + 1);
  }
  QuantizedInputs quantized() const {
    return {codes.data(), scales.data(), offsets.data(), totals.data()};
  }

  size_t tokens;
  std::vector<float> floats;
  std::vector<int8_t> codes;
  std::vector<float> scales;
  std::vector<int32_t> offsets, totals;
  std::vector<uint32_t> starts, neurons;
  std::vector<float> factors, out, dots;
  std::vector<NeuronUse> uses;
};

bool Missing(benchmark::State& state, uint32_t needs_isa) {
  if ((needs_isa & ~AvailableIsa()) == 0) return false;
  state.SkipWithError("not on this CPU");
  return true;
}

void Sparse(benchmark::State& state, const SparseFfnKernel& kernel, size_t tokens, bool up,
            bool down) {
  if (Missing(state, kernel.needs_isa)) return;
  Chunk chunk(tokens, static_cast<size_t>(state.range(0)), kHidden);
  const Weights &up_weights = Up(), &down_weights = Down();
  size_t layer = 0;
  for (auto _ : state) {
    layer = (layer + 1) % kLayers;
    if (up) {
      kernel.dots(up_weights.Layer(layer), {chunk.floats.data(), chunk.quantized()},
                  chunk.uses.data(), chunk.uses.size(), chunk.dots.data());
    }
    if (!down) continue;
    if (tokens == 1) {
      kernel.sum(down_weights.Layer(layer), chunk.neurons.data(), chunk.factors.data(),
                 chunk.uses.size(), 0, kHidden, chunk.out.data());
    } else {
      kernel.sum_of_tokens({down_weights.Layer(layer), tokens, kBlocks, chunk.starts.data(),
                            chunk.neurons.data(), chunk.factors.data(), kNeuronBlock * tokens, 0,
                            kHidden, chunk.out.data()});
    }
    benchmark::DoNotOptimize(chunk.out.data());
  }
}

void Dense(benchmark::State& state, const TiledLinearKernel& kernel, size_t tokens, bool up,
           bool down) {
  if (Missing(state, kernel.needs_isa)) return;
  Chunk wide(tokens, 0, kHidden), narrow(tokens, 0, kNeurons);
  const Weights &up_weights = Up(), &down_weights = Down();
  size_t layer = 0;
  const auto run = [&](const Weights& weights, Chunk& chunk, size_t k, size_t outputs) {
    kernel.int4({chunk.quantized(), tokens, k, &weights.codes.data()[layer * kElements / 2],
                 &weights.scales.data()[layer * kElements / 32], 0, outputs / kTileOutputs,
                 chunk.out.data(), outputs});
  };
  for (auto _ : state) {
    layer = (layer + 1) % kLayers;
    if (up) run(up_weights, wide, kHidden, kNeurons);
    if (down) run(down_weights, narrow, kNeurons, kHidden);
    benchmark::DoNotOptimize(wide.out.data());
  }
}

const int kRegistered = [] {
  for (const size_t tokens : {1u, 128u}) {
    for (const char* part : {"up", "down", "both"}) {
      const bool up = part[0] != 'd', down = part[0] != 'u';
      const auto name = [&](const char* kind, const char* variant) {
        return std::string(kind) + "/" + variant + "/" + part + "/tokens:" + std::to_string(tokens);
      };
      for (const SparseFfnKernel* kernel : SparseFfnKernels()) {
        if (kernel->needs_isa == kIsaNone) continue;
        auto* sparse = benchmark::RegisterBenchmark(
            name("Sparse", kernel->name).c_str(),
            [=](benchmark::State& state) { Sparse(state, *kernel, tokens, up, down); });
        sparse->Unit(benchmark::kMicrosecond)->Arg(50);
        if (up && down) sparse->Arg(100)->Arg(200)->Arg(400)->Arg(1000);
      }
      for (const TiledLinearKernel* kernel : TiledLinearKernels()) {
        if (kernel->needs_isa == kIsaNone) continue;
        benchmark::RegisterBenchmark(
            name("Dense", kernel->name).c_str(),
            [=](benchmark::State& state) { Dense(state, *kernel, tokens, up, down); })
            ->Unit(benchmark::kMicrosecond);
      }
    }
  }
  return 0;
}();

}  // namespace
}  // namespace nestling::kernels

BENCHMARK_MAIN();
