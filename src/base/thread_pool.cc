// SPDX-License-Identifier: Apache-2.0
#include "base/thread_pool.h"

#include <pthreadpool.h>

#include <system_error>

#include "base/futex.h"

namespace nestling {
namespace {

// This thread runs units of some pool: its own regions run on it alone.
thread_local bool in_region = false;

class RegionScope {
 public:
  RegionScope() { in_region = true; }
  ~RegionScope() { in_region = false; }
};

}  // namespace

Result<std::unique_ptr<ThreadPool>> ThreadPool::Create(size_t num_threads, uint64_t cpu_mask) {
  if (num_threads > kMaxPoolThreads) {
    return InvalidArgument("threads: ", num_threads, ", at most ", kMaxPoolThreads);
  }
  ASSIGN_OR_RETURN(const CoreChoice choice, ChooseCores(ReadTopology(), num_threads, cpu_mask));
  std::unique_ptr<ThreadPool> pool(new ThreadPool);
  pool->num_threads_ = choice.num_threads;
  pool->cores_ = choice.workers;
  pool->ranges_ = std::make_unique<Range[]>(pool->num_threads_);
  try {
    pool->workers_.reserve(pool->num_threads_ - 1);
    while (pool->workers_.size() + 1 < pool->num_threads_) {
      const size_t thread = pool->workers_.size() + 1;
      pool->workers_.emplace_back([p = pool.get(), thread] { p->Work(thread); });
    }
  } catch (const std::system_error&) {
    return OutOfMemory("cannot start ", pool->num_threads_, " threads");
  }
  return pool;
}

ThreadPool::~ThreadPool() {
  stop_.store(true);
  regions_.fetch_add(1);
  FutexWake(regions_, kMaxPoolThreads);
  for (std::thread& worker : workers_) worker.join();
  if (pthreadpool_ != nullptr) pthreadpool_destroy(pthreadpool_);
}

pthreadpool* ThreadPool::get() const {
  std::call_once(pthreadpool_once_, [this] {
    if (num_threads_ == 1) return;
    // Its threads inherit the cores of the thread that starts them.
    std::thread([this] {
      PinThisThread(cores_);
      pthreadpool_ = pthreadpool_create(num_threads_);
    }).join();
  });
  return pthreadpool_;
}

void ThreadPool::Run(size_t count, Task task, void* context) const {
  const bool alone = workers_.empty() || count < 2 || count > UINT32_MAX || in_region;
  if (!alone && !busy_.test_and_set(std::memory_order_acquire)) {
    RunShared(static_cast<uint32_t>(count), task, context);
    busy_.clear(std::memory_order_release);
    return;
  }
  for (size_t i = 0; i < count; ++i) task(context, i, /*thread=*/0);
}

void ThreadPool::RunShared(uint32_t count, Task task, void* context) const {
  const RegionScope scope;
  task_ = task;
  context_ = context;
  pending_.store(count, std::memory_order_relaxed);
  uint64_t begin = 0;
  for (size_t i = 0; i < num_threads_; ++i) {
    const uint64_t end = uint64_t{count} * (i + 1) / num_threads_;
    ranges_[i].unclaimed.store(end << 32 | begin, std::memory_order_release);
    begin = end;
  }
  // Sequentially consistent with the worker that counts itself a sleeper and then looks at
  // `regions_`: one of the two sees the other.
  regions_.fetch_add(1);
  if (sleepers_.load() != 0) FutexWake(regions_, count - 1);
  RunUnits(/*thread=*/0);
  const auto done = [this] { return pending_.load(std::memory_order_acquire) == 0; };
  if (caller_spin_.Spin(done)) return;
  // A worker was interrupted within a unit. Asleep, this thread saves its share of the processor
  // for when that one runs again.
  caller_sleeps_.store(true);
  for (uint32_t left = pending_.load(); left != 0; left = pending_.load()) {
    FutexWait(pending_, left);
  }
  caller_sleeps_.store(false, std::memory_order_relaxed);
}

void ThreadPool::RunUnits(size_t thread) const {
  for (size_t i = 0; i < num_threads_; ++i) {
    std::atomic<uint64_t>& unclaimed = ranges_[(thread + i) % num_threads_].unclaimed;
    uint64_t range = unclaimed.load(std::memory_order_relaxed);
    while (true) {
      const uint32_t begin = static_cast<uint32_t>(range);
      const uint32_t end = static_cast<uint32_t>(range >> 32);
      if (begin == end) break;
      // An owner takes from the front, others from the back.
      const uint64_t rest = i == 0 ? range + 1 : range - (uint64_t{1} << 32);
      // Success is a claim in the region that runs now, even if `range` was read in an earlier one.
      if (!unclaimed.compare_exchange_weak(range, rest, std::memory_order_acquire,
                                           std::memory_order_relaxed)) {
        continue;
      }
      RunUnit(i == 0 ? begin : end - 1, thread);
      range = unclaimed.load(std::memory_order_relaxed);
    }
  }
}

void ThreadPool::RunUnit(uint32_t index, size_t thread) const {
  task_(context_, index, thread);
  if (pending_.fetch_sub(1) == 1 && caller_sleeps_.load()) FutexWake(pending_, 1);
}

void ThreadPool::Work(size_t thread) const {
  AskForShortSlices();
  PinThisThread(cores_);
  const RegionScope scope;
  SpinBudget spin;
  while (true) {
    const uint32_t seen = regions_.load();
    if (stop_.load()) return;
    RunUnits(thread);
    const auto next = [this, seen] { return regions_.load(std::memory_order_relaxed) != seen; };
    if (spin.Spin(next)) continue;
    sleepers_.fetch_add(1);
    FutexWait(regions_, seen);
    sleepers_.fetch_sub(1);
  }
}

}  // namespace nestling
