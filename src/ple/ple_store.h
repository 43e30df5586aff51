// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "base/file.h"
#include "base/lazy_memory.h"
#include "base/status.h"
#include "container/reader.h"
#include "ple/ple_table.h"
#include "ple/reader_threads.h"
#include "ple/row_cache.h"
#include "ple/row_reader.h"

namespace nestling {

// Where rows come from.
enum class PleMode {
  kStream,    // storage, row by row, through a bounded cache
  kResident,  // the whole table is read into memory at creation
  kMmap,      // the mapped table, for comparison: a file that is truncated while it is in use ends
              // the process (SIGBUS), and the system decides how much of it stays in memory
};

// 3,800 rows of E2B at q4b32. With tokens after Zipf's law (exponent 1, 262,144 rows) they answer
// 64 % of all lookups (ple_bench; the best choice of rows would answer 68 %); each doubling adds 5
// points, and most of what misses is in the page cache, which costs 2 us more than a hit.
inline constexpr uint64_t kDefaultPleCacheBytes = 16 << 20;

// A size below any row's.
inline constexpr uint64_t kNoPleCache = 1;

struct PleOptions {
  PleMode mode = PleMode::kStream;
  uint64_t cache_bytes = 0;       // 0: the default
  StorageCalls* calls = nullptr;  // borrowed; nullptr: the system's
};

// Sums; `rows` counts distinct rows of a batch, `hits` and `misses` those that were looked up in
// the cache.
struct PleCounters {
  uint64_t rows = 0;
  uint64_t hits = 0;
  uint64_t misses = 0;
  uint64_t bytes_read = 0;  // from storage or the system's page cache
  uint64_t wait_ns = 0;     // in which a step had to wait for its rows

  PleCounters& operator+=(const PleCounters& other);
};

// The PLE table of an engine, its cache and what reads it. Thread-safe, outlives its batches.
class PleStore {
 public:
  // `reader` is borrowed; its tensors were checked. kResident blocks on storage.
  static Result<std::unique_ptr<PleStore>> Create(const ContainerReader& reader,
                                                  const PleOptions& options);
  ~PleStore();

  const PleTable& table() const { return *table_; }
  PleMode mode() const { return mode_; }
  // "io_uring", "threads", "resident" or "mmap".
  const char* mechanism() const;
  RowCache& cache() const { return *cache_; }
  // Every row, when they need not be read: kResident and kMmap. Otherwise nullptr.
  const std::byte* all_rows() const { return all_rows_; }
  // Most that the cache takes; memory of a resident table; address space of a mapped one.
  uint64_t cache_bytes() const { return cache_ != nullptr ? cache_->capacity_bytes() : 0; }
  uint64_t resident_bytes() const { return resident_.size(); }
  uint64_t mapped_bytes() const { return mapped_.bytes().size(); }
  // The whole table of kResident and kMmap, else empty.
  std::span<const std::byte> table_memory() const {
    return mode_ == PleMode::kMmap ? mapped_.bytes()
                                   : std::span<const std::byte>(resident_.data(), resident_.size());
  }

  // A reader for one batch. There are as many as batches that were ever read at once.
  Result<std::unique_ptr<RowReader>> TakeReader();
  void ReturnReader(std::unique_ptr<RowReader> reader);

 private:
  PleStore() = default;
  Status Load(const ContainerReader& reader);
  Result<std::unique_ptr<RowReader>> NewReader();

  std::unique_ptr<PleTable> table_;
  PleMode mode_ = PleMode::kStream;
  StorageCalls* calls_ = nullptr;
  std::unique_ptr<RowCache> cache_;
  const std::byte* all_rows_ = nullptr;
  LazyMemory resident_;
  MappedRegion mapped_;

  mutable std::mutex mutex_;
  bool io_uring_ = false;
  std::unique_ptr<ReaderThreads> threads_;  // made when there is no io_uring
  std::vector<std::unique_ptr<RowReader>> idle_;
  size_t num_readers_ = 0;
};

}  // namespace nestling
