// SPDX-License-Identifier: Apache-2.0
#include "runtime/scratch.h"

#include <algorithm>
#include <utility>

#include "base/math.h"
#include "graph/sparse_ffn.h"
#include "kernels/attention/attention.h"

namespace nestling {
namespace {

constexpr size_t kAlignment = 64;
// XNNPACK may read past the end of an input (XNN_EXTRA_BYTES).
constexpr size_t kSlackBytes = 128;

size_t PartBytes(size_t bytes) { return RoundUp(bytes + kSlackBytes, kAlignment); }

}  // namespace

std::vector<Scratch::Part> Scratch::Plan(const TextConfig& config, size_t tokens) {
  const size_t hidden = config.hidden_size;
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
  attention_scratch_floats =
      RoundUp(kernels::AttentionScratchFloats(tile * group, config.head_dim) +
                  2 * tile * group * config.head_dim,
              kAlignment / sizeof(float));
  max_tokens = tokens;

  const bool sparse =
      std::any_of(config.layers.begin(), config.layers.end(),
                  [](const LayerConfig& layer) { return layer.activation_sparsity > 0; });
  const size_t list = sparse ? SparseFfnMemory::ListElements(tokens, ffn) : 0;
  std::vector<Part> parts = {
      {&embedding, tokens * hidden},
      {&x, tokens * hidden},
      {&q, tokens * q_width},
      {&k, tokens * kv_width},
      {&v, tokens * kv_width},
      {&laurel, tokens * config.laurel_rank},
      {&attention, tokens * q_width},
      {&attention_out, tokens * hidden},
      {&laurel_out, tokens * hidden},
      {&u, tokens * hidden},
      {&gate, tokens * ffn},
      {&up, std::max(tokens * ffn, list)},
      {&neurons_, list},
      {&neuron_starts_, sparse ? SparseFfnMemory::StartElements(tokens, ffn) : 0},
      {&cuts, tokens},
      {&ffn_out, tokens * hidden},
      {&shell_out, tokens * hidden},
      {&ple_input, tokens * hidden},
      {&ple_gate, tokens * config.ple_dim},
      {&ple_projection, tokens * config.ple_dim},
      {&ple_row, tokens * config.ple_dim},
      {&ple_out, tokens * hidden},
      {&attention_scratch, attention_tasks * attention_scratch_floats},
  };
  for (uint32_t i = 0; i < config.altup_num_inputs; ++i) {
    parts.push_back({&streams[i], tokens * hidden});
  }
  for (float** pointer : {&cos[0], &cos[1], &sin[0], &sin[1]}) {
    parts.push_back({pointer, tokens * config.head_dim / 2});
  }
  // The widest inputs of a block: the FFN's, those of attention_out, of ple_in, of altup_merge.
  const size_t num_merged = config.altup_num_inputs - 1;
  const size_t widest =
      std::max({ffn, q_width + config.laurel_rank, 2 * hidden, num_merged * hidden});
  linear.bytes = LinearWorkspaceBytes(tokens, widest, std::max<size_t>(num_merged, 2));
  return parts;
}

size_t Scratch::TotalBytes(const LinearWorkspace& linear, std::span<const Part> parts) {
  size_t total = PartBytes(linear.bytes);
  for (const Part& part : parts) total += PartBytes(part.floats * sizeof(float));
  return total;
}

uint64_t Scratch::Bytes(const TextConfig& config, size_t max_tokens) {
  Scratch scratch;
  const std::vector<Part> parts = scratch.Plan(config, max_tokens);
  return TotalBytes(scratch.linear, parts);
}

Result<std::unique_ptr<Scratch>> Scratch::Create(const TextConfig& config, size_t max_tokens) {
  std::unique_ptr<Scratch> scratch(new Scratch);
  const std::vector<Part> parts = scratch->Plan(config, max_tokens);
  ASSIGN_OR_RETURN(scratch->memory_, LazyMemory::Create(TotalBytes(scratch->linear, parts)));
  std::byte* next = scratch->memory_.data();
  scratch->linear.data = next;
  next += PartBytes(scratch->linear.bytes);
  for (const Part& part : parts) {
    *part.pointer = reinterpret_cast<float*>(next);
    next += PartBytes(part.floats * sizeof(float));
  }
  scratch->neurons = reinterpret_cast<uint32_t*>(scratch->neurons_);
  scratch->neuron_starts = reinterpret_cast<uint32_t*>(scratch->neuron_starts_);
  return scratch;
}

Result<std::unique_ptr<Scratch>> ScratchPool::Acquire() {
  size_t tokens = 0;
  {
    const std::lock_guard lock(mutex_);
    leased_.reserve(leased_.size() + idle_.size() + 1);
    while (!idle_.empty()) {
      auto scratch = std::move(idle_.back());
      idle_.pop_back();
      if (scratch->max_tokens == max_tokens_) {
        leased_.push_back(scratch->max_tokens);
        return scratch;
      }
      Drop(std::move(scratch));
    }
    tokens = max_tokens_;
    leased_.push_back(tokens);
    idle_.reserve(leased_.size());  // so that Return cannot run out of memory
  }
  Result<std::unique_ptr<Scratch>> scratch = Scratch::Create(config_, tokens);
  const std::lock_guard lock(mutex_);
  if (scratch.ok()) {
    capacity_bytes_ += (*scratch)->capacity_bytes();
  } else {
    leased_.erase(std::find(leased_.begin(), leased_.end(), tokens));
  }
  return scratch;
}

void ScratchPool::Return(std::unique_ptr<Scratch> scratch) {
  const std::lock_guard lock(mutex_);
  leased_.erase(std::find(leased_.begin(), leased_.end(), scratch->max_tokens));
  if (scratch->max_tokens == max_tokens_) {
    idle_.push_back(std::move(scratch));
  } else {
    Drop(std::move(scratch));
  }
}

void ScratchPool::Drop(std::unique_ptr<Scratch> scratch) {
  capacity_bytes_ -= scratch->capacity_bytes();
}

void ScratchPool::DropIdle() {
  while (!idle_.empty()) {
    Drop(std::move(idle_.back()));
    idle_.pop_back();
  }
}

size_t ScratchPool::max_tokens() const {
  const std::lock_guard lock(mutex_);
  return max_tokens_;
}

void ScratchPool::SetMaxTokens(size_t tokens) {
  const std::lock_guard lock(mutex_);
  max_tokens_ = tokens;
  DropIdle();
}

void ScratchPool::Join() {
  const std::lock_guard lock(mutex_);
  ++num_sessions_;
}

void ScratchPool::Leave() {
  const std::lock_guard lock(mutex_);
  --num_sessions_;
  while (!idle_.empty() && idle_.size() + leased_.size() > num_sessions_) {
    Drop(std::move(idle_.back()));
    idle_.pop_back();
  }
}

uint64_t ScratchPool::capacity_bytes() const {
  const std::lock_guard lock(mutex_);
  return capacity_bytes_;
}

void ScratchPool::ForIdle(FunctionRef<void(std::span<const std::byte>)> visit) const {
  const std::lock_guard lock(mutex_);
  for (const std::unique_ptr<Scratch>& scratch : idle_) visit(scratch->memory());
}

uint64_t ScratchPool::Held(size_t max_tokens) const {
  const auto bytes = [&](size_t tokens) { return CallBytes(config_, tokens, ple_row_bytes_); };
  uint64_t held = num_sessions_ * bytes(max_tokens);
  for (const size_t tokens : leased_) {  // calls that run end as they began
    if (tokens > max_tokens) held += bytes(tokens) - bytes(max_tokens);
  }
  return held;
}

uint64_t ScratchPool::held_bytes() const {
  const std::lock_guard lock(mutex_);
  return Held(max_tokens_);
}

uint64_t ScratchPool::reclaimable_bytes() const {
  const std::lock_guard lock(mutex_);
  return Held(max_tokens_) - Held(std::min(max_tokens_, kMinChunkTokens));
}

void ScratchPool::Reclaim(uint64_t bytes) {
  const std::lock_guard lock(mutex_);
  const uint64_t held = Held(max_tokens_), target = held - std::min(held, bytes);
  while (max_tokens_ > kMinChunkTokens && Held(max_tokens_) > target) {
    max_tokens_ = std::max(kMinChunkTokens, max_tokens_ / 2);
  }
  DropIdle();
}

void ScratchPool::Regrow(uint64_t bytes) {
  const std::lock_guard lock(mutex_);
  const uint64_t most = Held(max_tokens_) + bytes;
  while (max_tokens_ < wanted_tokens_) {
    const size_t more = std::min(wanted_tokens_, 2 * max_tokens_);
    if (Held(more) > most) break;
    max_tokens_ = more;
  }
}

Result<ScratchLease> ScratchLease::Take(ScratchPool& pool) {
  ASSIGN_OR_RETURN(auto scratch, pool.Acquire());
  return ScratchLease(pool, std::move(scratch));
}

ScratchLease::~ScratchLease() {
  if (scratch_ != nullptr) pool_->Return(std::move(scratch_));
}

}  // namespace nestling
