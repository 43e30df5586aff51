// SPDX-License-Identifier: Apache-2.0
#include "runtime/reclaimers.h"

#include <algorithm>

namespace nestling {
namespace {

constexpr TowerKind kTowerKinds[] = {TowerKind::kVision, TowerKind::kAudio};

}  // namespace

void PleCacheReclaimer::Reclaim(uint64_t bytes) {
  const uint64_t held = held_bytes();
  cache_.Resize(held - std::min(held, bytes));
}

void PleCacheReclaimer::Regrow(uint64_t bytes) {
  cache_.Resize(std::min(wanted_, held_bytes() + bytes));
}

uint64_t TowerReclaimer::held_bytes() const {
  uint64_t held = 0;
  for (const TowerKind kind : kTowerKinds) {
    const TowerState state = towers_.State(kind);
    if (state == TowerState::kLoading || state == TowerState::kReady) {
      held += bytes_[static_cast<size_t>(kind)];
    }
  }
  return held;
}

uint64_t TowerReclaimer::reclaimable_bytes() const {
  uint64_t bytes = 0;
  for (const TowerKind kind : kTowerKinds) {
    if (towers_.IsIdle(kind)) bytes += bytes_[static_cast<size_t>(kind)];
  }
  return bytes;
}

void TowerReclaimer::Reclaim(uint64_t bytes) {
  const uint64_t held = held_bytes();
  for (const TowerKind kind : kTowerKinds) {
    if (held - held_bytes() < bytes) towers_.UnloadIfIdle(kind);
  }
}

}  // namespace nestling
