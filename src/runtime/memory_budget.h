// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <string_view>

#include "base/function_ref.h"
#include "base/status.h"

namespace nestling {

// What gives memory back when it is short, in this order.
enum class ReclaimStep {
  kPleCache,  // rows of the PLE table are read again
  kTowers,    // those that nobody uses are loaded again when an image or a sound comes
  kChunk,     // prefill takes smaller steps
};
inline constexpr size_t kNumReclaimSteps = 3;

// A holder of memory that can do with less. The budget calls it under its lock, so it must not call
// the budget, and must not wait for anything that could be waiting for the budget.
class Reclaimer {
 public:
  virtual ~Reclaimer() = default;
  // Most bytes that it may make resident now.
  virtual uint64_t held_bytes() const = 0;
  // Of those, what Reclaim could give back.
  virtual uint64_t reclaimable_bytes() const = 0;
  // Gives back `bytes` or a little more, or all that it can.
  virtual void Reclaim(uint64_t bytes) = 0;
  // There is room for `bytes` more: takes at most so many of what it gave back.
  virtual void Regrow(uint64_t bytes) = 0;
};

// Keeps an engine's resident bytes, as estimated for the worst case, within a limit. What is to
// grow asks first; what can shrink does so then, step by step, and gets it back when there is room
// again. Thread-safe.
class MemoryBudget {
 public:
  explicit MemoryBudget(uint64_t limit_bytes) : limit_bytes_(limit_bytes) {}  // 0: no limit
  MemoryBudget(const MemoryBudget&) = delete;
  MemoryBudget& operator=(const MemoryBudget&) = delete;

  uint64_t limit_bytes() const { return limit_bytes_; }

  // Borrowed; before the first Grow.
  void SetReclaimer(ReclaimStep step, Reclaimer* reclaimer) {
    reclaimers_[static_cast<size_t>(step)] = reclaimer;
  }

  // `grow` makes some holder's held_bytes(), or the number that it is given (bytes that no
  // reclaimer holds), larger; `undo` takes that back, when it is more than fits:
  // kOutOfMemory then names `what` and the number that would do, and nothing was shrunk. Memory may
  // only be touched after success.
  Status Grow(std::string_view what, FunctionRef<void(uint64_t& fixed_bytes)> grow,
              FunctionRef<void(uint64_t& fixed_bytes)> undo);
  // The opposite: what shrank earlier may grow again.
  void Shrink(FunctionRef<void(uint64_t& fixed_bytes)> shrink);

  // Calls `look` while nobody grows or shrinks.
  void Look(FunctionRef<void()> look) const;

  // How often each step was taken, and what it gave back, in all.
  struct Counters {
    std::array<uint64_t, kNumReclaimSteps> times{};
    std::array<uint64_t, kNumReclaimSteps> bytes{};
  };
  Counters counters() const;
  // Counts what was done before there was anything to reclaim: an engine that begins with less.
  void CountStep(ReclaimStep step, uint64_t bytes);
  // Bytes that everything may take now, by estimate.
  uint64_t used_bytes() const;

 private:
  uint64_t Used() const;

  const uint64_t limit_bytes_;
  std::array<Reclaimer*, kNumReclaimSteps> reclaimers_{};
  mutable std::mutex mutex_;
  uint64_t fixed_bytes_ = 0;
  Counters counters_;
};

}  // namespace nestling
