// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <list>
#include <mutex>
#include <optional>

#include "modality/media.h"

namespace nestling {

// 128 bits of what an encoding depends on: the samples or pixels, their shape and format.
struct MediaKey {
  uint64_t low = 0, high = 0;
  bool operator==(const MediaKey&) const = default;
};

struct MediaCacheCounters {
  uint64_t hits = 0;
  uint64_t misses = 0;
  uint64_t bytes = 0;  // of soft tokens held now
  uint64_t entries = 0;
};

// Images and sounds that were encoded before: a follow-up question about one costs nothing. The
// least recently used ones make room. Thread-safe.
class MediaCache {
 public:
  // At most `max_bytes` of soft tokens; 0: nothing is kept.
  explicit MediaCache(uint64_t max_bytes) : max_bytes_(max_bytes) {}

  std::optional<Media> Find(const MediaKey& key);
  void Insert(const MediaKey& key, const Media& media);
  // Forgets everything; what is in use lives on with its users.
  void Clear();
  MediaCacheCounters counters() const;
  uint64_t max_bytes() const { return max_bytes_; }

 private:
  struct Entry {
    MediaKey key;
    Media media;
    uint64_t bytes;
  };
  const uint64_t max_bytes_;
  mutable std::mutex mutex_;
  std::list<Entry> entries_;  // the most recently used first; a few dozen at most
  MediaCacheCounters counters_;
};

}  // namespace nestling
