// SPDX-License-Identifier: Apache-2.0
#include "base/thread_pool.h"

#include <pthreadpool.h>
#include <sched.h>

#include <algorithm>

namespace nestling {
namespace {

constexpr size_t kMaxThreads = 256;

size_t UsableCores() {
  cpu_set_t cores;
  if (sched_getaffinity(0, sizeof cores, &cores) != 0) return 1;
  return static_cast<size_t>(std::max(1, CPU_COUNT(&cores)));
}

}  // namespace

Result<std::unique_ptr<ThreadPool>> ThreadPool::Create(size_t num_threads) {
  if (num_threads > kMaxThreads) {
    return InvalidArgument("threads: ", num_threads, ", at most ", kMaxThreads);
  }
  std::unique_ptr<ThreadPool> pool(new ThreadPool);
  pool->num_threads_ = num_threads != 0 ? num_threads : UsableCores();
  if (pool->num_threads_ == 1) return pool;  // a null pool runs on the calling thread
  pool->pool_ = pthreadpool_create(pool->num_threads_);
  if (pool->pool_ == nullptr) return OutOfMemory("cannot start ", pool->num_threads_, " threads");
  return pool;
}

ThreadPool::~ThreadPool() {
  if (pool_ != nullptr) pthreadpool_destroy(pool_);
}

void ThreadPool::Run(size_t count, void (*task)(void*, size_t), void* context) const {
  pthreadpool_parallelize_1d(pool_, task, context, count, /*flags=*/0);
}

}  // namespace nestling
