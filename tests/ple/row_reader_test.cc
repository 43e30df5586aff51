// SPDX-License-Identifier: Apache-2.0
#include "ple/row_reader.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <thread>
#include <vector>

#include "ple/io_uring_reader.h"
#include "ple/reader_threads.h"
#include "tests/ple/faulty_storage.h"
#include "tests/support/edit_container.h"
#include "tests/support/tiny_model.h"

namespace nestling {
namespace {

using testing::FaultyStorage;
using testing::Mechanism;

constexpr size_t kFileBytes = 1 << 20;

std::byte ByteAt(size_t offset) { return static_cast<std::byte>(offset * 2654435761u >> 13); }

class RowReaderTest : public ::testing::TestWithParam<Mechanism> {
 protected:
  void SetUp() override {
    testing::Bytes bytes(kFileBytes);
    for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = ByteAt(i);
    testing::WriteAllBytes(path_.path(), bytes);
    auto file = File::Open(path_.path());
    ASSERT_TRUE(file.ok());
    file_ = std::move(file).value();
    if (GetParam() == Mechanism::kIoUring) {
      auto reader = CreateIoUringReader(*file_, storage_);
      if (!reader.ok()) GTEST_SKIP() << reader.status().message();
      reader_ = std::move(reader).value();
    } else {
      threads_ = std::make_unique<ReaderThreads>(*file_, storage_, 3);
      reader_ = threads_->NewReader();
    }
  }

  // `count` reads all over the file, of up to 3000 bytes.
  void MakeRequests(size_t count) {
    requests_.clear();
    out_.assign(count * 3000, std::byte{0});
    for (size_t i = 0; i < count; ++i) {
      const size_t bytes = 100 + i * 7919 % 2900;
      requests_.push_back({i * 104729 % (kFileBytes - 3000), out_.data() + i * 3000, bytes});
    }
    wanted_ = requests_;
  }

  // Bytes that are not what the file holds.
  size_t CountWrong() const {
    size_t wrong = 0;
    for (const ReadRequest& request : wanted_) {
      for (size_t i = 0; i < request.bytes; ++i) {
        wrong += request.out[i] != ByteAt(request.offset + i);
      }
    }
    return wrong;
  }

  Status Read() {
    reader_->Start(requests_);
    return reader_->Wait();
  }

