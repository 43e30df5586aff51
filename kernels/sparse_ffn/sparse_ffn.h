// SPDX-License-Identifier: Apache-2.0
// The feed-forward network of layers with few active neurons: y = sum over the active neurons n of
// gelu(gate[n]) * (up[n] . x) * down[n]. Both matrices lie neuron after neuron
// (container/FORMAT.md, layout "neurons"), so that neurons which are not active are never read.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "kernels/tiled_linear/tiled_linear.h"

namespace nestling::kernels {

enum class NeuronFormat {
  kF32,   // floats
  kInt8,  // int8 codes, -127..127; one f32 scale a row
  kInt4,  // 4-bit codes with zero point 8; a bf16 scale per block of 32: byte i of a block's 16
          // holds the elements i (low half) and i + 16 (high half)
};

// One vector of `width` elements per neuron: its row of the up projection, its column of the down
// projection. width is a multiple of 32, but for kF32.
struct NeuronRows {
  NeuronFormat format;
  const void* codes;
  const void* scales;  // kInt8: [neurons]; kInt4: [neurons, width / 32]
  size_t width;
};

// Appends the i < n with gate[i] > cut: neurons[k] = first + i, values[k] = gate[i] - cut, in
// ascending order. Returns how many; both outputs have room for n and hold anything beyond.
size_t SelectNeurons(const float* gate, size_t n, float cut, uint32_t first, uint32_t* neurons,
                     float* values);

// The inputs of several tokens; kF32 rows read the floats, the others the codes.
struct NeuronInputs {
  const float* floats;    // [tokens, width]
  QuantizedInputs codes;  // of k = width
};

struct NeuronUse {
  uint32_t neuron;
  uint32_t token;
};

// out[i] = rows[uses[i].neuron] . x[uses[i].token]. Neighbours that use one neuron share the work
// of reading it; the result does not depend on the neighbours, to the bit.
void NeuronDots(const NeuronRows& rows, const NeuronInputs& x, const NeuronUse* uses, size_t count,
                float* out);

// out[j - begin] = sum_k factors[k] * rows[neurons[k]][j] for begin <= j < end. Every element is
// added up in the order of k, whatever the span. begin and end are multiples of 32, or the width.
void SumNeurons(const NeuronRows& rows, const uint32_t* neurons, const float* factors, size_t count,
                size_t begin, size_t end, float* out);

// Neurons that SumNeuronsOfTokens unpacks at a time.
inline constexpr size_t kNeuronBlock = 64;

// The same for many tokens: rows are unpacked once for all of them.
struct NeuronSums {
  NeuronRows rows;
  size_t num_tokens;
  size_t num_blocks;  // of kNeuronBlock neurons
  // [num_blocks, num_tokens + 1]: the elements from starts[b][t] to starts[b][t + 1] of block b's
  // list are token t's. The list begins at b * block_stride: neurons ascending, their factors.
  const uint32_t* starts;
  const uint32_t* neurons;
  const float* factors;
  size_t block_stride;
  size_t begin;  // outputs, as of SumNeurons
  size_t end;
  float* out;  // [tokens, width]; only the outputs [begin, end) are written
};
void SumNeuronsOfTokens(const NeuronSums& sums);

struct SparseFfnKernel {
  const char* name;
  uint32_t needs_isa;
  size_t (*select)(const float* gate, size_t n, float cut, uint32_t first, uint32_t* neurons,
                   float* values);
  void (*dots)(const NeuronRows& rows, const NeuronInputs& x, const NeuronUse* uses, size_t count,
               float* out);
  void (*sum)(const NeuronRows& rows, const uint32_t* neurons, const float* factors, size_t count,
              size_t begin, size_t end, float* out);
  void (*sum_of_tokens)(const NeuronSums& sums);
};

// Best first, the scalar definition of correct last.
std::span<const SparseFfnKernel* const> SparseFfnKernels();

extern const SparseFfnKernel kSparseFfnScalar;
extern const SparseFfnKernel kSparseFfnAvx2;
extern const SparseFfnKernel kSparseFfnAvx512vnni;
extern const SparseFfnKernel kSparseFfnNeondot;

}  // namespace nestling::kernels
