// SPDX-License-Identifier: Apache-2.0
#include "ple/row_cache.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cstring>
#include <random>
#include <thread>
#include <vector>

namespace nestling {
namespace {

constexpr size_t kRowBytes = 64;
constexpr uint32_t kNumRows = 262144;

PleSelection WholeRow() { return {~uint64_t{0}, {{0, kRowBytes}}, kRowBytes}; }

using Row = std::vector<std::byte>;

// Says in every word which row it is.
Row RowNumber(uint32_t row) {
  Row data(kRowBytes);
  for (size_t i = 0; i < kRowBytes; i += sizeof row) std::memcpy(data.data() + i, &row, sizeof row);
  return data;
}

std::unique_ptr<RowCache> MakeCache(uint64_t budget_bytes) {
  auto cache = RowCache::Create(budget_bytes, kRowBytes, kNumRows);
  EXPECT_TRUE(cache.ok());
  return std::move(cache).value();
}

// Looks up, checks the content of a hit, inserts after a miss.
bool Use(RowCache& cache, uint32_t row) {
  Row out(kRowBytes);
  if (cache.Lookup(row, WholeRow(), out.data())) {
    EXPECT_EQ(out, RowNumber(row));
    return true;
  }
  cache.Insert(row, WholeRow(), RowNumber(row).data());
  return false;
}

TEST(RowCacheTest, ReturnsWhatWasInsertedAndNothingElse) {
  const auto cache = MakeCache(100000);
  Row out(kRowBytes);
  EXPECT_FALSE(cache->Lookup(7, WholeRow(), out.data()));
  cache->Insert(7, WholeRow(), RowNumber(7).data());
  EXPECT_TRUE(cache->Lookup(7, WholeRow(), out.data()));
  EXPECT_EQ(out, RowNumber(7));
  EXPECT_FALSE(cache->Lookup(8, WholeRow(), out.data()));
  EXPECT_EQ(cache->num_rows(), 1u);
}

TEST(RowCacheTest, StaysWithinItsBudgetUnderAMillionRandomRows) {
  constexpr uint64_t kBudget = 200000;
  const auto cache = MakeCache(kBudget);
  EXPECT_LE(cache->capacity_bytes(), kBudget);
  EXPECT_GT(cache->capacity_rows(), 1000u);
  std::mt19937 random(1);
  size_t hits = 0;
  for (int i = 0; i < 1000000; ++i) {
    // Half of all uses fall on 300 rows.
    const uint32_t row = random() % 2 == 0 ? random() % 300 : random() % kNumRows;
    hits += Use(*cache, row);
    if (i % 1000 == 0) {
      ASSERT_LE(cache->num_rows(), cache->capacity_rows());
    }
  }
  EXPECT_EQ(cache->num_rows(), cache->capacity_rows());
  EXPECT_GT(hits, 490000u);
  EXPECT_EQ(cache->evictions(), 1000000 - hits - cache->num_rows());
}

TEST(RowCacheTest, AHotSetSurvivesAScan) {
  const auto cache = MakeCache(200000);
  constexpr uint32_t kHot = 500;
  for (int round = 0; round < 3; ++round) {
    for (uint32_t row = 0; row < kHot; ++row) Use(*cache, row);
  }
  // A hundred times the cache, each row once, and no hot row meanwhile.
  for (uint32_t row = 1000; row < 201000; ++row) EXPECT_FALSE(Use(*cache, row));
  size_t hits = 0;
  for (uint32_t row = 0; row < kHot; ++row) hits += Use(*cache, row);
  EXPECT_EQ(hits, kHot);
}

TEST(RowCacheTest, ANewHotSetReplacesAnOldOne) {
  const auto cache = MakeCache(100000);
  const uint32_t num_hot = static_cast<uint32_t>(cache->capacity_rows());
  for (int round = 0; round < 5; ++round) {
    for (uint32_t row = 0; row < num_hot; ++row) Use(*cache, row);
  }
  const uint32_t first = 100000;
  const uint32_t num_new = num_hot / 2;
  for (int round = 0; round < 20; ++round) {
    for (uint32_t row = first; row < first + num_new; ++row) Use(*cache, row);
  }
  size_t hits = 0;
  for (uint32_t row = first; row < first + num_new; ++row) hits += Use(*cache, row);
  EXPECT_EQ(hits, num_new);
}

TEST(RowCacheTest, ARowThatComesBackSoonAfterItLeftIsKept) {
  const auto cache = MakeCache(100000);
  const uint32_t capacity = static_cast<uint32_t>(cache->capacity_rows());
  Use(*cache, 0);
  for (uint32_t row = 1; row <= capacity; ++row) Use(*cache, row);
  ASSERT_FALSE(Use(*cache, 0));  // had left; now it has proved itself
  for (uint32_t row = 1000; row < 1000 + 10 * capacity; ++row) Use(*cache, row);
  EXPECT_TRUE(Use(*cache, 0));
}

TEST(RowCacheTest, ARowOfOneSliceIsNoAnswerForAnother) {
  const auto cache = MakeCache(100000);
  const PleSelection low = {0b0011, {{0, 32}}, 32}, high = {0b1100, {{32, 64}}, 32};
  const PleSelection both = {0b1111, {{0, 64}}, 64};
  Row out(kRowBytes);
  cache->Insert(5, low, RowNumber(5).data());
  EXPECT_TRUE(cache->Lookup(5, low, out.data()));
  EXPECT_FALSE(cache->Lookup(5, high, out.data()));
  EXPECT_FALSE(cache->Lookup(5, both, out.data()));
  cache->Insert(5, high, RowNumber(5).data());
  out.assign(kRowBytes, std::byte{0});
  EXPECT_TRUE(cache->Lookup(5, both, out.data()));
  EXPECT_EQ(out, RowNumber(5));
  EXPECT_EQ(cache->num_rows(), 1u);
}

TEST(RowCacheTest, ABudgetBelowOneRowKeepsNothing) {
  const auto cache = MakeCache(kRowBytes);
  EXPECT_EQ(cache->capacity_bytes(), 0u);
  EXPECT_FALSE(Use(*cache, 3));
  EXPECT_FALSE(Use(*cache, 3));
  EXPECT_EQ(cache->num_rows(), 0u);
}

TEST(RowCacheTest, TheSmallestCachesWork) {
  for (const uint64_t budget : {200, 400, 600, 1500}) {
    const auto cache = MakeCache(budget);
    ASSERT_GE(cache->capacity_rows(), 1u);
    std::mt19937 random(2);
    size_t hits = 0;
    for (int i = 0; i < 10000; ++i) hits += Use(*cache, random() % 20);
    EXPECT_GT(hits, 0u);
    EXPECT_EQ(cache->num_rows(), cache->capacity_rows());
  }
}

TEST(RowCacheTest, ASmallerCacheKeepsItsHotRowsAndGrowsAgain) {
  const auto cache = MakeCache(200000);
  const uint64_t whole = cache->capacity_bytes();
  const size_t whole_rows = cache->capacity_rows();
  for (int round = 0; round < 4; ++round) {
    for (uint32_t row = 0; row < 100; ++row) Use(*cache, row);
  }
  for (uint32_t row = 1000; row < 6000; ++row) Use(*cache, row);
  cache->Resize(cache->list_bytes() + 200 * kRowBytes + 1);
  EXPECT_EQ(cache->capacity_rows(), 200u);
  EXPECT_EQ(cache->num_rows(), 200u);
  EXPECT_EQ(cache->capacity_bytes(), cache->list_bytes() + 200 * kRowBytes);
  size_t hits = 0;
  for (uint32_t row = 0; row < 100; ++row) hits += Use(*cache, row);
  EXPECT_EQ(hits, 100u);
  std::mt19937 random(3);
  for (int i = 0; i < 20000; ++i) {
    Use(*cache, random() % 2000);
    ASSERT_LE(cache->num_rows(), 200u);
  }
  cache->Resize(0);
  EXPECT_EQ(cache->num_rows(), 0u);
  EXPECT_EQ(cache->capacity_bytes(), cache->list_bytes());
  EXPECT_FALSE(Use(*cache, 1));
  EXPECT_FALSE(Use(*cache, 1));
  cache->Resize(uint64_t{1} << 40);
  EXPECT_EQ(cache->capacity_bytes(), whole);
  for (uint32_t row = 0; row < 5000; ++row) Use(*cache, row);
  EXPECT_EQ(cache->num_rows(), whole_rows);
}

TEST(RowCacheTest, HoldsNoMoreRowsThanTheTable) {
  const auto cache = RowCache::Create(uint64_t{1} << 40, kRowBytes, 100);
  ASSERT_TRUE(cache.ok());
  EXPECT_EQ((*cache)->capacity_rows(), 100u);
}

TEST(RowCacheTest, ThreadsNeverSeeHalfARow) {
  const auto cache = MakeCache(20000);
  std::atomic<size_t> wrong{0};
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      std::mt19937 random(t);
      Row out(kRowBytes);
      for (int i = 0; i < 20000; ++i) {
        const uint32_t row = random() % 400;
        if (cache->Lookup(row, WholeRow(), out.data())) {
          wrong += out != RowNumber(row);
        } else {
          cache->Insert(row, WholeRow(), RowNumber(row).data());
        }
        if (t == 0 && i % 1000 == 0) cache->Resize(i % 3000 == 0 ? 20000 : 12000);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0u);
  EXPECT_LE(cache->num_rows(), cache->capacity_rows());
}

}  // namespace
}  // namespace nestling
