// SPDX-License-Identifier: Apache-2.0
// Row operations of the audio tower's conformer blocks.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace nestling::kernels {

// No alignment needed; nothing outside the named ranges is touched; sums in f32.

// In place: x[i] = x[i] / (1 + exp(-x[i])), n floats. Error at most 4e-7 * (1 + |x|).
void Silu(float* x, size_t n);

// y[i] = x[i] / (1 + exp(-x[n + i])): the first half of x [2 n], gated by the second. y may equal
// x, else no overlap.
void Glu(const float* x, float* y, size_t n);

// y[i] = sum over t of taps[t * n + i] * x[t * stride + i]: one step of a depthwise convolution
// over time. x [num_taps, n], rows `stride` floats apart, oldest first. y overlaps nothing.
void DepthwiseStep(const float* x, size_t stride, const float* taps, size_t num_taps, float* y,
                   size_t n);

inline constexpr size_t kMaxLocalKeys = 64;

// One query of one head that sees the keys of the last steps. All pointers are borrowed.
struct LocalAttentionArgs {
  const float* q;  // [head_dim]
  const float* k;  // the newest visible key; older ones `stride` floats before one another
  const float* v;  // likewise
  size_t stride;
  const float* positions;  // [num_keys, head_dim] relative position vectors of distance 0, 1, ...,
  size_t position_stride;  // this many floats apart
  size_t num_keys;         // 1 .. kMaxLocalKeys
  size_t head_dim;
  float cap;   // of the scores, > 0
  float* out;  // [head_dim], overlaps nothing
};

// score[d] = cap * tanh(q . (k[d] + positions[d]) / cap) for the key d steps back;
// out = sum_d softmax(score)[d] v[d].
void LocalAttention(const LocalAttentionArgs& args);

struct ConformerKernel {
  const char* name;
  uint32_t needs_isa;
  void (*silu)(float* x, size_t n);
  void (*glu)(const float* x, float* y, size_t n);
  void (*depthwise_step)(const float* x, size_t stride, const float* taps, size_t num_taps,
                         float* y, size_t n);
  void (*local_attention)(const LocalAttentionArgs& args);
};

// Every variant that is compiled in, best first; the last is scalar, the definition of correct.
std::span<const ConformerKernel* const> ConformerKernels();

extern const ConformerKernel kConformerScalar;
extern const ConformerKernel kConformerAvx2;
extern const ConformerKernel kConformerAvx512;
extern const ConformerKernel kConformerNeon;

}  // namespace nestling::kernels