  testing::TemporaryPath path_{".bin"};
  FaultyStorage storage_{GetParam()};
  std::unique_ptr<File> file_;
  std::unique_ptr<ReaderThreads> threads_;
  std::unique_ptr<RowReader> reader_;
  std::vector<std::byte> out_;
  std::vector<ReadRequest> requests_, wanted_;
};

INSTANTIATE_TEST_SUITE_P(All, RowReaderTest,
                         ::testing::Values(Mechanism::kIoUring, Mechanism::kThreads,
                                           Mechanism::kThreadsOnly),
                         [](const auto& values) { return testing::MechanismName(values.param); });

TEST_P(RowReaderTest, ReadsWhatTheFileHolds) {
  for (const size_t count :
       {size_t{1}, size_t{2}, size_t{255}, size_t{256}, size_t{257}, size_t{1000}}) {
    MakeRequests(count);
    EXPECT_GT(CountWrong(), 0u);
    const Status status = Read();
    ASSERT_TRUE(status.ok()) << status.message();
    EXPECT_EQ(CountWrong(), 0u) << count;
  }
}

TEST_P(RowReaderTest, ABatchFromColdStorageIsReadToo) {
  MakeRequests(100);
  ASSERT_EQ(fsync(file_->descriptor()), 0);
  posix_fadvise(file_->descriptor(), 0, 0, POSIX_FADV_DONTNEED);
  ASSERT_TRUE(Read().ok());
  EXPECT_EQ(CountWrong(), 0u);
}

TEST_P(RowReaderTest, ShortReadsGoOnWhereTheyEnded) {
  storage_.Set(FaultyStorage::kShort);
  MakeRequests(300);
  ASSERT_TRUE(Read().ok());
  EXPECT_EQ(CountWrong(), 0u);
}

TEST_P(RowReaderTest, InterruptedReadsAreRepeated) {
  storage_.Set(FaultyStorage::kInterrupted);
  MakeRequests(300);
  ASSERT_TRUE(Read().ok());
  EXPECT_EQ(CountWrong(), 0u);
}

TEST_P(RowReaderTest, EndlessInterruptionsAreGivenUp) {
  storage_.Set(FaultyStorage::kAlwaysInterrupted);
  MakeRequests(10);
  EXPECT_EQ(Read().code(), StatusCode::kIoError);
  storage_.Set(FaultyStorage::kNone);
  MakeRequests(10);
  EXPECT_TRUE(Read().ok());
  EXPECT_EQ(CountWrong(), 0u);
}

TEST_P(RowReaderTest, AnErrorFailsItsBatchAndNotTheNext) {
  for (const FaultyStorage::Fault fault : {FaultyStorage::kInputOutput, FaultyStorage::kEnd}) {
    storage_.Set(fault);
    MakeRequests(700);
    const Status status = Read();
    EXPECT_EQ(status.code(), StatusCode::kIoError);
    EXPECT_NE(status.message().find("PLE table"), std::string::npos) << status.message();
    EXPECT_NE(status.message().find(path_.path()), std::string::npos) << status.message();
    storage_.Set(FaultyStorage::kNone);
    MakeRequests(700);
    EXPECT_TRUE(Read().ok());
    EXPECT_EQ(CountWrong(), 0u);
    EXPECT_TRUE(reader_->usable());
  }
}

TEST_P(RowReaderTest, AFileThatWasTruncatedIsAnErrorWithBothNumbers) {
  ASSERT_EQ(truncate(path_.path().c_str(), 1000), 0);
  std::vector<std::byte> out(3000);
  std::vector<ReadRequest> requests = {{500, out.data(), 3000}};
  reader_->Start(requests);
  const Status status = reader_->Wait();
  EXPECT_EQ(status.code(), StatusCode::kIoError);
  EXPECT_NE(status.message().find("ended at 1000 bytes, wanted 3500"), std::string::npos)
      << status.message();
}

TEST_P(RowReaderTest, StartDoesNotWaitForStorage) {
  if (GetParam() == Mechanism::kIoUring) GTEST_SKIP() << "the gate is not in the kernel";
  storage_.CloseGate();
  MakeRequests(20);
  reader_->Start(requests_);  // would never return
  EXPECT_GT(CountWrong(), 0u);
  storage_.OpenGate();
  ASSERT_TRUE(reader_->Wait().ok());
  EXPECT_EQ(CountWrong(), 0u);
}

TEST_P(RowReaderTest, AReaderThatIsDestroyedWaitsForItsBatch) {
  MakeRequests(500);
  reader_->Start(requests_);
  reader_.reset();
  out_.assign(out_.size(), std::byte{1});  // nobody writes here any more
  for (const std::byte b : out_) ASSERT_EQ(b, std::byte{1});
}

TEST(ReaderThreadsTest, ReadersOfSeveralThreadsShareThem) {
  const testing::TemporaryPath path(".bin");
  testing::Bytes bytes(kFileBytes);
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = ByteAt(i);
  testing::WriteAllBytes(path.path(), bytes);
  const auto file = File::Open(path.path());
  ASSERT_TRUE(file.ok());
  for (const size_t num_threads : {size_t{0}, size_t{2}}) {
    FaultyStorage storage(Mechanism::kThreadsOnly);
    ReaderThreads threads(**file, storage, num_threads);
    std::atomic<size_t> wrong{0};
    std::vector<std::thread> users;
    for (size_t user = 0; user < 4; ++user) {
      users.emplace_back([&, user] {
        const auto reader = threads.NewReader();
        std::vector<std::byte> out(32 * 100);
        for (size_t round = 0; round < 50; ++round) {
          std::vector<ReadRequest> requests;
          for (size_t i = 0; i < 32; ++i) {
            requests.push_back(
                {(user * 7001 + round * 503 + i * 30011) % 1000000, out.data() + i * 100, 100});
          }
          const std::vector<ReadRequest> wanted = requests;
          reader->Start(requests);
          if (!reader->Wait().ok()) ++wrong;
          for (const ReadRequest& request : wanted) {
            for (size_t i = 0; i < 100; ++i) wrong += request.out[i] != ByteAt(request.offset + i);
          }
        }
      });
    }
    for (std::thread& user : users) user.join();
    EXPECT_EQ(wrong, 0u) << num_threads;
  }
}

TEST(IoUringReaderTest, ARefusalOfTheSystemIsUnsupported) {
  const auto file = File::Open("/proc/self/exe");
  ASSERT_TRUE(file.ok());
  for (const int error : {ENOSYS, EPERM, ENOMEM, EMFILE}) {
    FaultyStorage storage(Mechanism::kThreads);
    storage.setup_error = error;
    EXPECT_EQ(CreateIoUringReader(**file, storage).status().code(), StatusCode::kUnsupported);
  }
  FaultyStorage storage(Mechanism::kIoUring);
  storage.BreakIoUring(EPERM);  // the setup is allowed, the use is not
  EXPECT_EQ(CreateIoUringReader(**file, storage).status().code(), StatusCode::kUnsupported);
}

TEST(IoUringReaderTest, ABrokenRingIsAnErrorAndNotUsable) {
  const testing::TemporaryPath path(".bin");
  testing::WriteAllBytes(path.path(), testing::Bytes(4096));
  const auto file = File::Open(path.path());
  ASSERT_TRUE(file.ok());
  FaultyStorage storage(Mechanism::kIoUring);
  const auto reader = CreateIoUringReader(**file, storage);
  if (!reader.ok()) GTEST_SKIP() << reader.status().message();
  storage.BreakIoUring(EBADF);
  std::vector<std::byte> out(100);
  std::vector<ReadRequest> requests = {{0, out.data(), 100}};
  (*reader)->Start(requests);
  EXPECT_EQ((*reader)->Wait().code(), StatusCode::kIoError);
  EXPECT_FALSE((*reader)->usable());
}

}  // namespace
}  // namespace nestling
