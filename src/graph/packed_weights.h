// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <xnnpack.h>

#include <cstddef>
#include <cstdint>
#include <mutex>
#include <vector>

namespace nestling {

// Owns the memory into which XNNPACK packs weights. Every reservation is a distinct entry: two
// blocks never ask for the same weights, and keys made of addresses (XNNPACK's) would confuse
// temporary buffers that happen to lie at the same place. Several threads may pack at a time.
class PackedWeights {
 public:
  PackedWeights();
  ~PackedWeights();
  PackedWeights(const PackedWeights&) = delete;
  PackedWeights& operator=(const PackedWeights&) = delete;

  xnn_weights_cache_t provider() { return &provider_; }
  uint64_t bytes() const { return bytes_; }

 private:
  void* Reserve(size_t bytes);

  struct Region {
    void* base;
    size_t bytes;
  };
  xnn_weights_cache_provider provider_;
  std::mutex mutex_;  // of what follows
  std::vector<Region> regions_;
  // Small weights share regions, so that they do not take a page each.
  std::byte* arena_ = nullptr;
  size_t arena_left_ = 0;
  uint64_t bytes_ = 0;
};

}  // namespace nestling
