// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "ple/row_reader.h"

namespace nestling {

// A few threads that wait for storage, where there is no io_uring. They sleep without work.
class ReaderThreads {
 public:
  // `file` and `calls` are borrowed. Fewer threads, even none, only make it slower: who waits for
  // a batch reads too.
  ReaderThreads(const File& file, StorageCalls& calls, size_t num_threads);
  ~ReaderThreads();
  ReaderThreads(const ReaderThreads&) = delete;
  ReaderThreads& operator=(const ReaderThreads&) = delete;

  // A reader whose batches these threads work on; they must outlive it.
  std::unique_ptr<RowReader> NewReader();

 private:
  class Reader;

  void Work();
  // Reads the next request of `reader`'s batch, without the lock meanwhile. False: none is left.
  bool ReadOne(Reader& reader, std::unique_lock<std::mutex>& lock);

  const File& file_;
  StorageCalls& calls_;
  std::mutex mutex_;
  std::condition_variable work_;  // queue_ is not empty, or stop_
  std::vector<Reader*> queue_;    // with requests that nobody has begun, oldest first
  size_t num_readers_ = 0;
  bool stop_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace nestling
