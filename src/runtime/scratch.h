// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "base/lazy_memory.h"
#include "base/status.h"
#include "container/header_fields.h"
#include "graph/tiled_ops.h"

namespace nestling {

// Activations of one running call, for up to `max_tokens` tokens. Shapes in comments; T stands for
// max_tokens. Pages take memory when a step first writes them, so decode touches little.
class Scratch {
 public:
  static Result<std::unique_ptr<Scratch>> Create(const TextConfig& config, size_t max_tokens);

  float* embedding;       // e [T, hidden]
  float* streams[8];      // AltUp streams, each [T, hidden]
  float* x;               // normed input of the attention and of the FFN [T, hidden]
  float* q;               // [T, heads * head_dim]
  float* k;               // [T, kv_heads * head_dim]
  float* v;               // [T, kv_heads * head_dim]
  float* laurel;          // [T, rank]
  float* attention;       // [T, heads * head_dim]
  float* attention_out;   // [T, hidden]
  float* laurel_out;      // [T, hidden]
  float* u;               // residual around the FFN [T, hidden]
  float* gate;            // shell after shell, each [T, width of the shell]
  float* up;              // likewise
  float* ffn_out;         // [T, hidden]
  float* shell_out;       // [T, hidden]
  float* ple_input;       // z [T, hidden]
  float* ple_gate;        // [T, ple_dim]
  float* ple_projection;  // [T, ple_dim]
  float* ple_row;         // one layer's span of the PLE rows [T, ple_dim]
  float* ple_out;         // [T, hidden]
  float* cos[2];          // by LayerType, [T, head_dim / 2]
  float* sin[2];
  LinearWorkspace linear;           // of one block at a time
  float* attention_scratch;         // one task after another
  size_t attention_scratch_floats;  // of one task
  size_t max_tokens;

  uint64_t capacity_bytes() const { return memory_.size(); }

 private:
  Scratch() = default;
  LazyMemory memory_;
};

// Query rows of one attention task: tokens are tiled so that a task has about this many.
inline constexpr size_t kAttentionRows = 64;

// Chunks of so many tokens and fewer give every token the same logits to the bit, however they are
// cut: speculative decoding verifies what decode would have said. Attention is what needs care: it
// adds up in blocks of keys, which begin at the first key that a task's first token sees.
inline constexpr size_t kExactTokens = 16;

// Tokens of one attention task in a chunk of `rows` of a model with `group` query heads per kv
// head.
inline size_t AttentionTileTokens(size_t group, size_t rows) {
  return group >= kAttentionRows || rows <= kExactTokens ? 1 : kAttentionRows / group;
}

// Scratch memory of finished calls, kept for the next: sessions that do nothing hold none.
class ScratchPool {
 public:
  ScratchPool(const TextConfig& config, size_t max_tokens)
      : config_(config), max_tokens_(max_tokens) {}

  Result<std::unique_ptr<Scratch>> Acquire();
  void Return(std::unique_ptr<Scratch> scratch);
  // Address space of all scratch made so far.
  uint64_t capacity_bytes() const;

 private:
  const TextConfig& config_;
  const size_t max_tokens_;
  mutable std::mutex mutex_;
  std::vector<std::unique_ptr<Scratch>> idle_;
  uint64_t capacity_bytes_ = 0;
};

// Holds scratch for the time of one call.
class ScratchLease {
 public:
  static Result<ScratchLease> Take(ScratchPool& pool);
  ScratchLease(ScratchLease&&) = default;
  ~ScratchLease();

  Scratch& operator*() const { return *scratch_; }
  Scratch* operator->() const { return scratch_.get(); }

 private:
  ScratchLease(ScratchPool& pool, std::unique_ptr<Scratch> scratch)
      : pool_(&pool), scratch_(std::move(scratch)) {}
  ScratchPool* pool_;
  std::unique_ptr<Scratch> scratch_;
};

}  // namespace nestling
