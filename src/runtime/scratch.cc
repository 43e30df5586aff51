// SPDX-License-Identifier: Apache-2.0
#include "runtime/scratch.h"

#include <algorithm>
#include <utility>

#include "base/math.h"
#include "kernels/attention/attention.h"

namespace nestling {
namespace {

constexpr size_t kAlignment = 64;
// XNNPACK may read past the end of an input (XNN_EXTRA_BYTES).
constexpr size_t kSlackBytes = 128;

}  // namespace

Result<std::unique_ptr<Scratch>> Scratch::Create(const TextConfig& config, size_t max_tokens) {
  std::unique_ptr<Scratch> scratch(new Scratch);
  const size_t hidden = config.hidden_size, tokens = max_tokens;
  const size_t q_width = size_t{config.num_heads} * config.head_dim;
  const size_t kv_width = size_t{config.num_kv_heads} * config.head_dim;
  size_t ffn = 0;
  for (const LayerConfig& layer : config.layers) ffn = std::max<size_t>(ffn, layer.ffn_width());
  const size_t group = config.num_heads / config.num_kv_heads;
  const size_t tile = AttentionTileTokens(group, tokens);
  // Short chunks have a task for each token.
  const size_t attention_tasks =
      config.num_kv_heads * std::max(DivUp(tokens, tile), std::min(tokens, kExactTokens));
  // A task also gathers its query rows and scatters its outputs.
  scratch->attention_scratch_floats =
      RoundUp(kernels::AttentionScratchFloats(tile * group, config.head_dim) +
                  2 * tile * group * config.head_dim,
              kAlignment / sizeof(float));
  scratch->max_tokens = max_tokens;

  struct Part {
    float** pointer;
    size_t floats;
  };
  std::vector<Part> parts = {
      {&scratch->embedding, tokens * hidden},
      {&scratch->x, tokens * hidden},
      {&scratch->q, tokens * q_width},
      {&scratch->k, tokens * kv_width},
      {&scratch->v, tokens * kv_width},
      {&scratch->laurel, tokens * config.laurel_rank},
      {&scratch->attention, tokens * q_width},
      {&scratch->attention_out, tokens * hidden},
      {&scratch->laurel_out, tokens * hidden},
      {&scratch->u, tokens * hidden},
      {&scratch->gate, tokens * ffn},
      {&scratch->up, tokens * ffn},
      {&scratch->ffn_out, tokens * hidden},
      {&scratch->shell_out, tokens * hidden},
      {&scratch->ple_input, tokens * hidden},
      {&scratch->ple_gate, tokens * config.ple_dim},
      {&scratch->ple_projection, tokens * config.ple_dim},
      {&scratch->ple_row, tokens * config.ple_dim},
      {&scratch->ple_out, tokens * hidden},
      {&scratch->attention_scratch, attention_tasks * scratch->attention_scratch_floats},
  };
  for (uint32_t i = 0; i < config.altup_num_inputs; ++i) {
    parts.push_back({&scratch->streams[i], tokens * hidden});
  }
  for (float** pointer : {&scratch->cos[0], &scratch->cos[1], &scratch->sin[0], &scratch->sin[1]}) {
    parts.push_back({pointer, tokens * config.head_dim / 2});
  }
  // The widest inputs of a block: the FFN's, those of attention_out, of ple_in, of altup_merge.
  const size_t streams = config.altup_num_inputs - 1;
  const size_t widest = std::max({ffn, q_width + config.laurel_rank, 2 * hidden, streams * hidden});
  scratch->linear.bytes = LinearWorkspaceBytes(tokens, widest, std::max<size_t>(streams, 2));
  const auto part_bytes = [](size_t bytes) { return RoundUp(bytes + kSlackBytes, kAlignment); };
  size_t total = part_bytes(scratch->linear.bytes);
  for (const Part& part : parts) total += part_bytes(part.floats * sizeof(float));
  ASSIGN_OR_RETURN(scratch->memory_, LazyMemory::Create(total));
  std::byte* next = scratch->memory_.data();
  scratch->linear.data = next;
  next += part_bytes(scratch->linear.bytes);
  for (const Part& part : parts) {
    *part.pointer = reinterpret_cast<float*>(next);
    next += part_bytes(part.floats * sizeof(float));
  }
  return scratch;
}

Result<std::unique_ptr<Scratch>> ScratchPool::Acquire() {
  {
    const std::lock_guard lock(mutex_);
    if (!idle_.empty()) {
      auto scratch = std::move(idle_.back());
      idle_.pop_back();
      return scratch;
    }
  }
  ASSIGN_OR_RETURN(auto scratch, Scratch::Create(config_, max_tokens_));
  const std::lock_guard lock(mutex_);
  capacity_bytes_ += scratch->capacity_bytes();
  idle_.reserve(idle_.capacity() + 1);  // so that Return cannot run out of memory
  return scratch;
}

void ScratchPool::Return(std::unique_ptr<Scratch> scratch) {
  const std::lock_guard lock(mutex_);
  idle_.push_back(std::move(scratch));
}

uint64_t ScratchPool::capacity_bytes() const {
  const std::lock_guard lock(mutex_);
  return capacity_bytes_;
}

Result<ScratchLease> ScratchLease::Take(ScratchPool& pool) {
  ASSIGN_OR_RETURN(auto scratch, pool.Acquire());
  return ScratchLease(pool, std::move(scratch));
}

ScratchLease::~ScratchLease() {
  if (scratch_ != nullptr) pool_->Return(std::move(scratch_));
}

}  // namespace nestling
