// SPDX-License-Identifier: Apache-2.0
#include "ple/row_cache.h"

#include <algorithm>
#include <bit>
#include <cstring>

namespace nestling {
namespace {

constexpr uint8_t kMaxUses = 3;

// What is fresh may take a tenth.
size_t MaxFresh(size_t slots) { return std::max<size_t>(1, slots / 10); }

void CopyParts(const PleSelection& selection, const std::byte* from, std::byte* to) {
  for (const ByteRange& part : selection.parts) {
    std::memcpy(to + part.begin, from + part.begin, part.end - part.begin);
  }
}

}  // namespace

uint64_t RowCache::NumSlots(uint64_t budget_bytes, size_t row_bytes, uint64_t num_rows) {
  const uint64_t slots = budget_bytes / (row_bytes + kSlotListBytes);
  return std::min<uint64_t>({slots, num_rows, uint64_t{1} << 30});
}

Result<std::unique_ptr<RowCache>> RowCache::Create(uint64_t budget_bytes, size_t row_bytes,
                                                   uint64_t num_rows) {
  std::unique_ptr<RowCache> cache(new RowCache);
  const uint64_t slots = NumSlots(budget_bytes, row_bytes, num_rows);
  cache->row_bytes_ = row_bytes;
  cache->num_slots_ = static_cast<size_t>(slots);
  cache->allowed_slots_ = cache->num_slots_;
  cache->max_fresh_ = MaxFresh(cache->num_slots_);
  if (slots == 0) return cache;
  ASSIGN_OR_RETURN(cache->rows_, LazyMemory::Create(cache->num_slots_ * row_bytes));
  cache->buckets_.assign(std::bit_ceil(2 * cache->num_slots_), kNone);
  cache->nodes_.resize(2 * cache->num_slots_);
  for (uint32_t i = 0; i < cache->nodes_.size(); ++i) {
    cache->nodes_[i].next_in_bucket = cache->free_nodes_;
    cache->free_nodes_ = i;
  }
  cache->free_slots_.resize(cache->num_slots_);
  for (uint32_t i = 0; i < slots; ++i) {
    cache->free_slots_[i] = static_cast<uint32_t>(slots) - 1 - i;  // taken from the end: 0 first
  }
  return cache;
}

bool RowCache::Lookup(uint32_t row, const PleSelection& selection, std::byte* out) {
  if (num_slots_ == 0) return false;
  const std::lock_guard lock(mutex_);
  const uint32_t found = Find(row);
  if (found == kNone || nodes_[found].queue == kGhosts) return false;
  Node& node = nodes_[found];
  if ((selection.layers & ~node.layers) != 0) return false;
  if (node.uses < kMaxUses) ++node.uses;
  CopyParts(selection, Slot(node), out);
  return true;
}

void RowCache::Insert(uint32_t row, const PleSelection& selection, const std::byte* data) {
  if (num_slots_ == 0) return;
  const std::lock_guard lock(mutex_);
  if (allowed_slots_ == 0) return;
  uint32_t index = Find(row);
  QueueName queue = kFresh;
  if (index != kNone && nodes_[index].queue != kGhosts) {
    // Another session was faster, or a slice needs more layers.
    nodes_[index].layers |= selection.layers;
    CopyParts(selection, data, Slot(nodes_[index]));
    return;
  }
  if (index != kNone) {
    Forget(index);
    queue = kProven;
  }
  while (free_slots_.empty()) Evict();
  index = NewNode(row);
  Node& node = nodes_[index];
  node.slot = free_slots_.back();
  free_slots_.pop_back();
  node.uses = 0;
  node.layers = selection.layers;
  CopyParts(selection, data, Slot(node));
  Push(queue, index);
}

void RowCache::Resize(uint64_t budget_bytes) {
  const std::lock_guard lock(mutex_);
  const uint64_t for_rows = budget_bytes - std::min(budget_bytes, list_bytes());
  const auto slots = static_cast<size_t>(std::min<uint64_t>(for_rows / row_bytes_, num_slots_));
  if (slots < allowed_slots_) Shrink(slots);
  for (size_t slot = slots; slot-- > allowed_slots_;) {
    free_slots_.push_back(static_cast<uint32_t>(slot));
  }
  allowed_slots_ = slots;
  max_fresh_ = MaxFresh(slots);
}

void RowCache::Shrink(size_t slots) {
  max_fresh_ = MaxFresh(slots);
  while (queues_[kFresh].size + queues_[kProven].size > slots) Evict();
  while (queues_[kGhosts].size > slots) Forget(queues_[kGhosts].oldest);
  std::erase_if(free_slots_, [slots](uint32_t slot) { return slot >= slots; });
  // Rows behind the new end move to free slots before it, of which there are enough.
  for (const QueueName queue : {kFresh, kProven}) {
    for (uint32_t index = queues_[queue].newest; index != kNone; index = nodes_[index].older) {
      Node& node = nodes_[index];
      if (node.slot < slots) continue;
      const std::byte* from = Slot(node);
      node.slot = free_slots_.back();
      free_slots_.pop_back();
      std::memcpy(Slot(node), from, row_bytes_);
    }
  }
  rows_.Release(slots * row_bytes_);
}

uint64_t RowCache::capacity_bytes() const {
  const std::lock_guard lock(mutex_);
  return list_bytes() + allowed_slots_ * row_bytes_;
}

size_t RowCache::capacity_rows() const {
  const std::lock_guard lock(mutex_);
  return allowed_slots_;
}

size_t RowCache::num_rows() const {
  const std::lock_guard lock(mutex_);
  return queues_[kFresh].size + queues_[kProven].size;
}

uint64_t RowCache::evictions() const {
  const std::lock_guard lock(mutex_);
  return evictions_;
}

size_t RowCache::Bucket(uint32_t row) const {
  return static_cast<size_t>(row * uint64_t{0x9e3779b97f4a7c15} >> 32) & (buckets_.size() - 1);
}

uint32_t RowCache::Find(uint32_t row) const {
  uint32_t node = buckets_[Bucket(row)];
  while (node != kNone && nodes_[node].row != row) node = nodes_[node].next_in_bucket;
  return node;
}

void RowCache::Push(QueueName queue, uint32_t index) {
  Queue& q = queues_[queue];
  Node& node = nodes_[index];
  node.queue = queue;
  node.newer = kNone;
  node.older = q.newest;
  (q.newest != kNone ? nodes_[q.newest].newer : q.oldest) = index;
  q.newest = index;
  ++q.size;
}

void RowCache::Unlink(uint32_t index) {
  const Node& node = nodes_[index];
  Queue& q = queues_[node.queue];
  (node.newer != kNone ? nodes_[node.newer].older : q.newest) = node.older;
  (node.older != kNone ? nodes_[node.older].newer : q.oldest) = node.newer;
  --q.size;
}

void RowCache::Forget(uint32_t index) {
  Unlink(index);
  uint32_t* link = &buckets_[Bucket(nodes_[index].row)];
  while (*link != index) link = &nodes_[*link].next_in_bucket;
  *link = nodes_[index].next_in_bucket;
  nodes_[index].next_in_bucket = free_nodes_;
  free_nodes_ = index;
}

uint32_t RowCache::NewNode(uint32_t row) {
  if (free_nodes_ == kNone) Forget(queues_[kGhosts].oldest);
  const uint32_t index = free_nodes_;
  free_nodes_ = nodes_[index].next_in_bucket;
  uint32_t& bucket = buckets_[Bucket(row)];
  nodes_[index].row = row;
  nodes_[index].next_in_bucket = bucket;
  bucket = index;
  return index;
}

void RowCache::Evict() {
  while (true) {
    const bool fresh = queues_[kFresh].size > max_fresh_ || queues_[kProven].size == 0;
    const QueueName queue = fresh ? kFresh : kProven;
    const uint32_t index = queues_[queue].oldest;
    Node& node = nodes_[index];
    if (node.uses > 0) {
      // Was asked for again: it has proved itself, or stays for another round.
      node.uses = fresh ? 0 : node.uses - 1;
      Unlink(index);
      Push(kProven, index);
      continue;
    }
    free_slots_.push_back(node.slot);
    ++evictions_;
    if (fresh) {
      Unlink(index);
      Push(kGhosts, index);
      if (queues_[kGhosts].size > allowed_slots_) Forget(queues_[kGhosts].oldest);
    } else {
      Forget(index);
    }
    return;
  }
}

}  // namespace nestling
