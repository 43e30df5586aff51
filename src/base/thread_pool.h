// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <memory>

#include "base/status.h"

struct pthreadpool;

namespace nestling {

// Worker threads shared by XNNPACK and our kernels. Parallel regions of several callers are run
// one after the other, so one pool may serve several sessions.
class ThreadPool {
 public:
  // 0 threads means one per core that this process may use.
  static Result<std::unique_ptr<ThreadPool>> Create(size_t num_threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  size_t num_threads() const { return num_threads_; }
  pthreadpool* get() const { return pool_; }

  // Calls body(i) for i in [0, count) on the workers and this thread; returns when all are done.
  // `body` must not throw.
  template <typename Body>
  void ParallelFor(size_t count, const Body& body) const {
    Run(
        count, [](void* context, size_t i) { (*static_cast<const Body*>(context))(i); },
        const_cast<void*>(static_cast<const void*>(&body)));
  }

 private:
  ThreadPool() = default;
  void Run(size_t count, void (*task)(void*, size_t), void* context) const;

  pthreadpool* pool_ = nullptr;
  size_t num_threads_ = 1;
};

}  // namespace nestling
