// SPDX-License-Identifier: Apache-2.0
#include "modality/media_cache.h"

#include <algorithm>

namespace nestling {
namespace {

uint64_t BytesOf(const Media& media) {
  uint64_t bytes = 0;
  for (const SharedSoftTokens& piece : media.pieces) bytes += piece->values.size() * sizeof(float);
  return bytes;
}

}  // namespace

std::optional<Media> MediaCache::Find(const MediaKey& key) {
  const std::lock_guard lock(mutex_);
  const auto found = std::find_if(entries_.begin(), entries_.end(),
                                  [&](const Entry& entry) { return entry.key == key; });
  if (found == entries_.end()) {
    ++counters_.misses;
    return std::nullopt;
  }
  ++counters_.hits;
  entries_.splice(entries_.begin(), entries_, found);
  return found->media;
}

void MediaCache::Insert(const MediaKey& key, const Media& media) {
  const uint64_t bytes = BytesOf(media);
  if (bytes > max_bytes_) return;
  const std::lock_guard lock(mutex_);
  const bool known = std::any_of(entries_.begin(), entries_.end(),
                                 [&](const Entry& entry) { return entry.key == key; });
  if (known) return;  // two threads encoded the same
  entries_.push_front({key, media, bytes});
  counters_.bytes += bytes;
  while (counters_.bytes > max_bytes_) {
    counters_.bytes -= entries_.back().bytes;
    entries_.pop_back();
  }
}

void MediaCache::Clear() {
  const std::lock_guard lock(mutex_);
  entries_.clear();
  counters_.bytes = 0;
}

MediaCacheCounters MediaCache::counters() const {
  const std::lock_guard lock(mutex_);
  MediaCacheCounters counters = counters_;
  counters.entries = entries_.size();
  return counters;
}

}  // namespace nestling
