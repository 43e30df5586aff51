// SPDX-License-Identifier: Apache-2.0
#include "graph/sparse_ffn.h"

#include <algorithm>
#include <array>

#include "base/math.h"
#include "base/status.h"
#include "kernels/gelu_gate/gelu_gate.h"

namespace nestling {
namespace {

using kernels::kNeuronBlock;
using kernels::NeuronUse;

kernels::NeuronRows RowsOf(const Matrix& matrix) {
  const auto format = matrix.dtype == DType::kF32   ? kernels::NeuronFormat::kF32
                      : matrix.dtype == DType::kQ8C ? kernels::NeuronFormat::kInt8
                                                    : kernels::NeuronFormat::kInt4;
  const size_t width = matrix.layout == Layout::kNeuronRows ? matrix.in : matrix.out;
  return {format, matrix.data, matrix.scales, width};
}

size_t NumNeurons(const SparseFfn::Call& call) { return call.shells.back().end; }
size_t NumBlocks(size_t neurons) { return DivUp(neurons, kNeuronBlock); }

}  // namespace

size_t SparseFfnMemory::ListElements(size_t tokens, size_t neurons) {
  return tokens * NumBlocks(neurons) * kNeuronBlock;
}

size_t SparseFfnMemory::StartElements(size_t tokens, size_t neurons) {
  return NumBlocks(neurons) * (tokens + 1);
}

SparseFfn::SparseFfn(const Matrix& up, const Matrix& down) : up_(RowsOf(up)), down_(RowsOf(down)) {
  NESTLING_DCHECK(up.layout == Layout::kNeuronRows && down.layout == Layout::kNeuronColumns);
}

void SparseFfn::Run(const ThreadPool& pool, const Call& call) const {
  kernels::NeuronInputs inputs = {.floats = call.x, .codes = {}};
  if (up_.format != kernels::NeuronFormat::kF32) {
    inputs.codes = QuantizeRows(pool, call.num_tokens, up_.width, call.x, call.workspace);
  }
  if (call.num_tokens <= kFewTokens) {
    RunFewTokens(pool, call, inputs);
  } else {
    RunManyTokens(pool, call, inputs);
  }
}

void SparseFfn::RunFewTokens(const ThreadPool& pool, const Call& call,
                             const kernels::NeuronInputs& inputs) const {
  constexpr size_t kPart = 32;  // neurons of a task
  const size_t tokens = call.num_tokens;
  const size_t stride = SparseFfnMemory::ListElements(1, NumNeurons(call));
  std::array<size_t, kFewTokens> counts = {};
  std::array<size_t, kFewTokens + 1> first_part = {};
  for (size_t t = 0; t < tokens; ++t) {
    for (const GateShell& shell : call.shells) {
      const size_t width = shell.end - shell.begin, used = t * stride + counts[t];
      counts[t] += kernels::SelectNeurons(shell.gate + t * width, width, call.cuts[t], shell.begin,
                                          call.memory.neurons + used, call.memory.factors + used);
    }
    first_part[t + 1] = first_part[t] + DivUp(counts[t], kPart);
  }

  pool.ParallelFor(first_part[tokens], [&](size_t part) {
    uint32_t t = 0;
    while (part >= first_part[t + 1]) ++t;
    const size_t begin = (part - first_part[t]) * kPart;
    const size_t count = std::min(kPart, counts[t] - begin);
    const uint32_t* neurons = call.memory.neurons + t * stride + begin;
    float* factors = call.memory.factors + t * stride + begin;
    NeuronUse uses[kPart];
    float dots[kPart];
    for (size_t k = 0; k < count; ++k) uses[k] = {neurons[k], t};
    kernels::NeuronDots(up_, inputs, uses, count, dots);
    kernels::GeluGate(factors, dots, factors, count);
  });

  // Spans of outputs: every output is one sum, however they are cut.
  constexpr size_t kLeastSpan = 256;
  const size_t hidden = down_.width;
  const size_t span =
      std::max(kLeastSpan, RoundUp(DivUp(hidden, pool.num_threads()), size_t{kBlockSize}));
  pool.ParallelFor(tokens * DivUp(hidden, span), [&](size_t task) {
    const size_t t = task % tokens, begin = task / tokens * span;
    kernels::SumNeurons(down_, call.memory.neurons + t * stride, call.memory.factors + t * stride,
                        counts[t], begin, std::min(hidden, begin + span),
                        call.out + t * hidden + begin);
  });
}

void SparseFfn::ComputeBlock(const Call& call, const kernels::NeuronInputs& inputs,
                             size_t block) const {
  // Tokens together until this many elements: sorted by neuron, they share the reading of rows.
  constexpr size_t kSorted = 1024;
  const size_t tokens = call.num_tokens, list = block * kNeuronBlock * tokens;
  const size_t block_begin = block * kNeuronBlock, block_end = block_begin + kNeuronBlock;
  uint32_t* const starts = call.memory.starts + block * (tokens + 1);
  uint32_t* const neurons = call.memory.neurons + list;
  float* const factors = call.memory.factors + list;
  NeuronUse uses[kSorted];
  uint32_t places[kSorted];
  float sorted[kSorted], dots[kSorted];

  size_t done = 0, count = 0, first_token = 0;
  const auto finish = [&](size_t end_token) {
    // A counting sort of the elements [done, count).
    std::array<uint32_t, kNeuronBlock + 1> next = {};
    for (size_t k = done; k < count; ++k) ++next[neurons[k] - block_begin + 1];
    for (size_t n = 0; n < kNeuronBlock; ++n) next[n + 1] += next[n];
    for (size_t t = first_token; t < end_token; ++t) {
      const size_t end = t + 1 == end_token ? count : starts[t + 1];
      for (size_t k = starts[t]; k < end; ++k) {
        const uint32_t place = next[neurons[k] - block_begin]++;
        uses[place] = {neurons[k], static_cast<uint32_t>(t)};
        places[place] = static_cast<uint32_t>(k - done);
      }
    }
    kernels::NeuronDots(up_, inputs, uses, count - done, sorted);
    for (size_t i = 0; i < count - done; ++i) dots[places[i]] = sorted[i];
    kernels::GeluGate(factors + done, dots, factors + done, count - done);
    done = count;
    first_token = end_token;
  };
  for (size_t t = 0; t < tokens; ++t) {
    if (count - done + kNeuronBlock > kSorted) finish(t);
    starts[t] = static_cast<uint32_t>(count);
    for (const GateShell& shell : call.shells) {
      const size_t begin = std::max<size_t>(block_begin, shell.begin);
      const size_t end = std::min<size_t>(block_end, shell.end);
      if (begin >= end) continue;
      const float* gate = shell.gate + t * (shell.end - shell.begin) + (begin - shell.begin);
      count += kernels::SelectNeurons(gate, end - begin, call.cuts[t], static_cast<uint32_t>(begin),
                                      neurons + count, factors + count);
    }
  }
  finish(tokens);
  starts[tokens] = static_cast<uint32_t>(count);
}

void SparseFfn::RunManyTokens(const ThreadPool& pool, const Call& call,
                              const kernels::NeuronInputs& inputs) const {
  const size_t blocks = NumBlocks(NumNeurons(call));
  pool.ParallelFor(blocks, [&](size_t block) { ComputeBlock(call, inputs, block); });
  constexpr size_t kSpan = 128;
  pool.ParallelFor(DivUp(down_.width, kSpan), [&](size_t task) {
    const size_t begin = task * kSpan;
    kernels::SumNeuronsOfTokens({down_, call.num_tokens, blocks, call.memory.starts,
                                 call.memory.neurons, call.memory.factors,
                                 kNeuronBlock * call.num_tokens, begin,
                                 std::min(down_.width, begin + kSpan), call.out});
  });
}

}  // namespace nestling
