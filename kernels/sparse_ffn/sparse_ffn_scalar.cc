// SPDX-License-Identifier: Apache-2.0
#include "kernels/isa.h"
#include "kernels/sparse_ffn/sparse_ffn.h"

namespace nestling::kernels {
namespace {

constexpr size_t kBlock = 32;

float Bf16(uint16_t bits) {
  const uint32_t wide = static_cast<uint32_t>(bits) << 16;
  float value;
  __builtin_memcpy(&value, &wide, sizeof value);
  return value;
}

int Nibble(const uint8_t* row, size_t i) {
  const int pair = row[i / kBlock * 16 + i % 16];
  return i % kBlock < 16 ? pair & 15 : pair >> 4;
}

// Element i of a neuron's row.
float Element(const NeuronRows& rows, size_t neuron, size_t i) {
  const size_t index = neuron * rows.width + i;
  switch (rows.format) {
    case NeuronFormat::kF32:
      return static_cast<const float*>(rows.codes)[index];
    case NeuronFormat::kInt8:
      return static_cast<float>(static_cast<const int8_t*>(rows.codes)[index]) *
             static_cast<const float*>(rows.scales)[neuron];
    case NeuronFormat::kInt4: {
      const auto* row = static_cast<const uint8_t*>(rows.codes) + neuron * rows.width / 2;
      return static_cast<float>(Nibble(row, i) - 8) *
             Bf16(static_cast<const uint16_t*>(rows.scales)[index / kBlock]);
    }
  }
  return 0.0f;
}

size_t SelectScalar(const float* gate, size_t n, float cut, uint32_t first, uint32_t* neurons,
                    float* values) {
  size_t count = 0;
  for (size_t i = 0; i < n; ++i) {
    if (!(gate[i] > cut)) continue;
    neurons[count] = first + static_cast<uint32_t>(i);
    values[count++] = gate[i] - cut;
  }
  return count;
}

float DotF32(const NeuronRows& rows, const NeuronInputs& x, NeuronUse use) {
  const float* row = static_cast<const float*>(rows.codes) + use.neuron * rows.width;
  const float* inputs = x.floats + use.token * rows.width;
  float sum = 0.0f;
  for (size_t i = 0; i < rows.width; ++i) sum += row[i] * inputs[i];
  return sum;
}

float DotInt8(const NeuronRows& rows, const NeuronInputs& x, NeuronUse use) {
  const int8_t* row = static_cast<const int8_t*>(rows.codes) + use.neuron * rows.width;
  const int8_t* inputs = x.codes.codes + use.token * rows.width;
  int32_t sum = 0;
  for (size_t i = 0; i < rows.width; ++i) sum += row[i] * inputs[i];
  return static_cast<float>(sum) *
         (static_cast<const float*>(rows.scales)[use.neuron] * x.codes.scales[use.token]);
}

float DotInt4(const NeuronRows& rows, const NeuronInputs& x, NeuronUse use) {
  const size_t blocks = rows.width / kBlock;
  const auto* row = static_cast<const uint8_t*>(rows.codes) + use.neuron * rows.width / 2;
  const auto* scales = static_cast<const uint16_t*>(rows.scales) + use.neuron * blocks;
  const int8_t* inputs = x.codes.codes + use.token * rows.width;
  float sum = 0.0f;
  for (size_t b = 0; b < blocks; ++b) {
    int32_t products = x.codes.offsets[use.token * blocks + b];
    for (size_t i = b * kBlock; i < (b + 1) * kBlock; ++i) products += Nibble(row, i) * inputs[i];
    sum += static_cast<float>(products) * Bf16(scales[b]);
  }
  return sum * x.codes.scales[use.token];
}

void DotsScalar(const NeuronRows& rows, const NeuronInputs& x, const NeuronUse* uses, size_t count,
                float* out) {
  const auto dot = rows.format == NeuronFormat::kF32    ? DotF32
                   : rows.format == NeuronFormat::kInt8 ? DotInt8
                                                        : DotInt4;
  for (size_t i = 0; i < count; ++i) out[i] = dot(rows, x, uses[i]);
}

void SumScalar(const NeuronRows& rows, const uint32_t* neurons, const float* factors, size_t count,
               size_t begin, size_t end, float* out) {
  for (size_t j = begin; j < end; ++j) {
    float sum = 0.0f;
    for (size_t k = 0; k < count; ++k) sum += factors[k] * Element(rows, neurons[k], j);
    out[j - begin] = sum;
  }
}

void SumOfTokensScalar(const NeuronSums& sums) {
  for (size_t t = 0; t < sums.num_tokens; ++t) {
    for (size_t j = sums.begin; j < sums.end; ++j) {
      float sum = 0.0f;
      for (size_t b = 0; b < sums.num_blocks; ++b) {
        const uint32_t* starts = sums.starts + b * (sums.num_tokens + 1);
        for (size_t k = starts[t]; k < starts[t + 1]; ++k) {
          const size_t entry = b * sums.block_stride + k;
          sum += sums.factors[entry] * Element(sums.rows, sums.neurons[entry], j);
        }
      }
      sums.out[t * sums.rows.width + j] = sum;
    }
  }
}

}  // namespace

const SparseFfnKernel kSparseFfnScalar = {"scalar",    kIsaNone,   &SelectScalar,
                                          &DotsScalar, &SumScalar, &SumOfTokensScalar};

}  // namespace nestling::kernels
