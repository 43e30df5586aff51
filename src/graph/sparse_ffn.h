// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/thread_pool.h"
#include "graph/tiled_ops.h"
#include "kernels/sparse_ffn/sparse_ffn.h"
#include "model/weights.h"

namespace nestling {

// Memory of one call, for up to `tokens` tokens and `neurons` neurons; belongs to the caller.
struct SparseFfnMemory {
  uint32_t* neurons;  // [ListElements]
  float* factors;     // [ListElements]
  uint32_t* starts;   // [StartElements]

  static size_t ListElements(size_t tokens, size_t neurons);
  static size_t StartElements(size_t tokens, size_t neurons);
};

// A shell of the gate's outputs: neurons [begin, end), [tokens, end - begin].
struct GateShell {
  const float* gate;
  uint32_t begin;
  uint32_t end;
};

// Up and down projection of a layer whose gate lets few neurons pass. Both lie by neuron and are
// read in place: only what an active neuron needs is touched. Any number of neurons may be active;
// with more than about one in five in a chunk, one in four for a token, dense operators would be
// faster.
class SparseFfn {
 public:
  // Chunks of so many tokens and fewer: what is computed for a token does not depend on the others,
  // to the bit.
  static constexpr size_t kFewTokens = 16;

  // The matrices' bytes are borrowed.
  SparseFfn(const Matrix& up, const Matrix& down);

  struct Call {
    size_t num_tokens;
    const float* x;                     // [tokens, hidden]
    std::span<const GateShell> shells;  // of the slice, in order
    const float* cuts;                  // [tokens]
    SparseFfnMemory memory;
    LinearWorkspace workspace;  // for one input of `hidden` channels
    float* out;                 // [tokens, hidden]
  };
  // out = sum over the neurons with gate > cut of gelu(gate - cut) * (up . x) * down. Thread-safe.
  void Run(const ThreadPool& pool, const Call& call) const;

 private:
  void RunFewTokens(const ThreadPool& pool, const Call& call,
                    const kernels::NeuronInputs& inputs) const;
  void RunManyTokens(const ThreadPool& pool, const Call& call,
                     const kernels::NeuronInputs& inputs) const;
  // Fills the list of a block of neurons and its factors.
  void ComputeBlock(const Call& call, const kernels::NeuronInputs& inputs, size_t block) const;

  kernels::NeuronRows up_;
  kernels::NeuronRows down_;
};

}  // namespace nestling
