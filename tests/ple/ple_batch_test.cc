// SPDX-License-Identifier: Apache-2.0
#include "ple/ple_batch.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <random>
#include <thread>
#include <vector>

#include "ple/io_uring_reader.h"
#include "ple/ple_store.h"
#include "tests/ple/faulty_storage.h"
#include "tests/support/tiny_model.h"

namespace nestling {
namespace {

using testing::FaultyStorage;
using testing::Mechanism;

constexpr uint32_t kVocab = 96, kLayers = 10, kDim = 32;
constexpr size_t kMaxTokens = 200;

// A model whose PLE values say where they stand, opened.
class PleBatchTest : public ::testing::TestWithParam<Mechanism> {
 protected:
  void SetUp() override {
    testing::TinyModelOptions options;
    options.ple_values_encode_index = true;
    ASSERT_TRUE(testing::WriteTinyModel(path_.path(), options).ok());
    auto model = ContainerReader::Open(path_.path());
    ASSERT_TRUE(model.ok());
    model_ = std::move(model).value();
  }

  void Open(PleMode mode, uint64_t cache_bytes = 0) {
    batch_.reset();
    auto store =
        PleStore::Create(*model_, {.mode = mode, .cache_bytes = cache_bytes, .calls = &storage_});
    ASSERT_TRUE(store.ok()) << store.status().message();
    store_ = std::move(store).value();
    std::vector<uint32_t> layers;
    for (uint32_t layer = 0; layer < kLayers; ++layer) layers.push_back(layer);
    whole_ = store_->table().Select(layers);
    batch_ = NewBatch();
  }

  std::unique_ptr<PleBatch> NewBatch() {
    auto batch = PleBatch::Create(*store_, kMaxTokens);
    EXPECT_TRUE(batch.ok());
    return std::move(batch).value();
  }

  Status Read(PleBatch& batch, std::span<const int32_t> ids) {
    batch.Start(ids, whole_);
    return batch.Wait();
  }

  // Values of the batch that are not those of their token, layer and place.
  size_t CountWrong(const PleBatch& batch, std::span<const int32_t> ids) const {
    size_t wrong = 0;
    std::vector<float> values(kDim);
    for (size_t i = 0; i < ids.size(); ++i) {
      const uint64_t token =
          ids[i] >= 0 && ids[i] < static_cast<int32_t>(kVocab) ? static_cast<uint64_t>(ids[i]) : 0;
      for (uint32_t layer = 0; layer < kLayers; ++layer) {
        store_->table().DequantizeSpan(batch.row(i), layer, 1.0f, values.data());
        for (uint32_t k = 0; k < kDim; ++k) {
          wrong += values[k] != testing::PleIndexValue(token, layer, k);
        }
      }
    }
    return wrong;
  }

