// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <mutex>
#include <new>
#include <system_error>
#include <thread>
#include <vector>

#include "base/status.h"

namespace nestling {

inline constexpr size_t kMaxJobs = 256;

// Threads for a wish of `jobs`; 0 is one per core.
inline size_t ResolveJobs(size_t jobs) {
  if (jobs == 0) jobs = std::thread::hardware_concurrency();
  return std::clamp<size_t>(jobs, 1, kMaxJobs);
}

// Calls task(index, worker) -> Status for every index in [0, count), in about that order, on up to
// `jobs` threads, of which this is one; worker < jobs tells whose scratch memory to use. The first
// error stops the rest and is returned.
template <typename Task>
Status ParallelTasks(size_t jobs, size_t count, const Task& task) {
  std::atomic<size_t> next = 0;
  std::mutex mutex;
  Status first_error;
  const auto work = [&](size_t worker) {
    for (size_t i = next++; i < count; i = next++) {
      Status status;
      try {
        status = task(i, worker);
      } catch (const std::bad_alloc&) {
        status = OutOfMemory("no memory for a panel of weights");
      }
      if (status.ok()) continue;
      const std::lock_guard<std::mutex> lock(mutex);
      if (first_error.ok()) first_error = std::move(status);
      next = count;
    }
  };
  std::vector<std::thread> threads;
  for (size_t worker = 1; worker < std::min(jobs, count); ++worker) {
    try {
      threads.emplace_back(work, worker);
    } catch (const std::system_error&) {
      break;  // fewer threads do the same work
    }
  }
  work(0);
  for (std::thread& thread : threads) thread.join();
  return first_error;
}

}  // namespace nestling
