// SPDX-License-Identifier: Apache-2.0
#include "base/thread_pool.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <pthreadpool.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <set>
#include <thread>
#include <utility>
#include <vector>

#include "base/spin.h"

namespace nestling {
namespace {

using testing::Each;

std::unique_ptr<ThreadPool> MakePool(size_t num_threads, uint64_t cpu_mask = 0) {
  auto pool = ThreadPool::Create(num_threads, cpu_mask);
  EXPECT_TRUE(pool.ok()) << pool.status().message();
  return std::move(*pool);
}

std::vector<int> CountRuns(const ThreadPool& pool, size_t count) {
  std::vector<std::atomic<int>> runs(count);
  pool.ParallelFor(count, [&](size_t i) { ++runs[i]; });
  return {runs.begin(), runs.end()};
}

TEST(ThreadPool, RunsEveryUnitExactlyOnceWithAnyNumberOfThreads) {
  for (size_t threads = 1; threads <= 6; ++threads) {
    const auto pool = MakePool(threads);
    EXPECT_EQ(pool->num_threads(), threads);
    for (const size_t count : {0, 1, 2, 3, 7, 64, 1000}) {
      EXPECT_THAT(CountRuns(*pool, count), Each(1)) << threads << " threads, " << count;
    }
  }
}

TEST(ThreadPool, TellsUnitsWhichThreadRunsThem) {
  for (size_t threads = 1; threads <= 4; ++threads) {
    const auto pool = MakePool(threads);
    std::vector<std::atomic<bool>> busy(threads);
    std::atomic<int> overlaps{0}, units{0};
    for (int region = 0; region < 200; ++region) {
      pool->ParallelFor(50, [&](size_t, size_t thread) {
        ASSERT_LT(thread, threads);
        overlaps += busy[thread].exchange(true);
        ++units;
        busy[thread] = false;
      });
    }
    EXPECT_EQ(units, 200 * 50);
    EXPECT_EQ(overlaps, 0);
  }
}

TEST(ThreadPool, KeepsRegionsApartOverManyOfThem) {
  const auto pool = MakePool(4);
  std::vector<uint32_t> sums(5);  // plain memory: a unit of a region that has ended would race
  for (uint32_t region = 0; region < 20000; ++region) {
    pool->ParallelFor(sums.size(), [&](size_t i) { sums[i] += region; });
  }
  EXPECT_THAT(sums, Each(20000u * 19999u / 2));
}

TEST(ThreadPool, WakesWorkersThatSleep) {
  const auto pool = MakePool(2);
  for (int round = 0; round < 20; ++round) {
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
    // Each unit waits for the other one, so that both threads must take part.
    std::atomic<int> begun{0};
    pool->ParallelFor(2, [&](size_t) {
      ++begun;
      while (begun < 2) std::this_thread::yield();
    });
  }
}

TEST(ThreadPool, AStoppedWorkerHoldsUpOnlyTheUnitThatItHasBegun) {
  const auto pool = MakePool(2);
  const auto caller = std::this_thread::get_id();
  constexpr size_t kCount = 100;
  std::vector<std::atomic<int>> runs(kCount);
  std::atomic<size_t> done{0}, by_worker{0};
  std::atomic<bool> worker_in{false};
  pool->ParallelFor(kCount, [&](size_t i) {
    ++runs[i];
    if (std::this_thread::get_id() == caller) {
      while (!worker_in) std::this_thread::yield();
    } else {
      ++by_worker;
      worker_in = true;
      while (done < kCount - 1) std::this_thread::yield();  // until all else is done without it
    }
    ++done;
  });
  EXPECT_THAT((std::vector<int>(runs.begin(), runs.end())), Each(1));
  EXPECT_EQ(by_worker, 1u);
}

TEST(ThreadPool, SeveralCallersAtATimeGetAllTheirUnits) {
  const auto pool = MakePool(3);
  std::vector<std::thread> callers;
  for (size_t caller = 0; caller < 4; ++caller) {
    callers.emplace_back([&pool, caller] {
      std::vector<uint32_t> sums(3 + caller);
      for (uint32_t region = 0; region < 3000; ++region) {
        pool->ParallelFor(sums.size(), [&](size_t i) { sums[i] += region; });
      }
      EXPECT_THAT(sums, Each(3000u * 2999u / 2));
    });
  }
  for (std::thread& caller : callers) caller.join();
}

TEST(ThreadPool, ACallerIsNotHeldUpByAnotherOnesRegion) {
  const auto pool = MakePool(2);
  std::atomic<bool> other_done{false};
  std::thread other;
  pool->ParallelFor(2, [&](size_t i) {
    if (i == 0) {
      other = std::thread([&] {
        EXPECT_THAT(CountRuns(*pool, 50), Each(1));
        other_done = true;
      });
    }
    while (!other_done) std::this_thread::yield();
  });
  other.join();
}

TEST(ThreadPool, ARegionInsideARegionRunsOnItsThread) {
  const auto pool = MakePool(3);
  std::vector<std::atomic<int>> runs(20 * 10);
  pool->ParallelFor(20, [&](size_t outer) {
    const auto thread = std::this_thread::get_id();
    pool->ParallelFor(10, [&](size_t inner) {
      EXPECT_EQ(std::this_thread::get_id(), thread);
      ++runs[outer * 10 + inner];
    });
  });
  EXPECT_THAT((std::vector<int>(runs.begin(), runs.end())), Each(1));
}

TEST(ThreadPool, CanBeDestroyedWhateverItsWorkersDo) {
  for (int round = 0; round < 50; ++round) {
    const auto pool = MakePool(4);
    if (round % 2 == 0) CountRuns(*pool, 8);                                        // they spin
    if (round % 8 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(2));  // they sleep
  }
}

TEST(ThreadPool, StartsXnnpacksThreadsOnlyWhenAsked) {
  const auto alone = MakePool(1);
  EXPECT_EQ(alone->get(), nullptr);
  const auto pool = MakePool(3);
  pthreadpool* first = pool->get();
  ASSERT_NE(first, nullptr);
  EXPECT_EQ(pool->get(), first);
  EXPECT_EQ(pthreadpool_get_threads_count(first), 3u);
  EXPECT_THAT(CountRuns(*pool, 100), Each(1));
}

TEST(ThreadPool, RefusesTooManyThreadsAndMasksWithoutUsableCores) {
  EXPECT_EQ(ThreadPool::Create(100000).status().code(), StatusCode::kInvalidArgument);
  CoreSet usable;
  uint64_t mask = ~uint64_t{0};
  for (const Core& core : ReadTopology().cores) {
    if (core.number < 64) mask &= ~(uint64_t{1} << core.number);
  }
  if (mask == 0) GTEST_SKIP() << "all 64 cores are usable";
  const auto pool = ThreadPool::Create(2, mask);
  EXPECT_EQ(pool.status().code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(pool.status().message(), testing::HasSubstr("cpu mask"));
}

TEST(SpinBudget, SeesWhatIsReadyAndGivesUpOtherwise) {
  SpinBudget spin;
  EXPECT_TRUE(spin.Spin([] { return true; }));
  EXPECT_FALSE(spin.Spin([] { return false; }));
  int looks = 0;
  EXPECT_TRUE(spin.Spin([&] { return ++looks > 5; }));
}

}  // namespace
}  // namespace nestling