  testing::TemporaryPath path_;
  FaultyStorage storage_{GetParam()};
  std::unique_ptr<ContainerReader> model_;
  std::unique_ptr<PleStore> store_;
  PleSelection whole_;
  std::unique_ptr<PleBatch> batch_;
};

INSTANTIATE_TEST_SUITE_P(All, PleBatchTest,
                         ::testing::Values(Mechanism::kIoUring, Mechanism::kThreads,
                                           Mechanism::kThreadsOnly),
                         [](const auto& values) { return testing::MechanismName(values.param); });

TEST_P(PleBatchTest, EveryTokenGetsItsOwnRowInEveryMode) {
  for (const PleMode mode : {PleMode::kStream, PleMode::kResident, PleMode::kMmap}) {
    // No cache, one of 7 rows, the default.
    for (const uint64_t cache_bytes : {1, 10000, 0}) {
      Open(mode, cache_bytes);
      std::mt19937 random(3);
      for (const size_t count : {size_t{1}, size_t{2}, size_t{13}, kMaxTokens, size_t{5}}) {
        std::vector<int32_t> ids;
        for (size_t i = 0; i < count; ++i) {
          ids.push_back(static_cast<int32_t>(random() % (kVocab + 20)) - 5);
        }
        const Status status = Read(*batch_, ids);
        ASSERT_TRUE(status.ok()) << status.message();
        EXPECT_EQ(CountWrong(*batch_, ids), 0u) << count;
      }
    }
  }
}

TEST_P(PleBatchTest, TheMechanismIsTheOneThatTheSystemOffers) {
  Open(PleMode::kStream);
  if (GetParam() != Mechanism::kIoUring) {
    EXPECT_STREQ(store_->mechanism(), "threads");
  } else {
    const bool works = CreateIoUringReader(model_->file(), storage_).ok();
    EXPECT_STREQ(store_->mechanism(), works ? "io_uring" : "threads");
  }
  Open(PleMode::kResident);
  EXPECT_STREQ(store_->mechanism(), "resident");
  EXPECT_EQ(store_->resident_bytes(), kVocab * kLayers * kDim * sizeof(float));
  Open(PleMode::kMmap);
  EXPECT_STREQ(store_->mechanism(), "mmap");
}

TEST_P(PleBatchTest, NeighboursAreOneReadAndDuplicatesNone) {
  Open(PleMode::kStream);
  const size_t before = storage_.num_reads();
  const std::vector<int32_t> ids = {41, 40, 7, 41, 42, 7, 40};
  ASSERT_TRUE(Read(*batch_, ids).ok());
  EXPECT_EQ(CountWrong(*batch_, ids), 0u);
  EXPECT_EQ(storage_.num_reads() - before, 2u);  // 7; 40 to 42
  EXPECT_EQ(batch_->counters().rows, 4u);
  EXPECT_EQ(batch_->counters().misses, 4u);
  EXPECT_EQ(batch_->counters().hits, 0u);
  EXPECT_EQ(batch_->counters().bytes_read, 4 * store_->table().row_bytes());
}

TEST_P(PleBatchTest, WhatOneBatchReadIsThereForAnother) {
  Open(PleMode::kStream);
  const std::vector<int32_t> first = {1, 2, 3, 50}, second = {3, 4, 50, 1};
  ASSERT_TRUE(Read(*batch_, first).ok());
  const auto other = NewBatch();
  ASSERT_TRUE(Read(*other, second).ok());
  EXPECT_EQ(CountWrong(*other, second), 0u);
  EXPECT_EQ(other->counters().hits, 3u);
  EXPECT_EQ(other->counters().misses, 1u);
  EXPECT_EQ(store_->cache().num_rows(), 5u);
}

TEST_P(PleBatchTest, FaultsThatPassDoNotShow) {
  for (const FaultyStorage::Fault fault : {FaultyStorage::kShort, FaultyStorage::kInterrupted}) {
    Open(PleMode::kStream, 1);
    storage_.Set(fault);
    const std::vector<int32_t> ids = {90, 1, 5, 17, 18, 90, 44};
    ASSERT_TRUE(Read(*batch_, ids).ok());
    EXPECT_EQ(CountWrong(*batch_, ids), 0u);
    storage_.Set(FaultyStorage::kNone);
  }
}

TEST_P(PleBatchTest, AFailedBatchLeavesNothingBehind) {
  for (const FaultyStorage::Fault fault : {FaultyStorage::kInputOutput, FaultyStorage::kEnd}) {
    Open(PleMode::kStream);
    storage_.Set(fault);
    const std::vector<int32_t> ids = {90, 1, 5, 17};
    batch_->Start(ids, whole_);
    EXPECT_TRUE(batch_->Holds(ids, whole_));  // nobody knows yet
    EXPECT_EQ(batch_->Wait().code(), StatusCode::kIoError);
    EXPECT_EQ(batch_->Wait().code(), StatusCode::kIoError);
    EXPECT_FALSE(batch_->Holds(ids, whole_));
    EXPECT_EQ(store_->cache().num_rows(), 0u);
    storage_.Set(FaultyStorage::kNone);
    ASSERT_TRUE(Read(*batch_, ids).ok());
    EXPECT_EQ(CountWrong(*batch_, ids), 0u);
  }
}

TEST_P(PleBatchTest, AFileThatIsTruncatedInUseIsAnErrorAndAResidentTableDoesNotCare) {
  Open(PleMode::kResident);
  const std::vector<int32_t> ids = {3, 60};
  ASSERT_EQ(truncate(path_.path().c_str(), static_cast<off_t>(store_->table().RowOffset(50))), 0);
  ASSERT_TRUE(Read(*batch_, ids).ok());
  EXPECT_EQ(CountWrong(*batch_, ids), 0u);
  Open(PleMode::kStream);
  EXPECT_EQ(Read(*batch_, ids).code(), StatusCode::kIoError);
  const std::vector<int32_t> early = {3, 49};
  ASSERT_TRUE(Read(*batch_, early).ok());
  EXPECT_EQ(CountWrong(*batch_, early), 0u);
}

TEST_P(PleBatchTest, WhatWasAskedForIsHeldUntilSomethingElseIs) {
  Open(PleMode::kStream);
  const std::vector<int32_t> ids = {4, 5}, others = {4, 6};
  PleSelection part = whole_;
  part.layers = 1;
  EXPECT_FALSE(batch_->Holds(ids, whole_));
  batch_->Start(ids, whole_);
  EXPECT_TRUE(batch_->Holds(ids, whole_));
  EXPECT_FALSE(batch_->Holds(others, whole_));
  EXPECT_FALSE(batch_->Holds(std::span(ids).first(1), whole_));
  EXPECT_FALSE(batch_->Holds(ids, part));
  batch_->Start(others, whole_);  // without having waited
  EXPECT_FALSE(batch_->Holds(ids, whole_));
  ASSERT_TRUE(batch_->Wait().ok());
  EXPECT_EQ(CountWrong(*batch_, others), 0u);
}

TEST_P(PleBatchTest, TrimForgetsLargeBatchesOnly) {
  Open(PleMode::kStream);
  const std::vector<int32_t> small = {4, 5};
  std::vector<int32_t> large;
  for (int32_t id = 0; id < 64; ++id) large.push_back(id);
  batch_->Start(small, whole_);
  batch_->Trim();
  EXPECT_TRUE(batch_->Holds(small, whole_));
  EXPECT_EQ(CountWrong(*batch_, small), 0u);
  batch_->Start(large, whole_);
  batch_->Trim();
  EXPECT_FALSE(batch_->Holds(large, whole_));
  ASSERT_TRUE(Read(*batch_, large).ok());
  EXPECT_EQ(CountWrong(*batch_, large), 0u);
}

TEST_P(PleBatchTest, BatchesOfSeveralThreadsShareTheStore) {
  Open(PleMode::kStream, 20000);  // 15 rows
  std::atomic<size_t> wrong{0};
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < 3; ++t) {
    threads.emplace_back([&, t] {
      const auto batch = NewBatch();
      std::mt19937 random(t);
      for (int round = 0; round < 100; ++round) {
        std::vector<int32_t> ids(1 + random() % 40);
        for (int32_t& id : ids) id = static_cast<int32_t>(random() % kVocab);
        if (!Read(*batch, ids).ok()) ++wrong;
        wrong += CountWrong(*batch, ids);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0u);
}

TEST(PleStoreTest, ThreadsReadOnWhenIoUringIsTakenAway) {
  const auto model = testing::OpenTinyModel();
  ASSERT_TRUE(model.ok());
  FaultyStorage storage(Mechanism::kIoUring);
  const auto store = PleStore::Create(**model, {.calls = &storage});
  ASSERT_TRUE(store.ok());
  if (std::string((*store)->mechanism()) != "io_uring") GTEST_SKIP() << "no io_uring here";
  const auto batch = PleBatch::Create(**store, 8);
  ASSERT_TRUE(batch.ok());
  const std::vector<int32_t> ids = {4, 9};
  const std::vector<uint32_t> layers = {0, 1, 2};
  const PleSelection selection = (*store)->table().Select(layers);
  storage.BreakIoUring(EPERM);
  (*batch)->Start(ids, selection);
  EXPECT_EQ((*batch)->Wait().code(), StatusCode::kIoError);
  (*batch)->Start(ids, selection);
  EXPECT_TRUE((*batch)->Wait().ok());
  EXPECT_STREQ((*store)->mechanism(), "threads");
}

TEST(PleStoreTest, NoDescriptorIsLeftBehind) {
  const auto model = testing::OpenTinyModel();
  ASSERT_TRUE(model.ok());
  const int before = dup(0);
  close(before);
  for (int i = 0; i < 100; ++i) {
    const auto store = PleStore::Create(**model, {});
    ASSERT_TRUE(store.ok());
    const auto batch = PleBatch::Create(**store, 8);
    ASSERT_TRUE(batch.ok());
    const std::vector<uint32_t> layers = {0};
    const std::vector<int32_t> ids = {i % 96};
    (*batch)->Start(ids, (*store)->table().Select(layers));
  }
  const int after = dup(0);
  close(after);
  EXPECT_EQ(after, before);
}

}  // namespace
}  // namespace nestling
