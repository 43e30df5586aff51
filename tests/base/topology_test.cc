// SPDX-License-Identifier: Apache-2.0
#include "base/topology.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "base/thread_pool.h"

namespace nestling {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

// A phone: four small cores, three large ones, a prime one; capacities as arm64 kernels give them.
Topology Phone() {
  return {{{0, 325}, {1, 325}, {2, 325}, {3, 325}, {4, 800}, {5, 800}, {6, 800}, {7, 1024}}, 0};
}

CoreChoice Choose(const Topology& topology, size_t num_threads, uint64_t cpu_mask) {
  const auto choice = ChooseCores(topology, num_threads, cpu_mask);
  EXPECT_TRUE(choice.ok()) << choice.status().message();
  return choice.ok() ? *choice : CoreChoice{};
}

TEST(Topology, AThreadForEachPerformanceCoreAndWorkersOnThose) {
  const CoreChoice choice = Choose(Phone(), 0, 0);
  EXPECT_EQ(choice.num_threads, 4u);
  EXPECT_THAT(choice.workers, ElementsAre(4, 5, 6, 7));
}

TEST(Topology, FewerThreadsThanPerformanceCoresStayOnThem) {
  const CoreChoice choice = Choose(Phone(), 2, 0);
  EXPECT_EQ(choice.num_threads, 2u);
  EXPECT_THAT(choice.workers, ElementsAre(4, 5, 6, 7));
}

TEST(Topology, MoreThreadsThanPerformanceCoresMayUseAll) {
  const CoreChoice choice = Choose(Phone(), 6, 0);
  EXPECT_EQ(choice.num_threads, 6u);
  EXPECT_THAT(choice.workers, IsEmpty());
}

TEST(Topology, EqualAndUnknownCoresAreAllUsedAndNotPinned) {
  for (const uint64_t speed : {0, 5, 3000000}) {
    const Topology equal = {{{0, speed}, {1, speed}, {6, speed}}, 0};
    const CoreChoice choice = Choose(equal, 0, 0);
    EXPECT_EQ(choice.num_threads, 3u) << speed;
    EXPECT_THAT(choice.workers, IsEmpty()) << speed;
  }
}

TEST(Topology, OnlyUsableCoresCount) {
  const Topology small_only = {{{0, 325}, {2, 325}}, 0};  // a background process's cores
  const CoreChoice choice = Choose(small_only, 0, 0);
  EXPECT_EQ(choice.num_threads, 2u);
  EXPECT_THAT(choice.workers, IsEmpty());
}

TEST(Topology, AQuotaLimitsTheDefaultButNotAnExplicitNumber) {
  Topology limited = Phone();
  limited.quota = 2;
  EXPECT_EQ(Choose(limited, 0, 0).num_threads, 2u);
  EXPECT_EQ(Choose(limited, 4, 0).num_threads, 4u);
}

TEST(Topology, AMaskChoosesTheWorkersCoresAndTheDefaultNumber) {
  const CoreChoice choice = Choose(Phone(), 0, 0x31);
  EXPECT_EQ(choice.num_threads, 3u);
  EXPECT_THAT(choice.workers, ElementsAre(0, 4, 5));
  EXPECT_EQ(Choose(Phone(), 2, 0x31).num_threads, 2u);
  // Cores that do not exist or may not be used are left out while others remain.
  EXPECT_THAT(Choose(Phone(), 0, 0xff80).workers, ElementsAre(7));
}

TEST(Topology, AMaskWithoutUsableCoresNamesThoseThatThereAre) {
  const auto choice = ChooseCores({{{0, 0}, {70, 0}}, 0}, 0, 0x2);
  EXPECT_EQ(choice.status().code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(choice.status().message(), HasSubstr("0x2"));
  EXPECT_THAT(choice.status().message(), HasSubstr("0 70"));
}

TEST(Topology, ThisMachineHasACoreAndAThreadCanBePinnedToIt) {
  const Topology all = ReadTopology();
  ASSERT_FALSE(all.cores.empty());
  const uint32_t last = all.cores.back().number;
  std::thread([last] {
    PinThisThread({last});
    const Topology pinned = ReadTopology();
    ASSERT_EQ(pinned.cores.size(), 1u);
    EXPECT_EQ(pinned.cores[0].number, last);
  }).join();
  EXPECT_EQ(ReadTopology().cores.size(), all.cores.size());  // the caller is not pinned
}

TEST(Topology, AMaskedPoolDoesNotPinItsCaller) {
  const Topology before = ReadTopology();
  if (before.cores.front().number >= 64) GTEST_SKIP() << "masks have no bit for these cores";
  const auto pool = ThreadPool::Create(2, uint64_t{1} << before.cores.front().number);
  ASSERT_TRUE(pool.ok());
  (*pool)->ParallelFor(4, [](size_t) {});
  (*pool)->get();
  EXPECT_EQ(ReadTopology().cores.size(), before.cores.size());
}

}  // namespace
}  // namespace nestling
