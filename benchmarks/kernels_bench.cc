// SPDX-License-Identifier: Apache-2.0
// Every variant of every kernel table that this CPU can run, at the shapes of Gemma 3n: hidden
// 2048, ffn 8192, head_dim 256, 4 AltUp streams, 4 query heads per kv head, 262400 logits. Rows
// that decode meets once are in the cache here; attention at 4096 keys reads 4 MiB of f16.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <random>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "kernels/altup/altup.h"
#include "kernels/at_least/at_least.h"
#include "kernels/attention/attention.h"
#include "kernels/convert/convert.h"
#include "kernels/gelu_gate/gelu_gate.h"
#include "kernels/isa.h"
#include "kernels/laurel/laurel.h"
#include "kernels/norm_rope/norm_rope.h"
#include "kernels/rms_norm/rms_norm.h"
#include "kernels/softcap/softcap.h"

namespace nestling::kernels {
namespace {

constexpr size_t kHidden = 2048, kFfn = 8192, kHeadDim = 256, kStreams = 4, kVocab = 262400;
constexpr float kEps = 1e-6f;

std::vector<float> RandomFloats(size_t n) {
  std::mt19937 random(1);
  std::uniform_real_distribution<float> uniform(-1.0f, 1.0f);
  std::vector<float> values(n);
  for (float& value : values) value = uniform(random);
  return values;
}

// Registers body(kernel, state) as "<what>/<variant>" for each variant of a table.
template <typename Kernel, typename Body>
void Register(const std::string& what, std::span<const Kernel* const> table, Body body) {
  for (const Kernel* kernel : table) {
    if ((kernel->needs_isa & ~AvailableIsa()) != 0) continue;
    benchmark::RegisterBenchmark((what + "/" + kernel->name).c_str(),
                                 [kernel, body](benchmark::State& state) { body(*kernel, state); });
  }
}

// bytes: what one call reads and writes.
template <typename Call>
void Time(benchmark::State& state, size_t bytes, Call call) {
  for (auto _ : state) {
    call();
    benchmark::ClobberMemory();
  }
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations() * bytes));
}

void RegisterNorms() {
  for (size_t n : {kHidden, kHeadDim}) {
    Register("RmsNorm/" + std::to_string(n), RmsNormKernels(),
             [n](const RmsNormKernel& kernel, benchmark::State& state) {
               const std::vector<float> x = RandomFloats(n), w = RandomFloats(n);
               std::vector<float> y(n);
               Time(state, 3 * n * sizeof(float),
                    [&] { kernel.rms_norm(x.data(), w.data(), y.data(), n, kEps); });
             });
  }
  Register(
      "NormRope/256", NormRopeKernels(), [](const NormRopeKernel& kernel, benchmark::State& state) {
        const std::vector<float> x = RandomFloats(kHeadDim), w = x, cos = x, sin = x;
        std::vector<float> y(kHeadDim);
        Time(state, 4 * kHeadDim * sizeof(float), [&] {
          kernel.norm_rope(x.data(), w.data(), cos.data(), sin.data(), y.data(), kHeadDim, kEps);
        });
      });
  Register("CombineAttentionLaurel/2048", LaurelKernels(),
           [](const LaurelKernel& kernel, benchmark::State& state) {
             const std::vector<float> x = RandomFloats(kHidden), w = x, attn = x, laurel = x;
             std::vector<float> u(kHidden);
             Time(state, 7 * kHidden * sizeof(float), [&] {
               kernel.combine(x.data(), attn.data(), w.data(), x.data(), laurel.data(), w.data(),
                              u.data(), kHidden, kEps);
             });
           });
}

