// SPDX-License-Identifier: Apache-2.0
#include "graph/packed_weights.h"

#include <sys/mman.h>

#include <new>

#include "base/math.h"

namespace nestling {
namespace {

constexpr size_t kArenaBytes = 1 << 20;
constexpr size_t kAlignment = 64;

void* MapAnonymous(size_t bytes) {
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  return memory == MAP_FAILED ? nullptr : memory;
}

}  // namespace

PackedWeights::PackedWeights() {
  provider_.context = this;
  provider_.look_up = [](void*, const xnn_weights_cache_look_up_key*) -> size_t {
    return SIZE_MAX;
  };
  provider_.reserve_space = [](void* context, size_t bytes) -> void* {
    try {
      return static_cast<PackedWeights*>(context)->Reserve(bytes);
    } catch (const std::bad_alloc&) {
      return nullptr;
    }
  };
  // An entry's "offset" is its address: entries never move.
  provider_.look_up_or_insert = [](void*, const xnn_weights_cache_look_up_key*, void* entry,
                                   size_t) -> size_t { return reinterpret_cast<size_t>(entry); };
  provider_.is_finalized = [](void*) { return true; };
  provider_.offset_to_addr = [](void*, size_t offset) { return reinterpret_cast<void*>(offset); };
  provider_.delete_cache = [](void*) { return xnn_status_success; };
}

PackedWeights::~PackedWeights() {
  for (const Region& region : regions_) munmap(region.base, region.bytes);
}

void* PackedWeights::Reserve(size_t bytes) {
  // Kernels may read up to XNN_EXTRA_BYTES beyond the end.
  const size_t needed = RoundUp(bytes + XNN_EXTRA_BYTES, kAlignment);
  const std::lock_guard lock(mutex_);
  if (needed <= arena_left_) {
    std::byte* entry = arena_;
    arena_ += needed;
    arena_left_ -= needed;
    return entry;
  }
  const bool small = needed <= kArenaBytes / 4;
  const size_t region_bytes = small ? kArenaBytes : needed;
  regions_.reserve(regions_.size() + 1);
  void* base = MapAnonymous(region_bytes);
  if (base == nullptr) return nullptr;
  regions_.push_back({base, region_bytes});
  bytes_ += region_bytes;
  if (small) {
    arena_ = static_cast<std::byte*>(base) + needed;
    arena_left_ = region_bytes - needed;
  }
  return base;
}

}  // namespace nestling
