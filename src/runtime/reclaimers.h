// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "modality/towers.h"
#include "ple/row_cache.h"
#include "runtime/memory_budget.h"

namespace nestling {

// Fewer rows of the PLE table.
class PleCacheReclaimer final : public Reclaimer {
 public:
  // `cache` is borrowed.
  explicit PleCacheReclaimer(RowCache& cache) : cache_(cache), wanted_(cache.capacity_bytes()) {}

  uint64_t held_bytes() const override { return cache_.capacity_bytes(); }
  uint64_t reclaimable_bytes() const override { return held_bytes() - cache_.list_bytes(); }
  void Reclaim(uint64_t bytes) override;
  void Regrow(uint64_t bytes) override;

 private:
  RowCache& cache_;
  const uint64_t wanted_;
};

// Towers that nobody uses. They come back when they are used again, not by Regrow.
class TowerReclaimer final : public Reclaimer {
 public:
  // `towers` is borrowed.
  explicit TowerReclaimer(Towers& towers) : towers_(towers) {}

  // Under the budget's lock: what a tower takes that is loading or ready.
  void SetBytes(TowerKind kind, uint64_t bytes) { bytes_[static_cast<size_t>(kind)] = bytes; }

  uint64_t held_bytes() const override;
  uint64_t reclaimable_bytes() const override;
  void Reclaim(uint64_t bytes) override;
  void Regrow(uint64_t) override {}

 private:
  Towers& towers_;
  std::array<uint64_t, 2> bytes_{};  // by TowerKind
};

}  // namespace nestling
