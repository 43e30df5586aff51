// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <thread>
#include <type_traits>
#include <vector>

#include "base/spin.h"
#include "base/status.h"
#include "base/topology.h"

struct pthreadpool;

namespace nestling {

inline constexpr size_t kMaxPoolThreads = 256;

// Worker threads of our kernels, made to stay useful on a busy machine.
//
// The units of a parallel region are shared out in one range a thread, neighbours to the same
// thread because memory is read fastest in order; who is done with its range takes units from the
// ends of the others'. The caller takes part, and could do them all: it waits only for units that a
// worker has begun, so a worker that the system runs late costs nothing but its help. Who finds
// nothing to do spins for some microseconds, then sleeps.
//
// Any number of threads may call; a pool that is busy with another thread's region lets the caller
// do its own alone. A region inside a region runs on its thread. Nothing is allocated per region.
class ThreadPool {
 public:
  // `num_threads` counts the caller, at most kMaxPoolThreads; 0: one for each core that ChooseCores
  // finds. `cpu_mask` has the cores of the workers, bit i for core i; 0: see ChooseCores. Callers'
  // threads are never pinned.
  static Result<std::unique_ptr<ThreadPool>> Create(size_t num_threads, uint64_t cpu_mask = 0);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  size_t num_threads() const { return num_threads_; }

  // XNNPACK's threads, as many and on the same cores, started by the first call: who runs only
  // tiled weights has none. nullptr: the calling thread alone. Our workers sleep meanwhile; run
  // XNNPACK with XNN_FLAG_YIELD_WORKERS, so that its threads sleep while ours run.
  pthreadpool* get() const;

  // Calls body(i) for i in [0, count) on the workers and this thread; returns when all are done.
  // `body` must not throw. body(i, thread) is told who runs it, [0, num_threads()): of one region,
  // no two calls with the same number overlap, so that each can have memory of its own.
  template <typename Body>
  void ParallelFor(size_t count, const Body& body) const {
    Run(
        count,
        [](void* context, size_t i, [[maybe_unused]] size_t thread) {
          const Body& call = *static_cast<const Body*>(context);
          if constexpr (std::is_invocable_v<const Body&, size_t, size_t>) {
            call(i, thread);
          } else {
            call(i);
          }
        },
        const_cast<void*>(static_cast<const void*>(&body)));
  }

 private:
  using Task = void (*)(void*, size_t unit, size_t thread);

  ThreadPool() = default;
  void Run(size_t count, Task task, void* context) const;
  void RunShared(uint32_t count, Task task, void* context) const;
  // Runs units until none is unclaimed, those of the range `thread` first.
  void RunUnits(size_t thread) const;
  void RunUnit(uint32_t index, size_t thread) const;
  void Work(size_t thread) const;

  // Units [low half, high half) that nobody has claimed, in one word so that both of its ends are
  // claimed by one exchange.
  struct alignas(64) Range {
    std::atomic<uint64_t> unclaimed{0};
  };

  size_t num_threads_ = 1;
  CoreSet cores_;  // of the workers; empty: wherever the system puts them
  std::vector<std::thread> workers_;
  std::atomic<bool> stop_{false};

  mutable std::once_flag pthreadpool_once_;
  mutable pthreadpool* pthreadpool_ = nullptr;

  // The region that runs. Written while no unit is unclaimed or pending, read by who has claimed
  // one: it cannot end before that unit has.
  mutable Task task_ = nullptr;
  mutable void* context_ = nullptr;
  mutable std::atomic_flag busy_ = ATOMIC_FLAG_INIT;  // a caller has the workers
  mutable SpinBudget caller_spin_;                    // of that caller

  std::unique_ptr<Range[]> ranges_;  // [num_threads_], the caller's first
  // Each on its own cache line: workers watch `regions_` while others finish units.
  alignas(64) mutable std::atomic<uint32_t> pending_{0};        // units not done
  alignas(64) mutable std::atomic<bool> caller_sleeps_{false};  // until nothing is pending
  alignas(64) mutable std::atomic<uint32_t> regions_{0};        // begun; workers sleep on it
  mutable std::atomic<uint32_t> sleepers_{0};                   // workers
};

}  // namespace nestling
