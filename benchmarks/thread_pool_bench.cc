// SPDX-License-Identifier: Apache-2.0
// Cost of handing a parallel region to the pool, ours beside pthreadpool. Argument: units.
#include <benchmark/benchmark.h>
#include <pthreadpool.h>

#include <chrono>
#include <thread>

#include "base/spin.h"
#include "base/thread_pool.h"

namespace nestling {
namespace {

constexpr size_t kThreads = 2;

// A unit of about `microseconds`, of the processor's own time and not of memory.
void Unit(int microseconds) {
  for (int i = 0; i < microseconds * 20; ++i) CpuRelax();
}

void BenchPool(benchmark::State& state, int microseconds) {
  const auto pool = ThreadPool::Create(kThreads);
  const size_t units = static_cast<size_t>(state.range(0));
  for (auto _ : state) {
    (*pool)->ParallelFor(units, [&](size_t) { Unit(microseconds); });
  }
}

void BenchPthreadpool(benchmark::State& state, int microseconds) {
  pthreadpool* pool = pthreadpool_create(kThreads);
  const size_t units = static_cast<size_t>(state.range(0));
  for (auto _ : state) {
    pthreadpool_parallelize_1d(
        pool, [](void* context, size_t) { Unit(*static_cast<const int*>(context)); }, &microseconds,
        units, /*flags=*/0);
  }
  pthreadpool_destroy(pool);
}

// Nothing to do for longer than anybody spins: the region has to wake the worker.
void BenchWake(benchmark::State& state) {
  const auto pool = ThreadPool::Create(kThreads);
  const size_t units = static_cast<size_t>(state.range(0));
  for (auto _ : state) {
    state.PauseTiming();
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    state.ResumeTiming();
    (*pool)->ParallelFor(units, [](size_t) {});
  }
}

// Two callers at a time, as two sessions are: time of a region of one of them.
void BenchCallers(benchmark::State& state) {
  static const auto pool = ThreadPool::Create(kThreads);
  const size_t units = static_cast<size_t>(state.range(0));
  for (auto _ : state) {
    (*pool)->ParallelFor(units, [](size_t) { Unit(4); });
    Unit(4);  // what lies between two regions
  }
}

BENCHMARK_CAPTURE(BenchPool, empty, 0)->Arg(2)->Arg(64)->UseRealTime();
BENCHMARK_CAPTURE(BenchPthreadpool, empty, 0)->Arg(2)->Arg(64)->UseRealTime();
BENCHMARK_CAPTURE(BenchPool, work, 4)->Arg(16)->Arg(64)->UseRealTime();
BENCHMARK_CAPTURE(BenchPthreadpool, work, 4)->Arg(16)->Arg(64)->UseRealTime();
BENCHMARK(BenchWake)->Arg(2)->UseRealTime()->Iterations(500);
BENCHMARK(BenchCallers)->Arg(64)->Threads(1)->Threads(2)->UseRealTime();

}  // namespace
}  // namespace nestling

BENCHMARK_MAIN();