void RegisterAltup() {
  Register(
      "AltupRouter/4x2048", AltupKernels(), [](const AltupKernel& kernel, benchmark::State& state) {
        const std::vector<float> x = RandomFloats(kHidden), w = x,
                                 router = RandomFloats(kStreams * kHidden);
        float modalities[kStreams];
        Time(state, (kStreams + 2) * kHidden * sizeof(float), [&] {
          kernel.router(x.data(), w.data(), router.data(), modalities, kStreams, kHidden, kEps);
        });
      });
  // Coefficients of 0 keep the streams from growing over a million calls.
  const auto streams_of = [](std::vector<float>& rows) {
    std::vector<float*> streams;
    for (size_t k = 0; k < kStreams; ++k) streams.push_back(rows.data() + k * kHidden);
    return streams;
  };
  Register("AltupPredict/4x2048", AltupKernels(),
           [streams_of](const AltupKernel& kernel, benchmark::State& state) {
             std::vector<float> rows = RandomFloats(kStreams * kHidden);
             const std::vector<float*> streams = streams_of(rows);
             const std::vector<float> coefs(kStreams * kStreams, 0.0f);
             Time(state, 2 * kStreams * kHidden * sizeof(float),
                  [&] { kernel.predict(streams.data(), coefs.data(), kStreams, kHidden); });
           });
  Register("AltupCorrect/4x2048", AltupKernels(),
           [streams_of](const AltupKernel& kernel, benchmark::State& state) {
             std::vector<float> rows = RandomFloats(kStreams * kHidden);
             const std::vector<float*> streams = streams_of(rows);
             const std::vector<float> coefs(kStreams, 0.0f), activated = RandomFloats(kHidden),
                                                             scale = activated;
             std::vector<float> gate(kHidden);
             Time(state, (2 * kStreams + 3) * kHidden * sizeof(float), [&] {
               kernel.correct(streams.data(), activated.data(), coefs.data(), kStreams, 0,
                              scale.data(), gate.data(), kHidden);
             });
           });
}

void RegisterActivations() {
  Register("GeluGate/8192", GeluGateKernels(),
           [](const GeluGateKernel& kernel, benchmark::State& state) {
             const std::vector<float> gate = RandomFloats(kFfn), up = RandomFloats(kFfn);
             std::vector<float> out(kFfn);
             Time(state, 3 * kFfn * sizeof(float),
                  [&] { kernel.gelu_gate(gate.data(), up.data(), out.data(), kFfn); });
           });
  Register("GaussianCut/8192", GeluGateKernels(),
           [](const GeluGateKernel& kernel, benchmark::State& state) {
             const std::vector<float> gate = RandomFloats(kFfn);
             Time(state, 2 * kFfn * sizeof(float), [&] {
               const float mean = kernel.sum(gate.data(), kFfn) / kFfn;
               benchmark::DoNotOptimize(kernel.sum_squared_deviation(gate.data(), kFfn, mean));
             });
           });
  Register("SoftCap/262400", SoftCapKernels(),
           [](const SoftCapKernel& kernel, benchmark::State& state) {
             std::vector<float> logits = RandomFloats(kVocab);
             Time(state, 2 * kVocab * sizeof(float),
                  [&] { kernel.soft_cap(logits.data(), kVocab, 30.0f); });
           });
  // The logits of a task of the LM head, none of which is a candidate.
  Register("FindAtLeast/64", AtLeastKernels(),
           [](const AtLeastKernel& kernel, benchmark::State& state) {
             const std::vector<float> logits = RandomFloats(64);
             std::vector<uint32_t> indices(64);
             Time(state, 64 * sizeof(float), [&] {
               benchmark::DoNotOptimize(kernel.find(logits.data(), 64, 2.0f, indices.data()));
             });
           });
}

void RegisterConversions() {
  Register("WidenHalf/2048", ConvertKernels(),
           [](const ConvertKernel& kernel, benchmark::State& state) {
             const std::vector<uint16_t> half(kHidden, 0x3C00);
             std::vector<float> out(kHidden);
             Time(state, kHidden * 6, [&] { kernel.widen_half(half.data(), out.data(), kHidden); });
           });
  Register("NarrowHalf/2048", ConvertKernels(),
           [](const ConvertKernel& kernel, benchmark::State& state) {
             const std::vector<float> x = RandomFloats(kHidden);
             std::vector<uint16_t> half(kHidden);
             Time(state, kHidden * 6, [&] { kernel.narrow_half(x.data(), half.data(), kHidden); });
           });
  Register("QuantizeInt8/2048", ConvertKernels(),
           [](const ConvertKernel& kernel, benchmark::State& state) {
             const std::vector<float> x = RandomFloats(kHidden);
             std::vector<int8_t> codes(kHidden);
             float scale;
             Time(state, kHidden * 5,
                  [&] { kernel.quantize_int8(x.data(), codes.data(), &scale, kHidden); });
           });
  Register("DequantizeInt8/2048", ConvertKernels(),
           [](const ConvertKernel& kernel, benchmark::State& state) {
             const std::vector<int8_t> codes(kHidden, 5);
             std::vector<float> out(kHidden);
             Time(state, kHidden * 5,
                  [&] { kernel.dequantize_int8(codes.data(), 0.5f, out.data(), kHidden); });
           });
  Register("DequantizeInt4Blocks/256", ConvertKernels(),
           [](const ConvertKernel& kernel, benchmark::State& state) {
             const std::vector<uint8_t> nibbles(kHeadDim / 2, 0x5A);
             const std::vector<uint16_t> scales(kHeadDim / kInt4BlockSize, 0x3C00);
             std::vector<float> out(kHeadDim);
             Time(state, kHeadDim * 4 + kHeadDim / 2, [&] {
               kernel.dequantize_int4_blocks(nibbles.data(), scales.data(), 16.0f, out.data(),
                                             kHeadDim);
             });
           });
}

