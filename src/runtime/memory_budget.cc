// SPDX-License-Identifier: Apache-2.0
#include "runtime/memory_budget.h"

#include <algorithm>

namespace nestling {

uint64_t MemoryBudget::Used() const {
  uint64_t used = fixed_bytes_;
  for (const Reclaimer* reclaimer : reclaimers_) {
    if (reclaimer != nullptr) used += reclaimer->held_bytes();
  }
  return used;
}

Status MemoryBudget::Grow(std::string_view what, FunctionRef<void(uint64_t&)> grow,
                          FunctionRef<void(uint64_t&)> undo) {
  const std::lock_guard lock(mutex_);
  grow(fixed_bytes_);
  if (limit_bytes_ == 0 || Used() <= limit_bytes_) return OkStatus();
  uint64_t reclaimable = 0;
  for (const Reclaimer* reclaimer : reclaimers_) {
    if (reclaimer != nullptr) reclaimable += reclaimer->reclaimable_bytes();
  }
  if (const uint64_t least = Used() - reclaimable; least > limit_bytes_) {
    undo(fixed_bytes_);
    return OutOfMemory("memory_budget_bytes: ", limit_bytes_, ", with ", what, " the engine needs ",
                       least, " at least");
  }
  for (size_t step = 0; step < kNumReclaimSteps && Used() > limit_bytes_; ++step) {
    if (reclaimers_[step] == nullptr) continue;
    const uint64_t before = Used();
    reclaimers_[step]->Reclaim(before - limit_bytes_);
    const uint64_t given = before - std::min(before, Used());
    if (given == 0) continue;
    ++counters_.times[step];
    counters_.bytes[step] += given;
  }
  if (Used() > limit_bytes_) {  // somebody began to use what he had offered
    undo(fixed_bytes_);
    return OutOfMemory("memory_budget_bytes: ", limit_bytes_, ", with ", what,
                       " the engine needs more while others use it");
  }
  return OkStatus();
}

void MemoryBudget::Shrink(FunctionRef<void(uint64_t&)> shrink) {
  const std::lock_guard lock(mutex_);
  shrink(fixed_bytes_);
  if (limit_bytes_ == 0) return;
  // What was given up last hurts most.
  for (size_t step = kNumReclaimSteps; step-- > 0;) {
    const uint64_t used = Used();
    if (reclaimers_[step] != nullptr && used < limit_bytes_) {
      reclaimers_[step]->Regrow(limit_bytes_ - used);
    }
  }
}

void MemoryBudget::Look(FunctionRef<void()> look) const {
  const std::lock_guard lock(mutex_);
  look();
}

MemoryBudget::Counters MemoryBudget::counters() const {
  const std::lock_guard lock(mutex_);
  return counters_;
}

void MemoryBudget::CountStep(ReclaimStep step, uint64_t bytes) {
  const std::lock_guard lock(mutex_);
  ++counters_.times[static_cast<size_t>(step)];
  counters_.bytes[static_cast<size_t>(step)] += bytes;
}

uint64_t MemoryBudget::used_bytes() const {
  const std::lock_guard lock(mutex_);
  return Used();
}

}  // namespace nestling
