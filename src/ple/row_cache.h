// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "base/lazy_memory.h"
#include "base/status.h"
#include "ple/ple_table.h"

namespace nestling {

// A bounded cache of rows, shared by the sessions of an engine. Thread-safe; the lock is held to
// copy one row, never while storage is read.
//
// The policy is S3-FIFO (Yang et al., SOSP 2023): new rows stand in a short queue, and only those
// that are asked for again in time, or soon after they left it, come to the long one. A scan of
// rows that are used once passes through a tenth of the cache and leaves the rest alone.
class RowCache {
 public:
  // Rows and everything kept about them take at most `budget_bytes`; a budget below one row makes
  // a cache that is always empty. Pages take memory when they are first filled.
  static Result<std::unique_ptr<RowCache>> Create(uint64_t budget_bytes, size_t row_bytes,
                                                  uint64_t num_rows);

  // capacity_bytes() of what Create would make.
  static uint64_t CapacityBytes(uint64_t budget_bytes, size_t row_bytes, uint64_t num_rows) {
    return NumSlots(budget_bytes, row_bytes, num_rows) * (row_bytes + kSlotListBytes);
  }

  // Copies the parts of a row that `selection` names to their places in `out` [row_bytes]. False
  // if they are not all here.
  bool Lookup(uint32_t row, const PleSelection& selection, std::byte* out);

  // Keeps those parts of `data` [row_bytes], at the cost of other rows.
  void Insert(uint32_t row, const PleSelection& selection, const std::byte* data);

  // Takes at most `budget_bytes` from now on, and no more than it was created for. Rows that must
  // go are those that would be evicted next; their memory goes back to the system. The lists about
  // rows keep their size: a budget below theirs leaves a cache that is always empty.
  void Resize(uint64_t budget_bytes);

  // Most that it takes, rows and lists; and the lists alone.
  uint64_t capacity_bytes() const;
  uint64_t list_bytes() const { return num_slots_ * kSlotListBytes; }
  // Rows that fit, and rows that are here.
  size_t capacity_rows() const;
  size_t num_rows() const;
  // Of the rows; pages that no row has used yet are not resident.
  std::span<const std::byte> memory() const { return {rows_.data(), rows_.size()}; }
  uint64_t evictions() const;

 private:
  static constexpr uint32_t kNone = ~uint32_t{0};
  enum QueueName : uint8_t { kFresh, kProven, kGhosts, kNumQueues };

  // A row that is here (kFresh, kProven), or one that was in kFresh not long ago (kGhosts).
  struct Node {
    uint32_t row;
    uint32_t slot;
    uint32_t newer, older;    // in its queue
    uint32_t next_in_bucket;  // also links free nodes
    QueueName queue;
    uint8_t uses;     // since it came or was spared, saturating
    uint64_t layers;  // that the slot holds
  };
  struct Queue {
    uint32_t newest = kNone, oldest = kNone;
    size_t size = 0;
  };

  // Each slot has two nodes (its own and a ghost's), two to four buckets and a free-list entry.
  static constexpr uint64_t kSlotListBytes = 2 * sizeof(Node) + 5 * sizeof(uint32_t);

  RowCache() = default;
  static uint64_t NumSlots(uint64_t budget_bytes, size_t row_bytes, uint64_t num_rows);

  size_t Bucket(uint32_t row) const;
  uint32_t Find(uint32_t row) const;
  std::byte* Slot(const Node& node) const { return rows_.data() + node.slot * row_bytes_; }
  void Push(QueueName queue, uint32_t node);
  void Unlink(uint32_t node);
  // Takes it out of the index and its queue.
  void Forget(uint32_t node);
  uint32_t NewNode(uint32_t row);
  // Makes a slot free.
  void Evict();

  // Empties the slots from `slots` on.
  void Shrink(size_t slots);

  size_t row_bytes_ = 0;
  size_t num_slots_ = 0;  // at creation

  mutable std::mutex mutex_;
  size_t allowed_slots_ = 0;  // those before it are used
  size_t max_fresh_ = 0;
  LazyMemory rows_;                // [num_slots, row_bytes]
  std::vector<uint32_t> buckets_;  // first node of each; the size is a power of two
  std::vector<Node> nodes_;        // [2 * num_slots]
  std::vector<uint32_t> free_slots_;
  uint32_t free_nodes_ = kNone;
  Queue queues_[kNumQueues];
  uint64_t evictions_ = 0;
};

}  // namespace nestling