// The last `num_tokens` positions of `num_keys`, 4 query heads each. FLOP counts the visible keys:
// 4 * head_dim per row and key.
void RegisterAttention(size_t num_tokens, size_t num_keys, KvType type, const char* type_name) {
  Register(
      "Attention/tokens:" + std::to_string(num_tokens) + "/keys:" + std::to_string(num_keys) + "/" +
          type_name,
      AttentionKernels(), [=](const AttentionKernel& kernel, benchmark::State& state) {
        const size_t num_rows = 4 * num_tokens;
        const std::vector<float> q = RandomFloats(num_rows * kHeadDim);
        const std::vector<float> values = RandomFloats(num_keys * kHeadDim);
        std::vector<std::byte> k(values.size() * 4), v(values.size() * 4);
        const std::vector<float> scales(num_keys, 0.01f);
        size_t element_bytes = 4;
        if (type == KvType::kF32) {
          std::copy(values.begin(), values.end(), reinterpret_cast<float*>(k.data()));
        } else if (type == KvType::kF16) {
          element_bytes = 2;
          NarrowHalf(values.data(), reinterpret_cast<uint16_t*>(k.data()), values.size());
        } else {
          element_bytes = 1;
          float scale;
          QuantizeInt8(values.data(), reinterpret_cast<int8_t*>(k.data()), &scale, values.size());
        }
        v = k;
        std::vector<float> out(num_rows * kHeadDim),
            scratch(AttentionScratchFloats(num_rows, kHeadDim));
        const std::vector<int64_t> first(num_rows, 0);
        std::vector<int64_t> last(num_rows);
        double visible = 0;
        for (size_t r = 0; r < num_rows; ++r) {
          last[r] = static_cast<int64_t>(num_keys - num_tokens + r / 4);
          visible += static_cast<double>(last[r] + 1);
        }
        const AttentionArgs args = {
            q.data(),
            kHeadDim,
            out.data(),
            kHeadDim,
            num_rows,
            first.data(),
            last.data(),
            {{0, num_keys, k.data(), v.data(), scales.data(), scales.data()}, {}},
            1,
            kHeadDim,
            type,
            1.0f,
            scratch.data()};
        Time(state, 2 * num_keys * kHeadDim * element_bytes, [&] { kernel.attention(args); });
        state.counters["FLOP/s"] =
            benchmark::Counter(4.0 * kHeadDim * visible * static_cast<double>(state.iterations()),
                               benchmark::Counter::kIsRate);
      });
}

void RegisterAll() {
  for (const auto& [type, name] : {std::pair{KvType::kF32, "f32"}, std::pair{KvType::kF16, "f16"},
                                   std::pair{KvType::kInt8, "int8"}}) {
    RegisterAttention(1, 512, type, name);   // decode, sliding window
    RegisterAttention(1, 4096, type, name);  // decode, full attention
    RegisterAttention(16, 512, type, name);  // prefill, a sixteenth of the window at its end
    RegisterAttention(16, 4096, type, name);
    RegisterAttention(64, 512, type, name);
  }
  RegisterNorms();
  RegisterAltup();
  RegisterActivations();
  RegisterConversions();
}

}  // namespace
}  // namespace nestling::kernels

int main(int argc, char** argv) {
  nestling::kernels::RegisterAll();
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
