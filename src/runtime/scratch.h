// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "base/function_ref.h"
#include "base/lazy_memory.h"
#include "base/status.h"
#include "container/header_fields.h"
#include "graph/tiled_ops.h"
#include "runtime/memory_budget.h"

namespace nestling {

// Activations of one running call, for up to `max_tokens` tokens. Shapes in comments; T stands for
// max_tokens. Pages take memory when a step first writes them, so decode touches little.
class Scratch {
 public:
  static Result<std::unique_ptr<Scratch>> Create(const TextConfig& config, size_t max_tokens);
  // capacity_bytes() of what Create would make.
  static uint64_t Bytes(const TextConfig& config, size_t max_tokens);

  float* embedding;      // e [T, hidden]
  float* streams[8];     // AltUp streams, each [T, hidden]
  float* x;              // normed input of the attention and of the FFN [T, hidden]
  float* q;              // [T, heads * head_dim]
  float* k;              // [T, kv_heads * head_dim]
  float* v;              // [T, kv_heads * head_dim]
  float* laurel;         // [T, rank]
  float* attention;      // [T, heads * head_dim]
  float* attention_out;  // [T, hidden]
  float* laurel_out;     // [T, hidden]
  float* u;              // residual around the FFN [T, hidden]
  float* gate;           // shell after shell, each [T, width of the shell]
  float* up;             // likewise; also as large as SparseFfnMemory wants
  // Lists of active neurons, where a layer is sparse; the factors are `up`.
  uint32_t* neurons;
  uint32_t* neuron_starts;
  float* cuts;            // gates of sparse layers pass above [T]
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
  std::span<const std::byte> memory() const { return {memory_.data(), memory_.size()}; }

 private:
  struct Part {
    float** pointer;
    size_t floats;
  };
  Scratch() = default;
  // Sets everything but the pointers, and says what they point to.
  std::vector<Part> Plan(const TextConfig& config, size_t tokens);
  static size_t TotalBytes(const LinearWorkspace& linear, std::span<const Part> parts);

  float* neurons_;  // what the public ones point to, as elements of 4 bytes
  float* neuron_starts_;
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

// The smallest chunk that a shortage of memory can lead to: a verification of drafts is one chunk.
inline constexpr size_t kMinChunkTokens = kExactTokens;

// Scratch memory of finished calls, kept for the next: sessions that do nothing hold none. Under
// pressure it gets smaller, and so do the chunks of the calls that take it. Thread-safe.
class ScratchPool final : public Reclaimer {
 public:
  // `ple_row_bytes`: of one token; two chunks of rows are part of what a call takes.
  ScratchPool(const TextConfig& config, size_t wanted_tokens, uint64_t ple_row_bytes)
      : config_(config),
        wanted_tokens_(wanted_tokens),
        ple_row_bytes_(ple_row_bytes),
        max_tokens_(wanted_tokens) {}

  // Most bytes that a call with chunks of `tokens` takes.
  static uint64_t CallBytes(const TextConfig& config, size_t tokens, uint64_t ple_row_bytes) {
    return Scratch::Bytes(config, tokens) + 2 * tokens * ple_row_bytes;
  }

  // Most tokens of a chunk: those that were wanted, and at the moment.
  size_t wanted_tokens() const { return wanted_tokens_; }
  size_t max_tokens() const;
  // Begins with fewer than wanted.
  void SetMaxTokens(size_t tokens);

  // A session begins or ends: each may run a call at any time.
  void Join();
  void Leave();

  Result<std::unique_ptr<Scratch>> Acquire();
  void Return(std::unique_ptr<Scratch> scratch);
  // Address space of all scratch that exists.
  uint64_t capacity_bytes() const;
  // Calls visit(memory) for the scratch that nobody uses.
  void ForIdle(FunctionRef<void(std::span<const std::byte>)> visit) const;

  // What all sessions would take at once.
  uint64_t held_bytes() const override;
  uint64_t reclaimable_bytes() const override;
  void Reclaim(uint64_t bytes) override;
  void Regrow(uint64_t bytes) override;

 private:
  uint64_t Held(size_t max_tokens) const;
  void DropIdle();
  void Drop(std::unique_ptr<Scratch> scratch);

  const TextConfig& config_;
  const size_t wanted_tokens_;
  const uint64_t ple_row_bytes_;
  mutable std::mutex mutex_;
  size_t max_tokens_;
  size_t num_sessions_ = 0;
  std::vector<std::unique_ptr<Scratch>> idle_;
  std::vector<size_t> leased_;  // max_tokens of each that is in use
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
