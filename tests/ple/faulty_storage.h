// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cerrno>
#include <condition_variable>
#include <mutex>
#include <string>

#include "ple/storage_calls.h"

namespace nestling::testing {

// How rows are read, for tests that go through all of it.
enum class Mechanism { kIoUring, kThreads, kThreadsOnly };

inline std::string MechanismName(Mechanism mechanism) {
  switch (mechanism) {
    case Mechanism::kIoUring:
      return "IoUring";
    case Mechanism::kThreads:
      return "Threads";
    case Mechanism::kThreadsOnly:
      return "ThreadsWithoutPageCache";
  }
  return "";
}

// The system's calls with faults in between.
class FaultyStorage : public StorageCalls {
 public:
  enum Fault {
    kNone,
    kShort,        // never more than 5 bytes at once
    kInterrupted,  // every other call is EINTR
    kAlwaysInterrupted,
    kInputOutput,  // EIO
    kEnd,          // as if the file had ended
  };

  explicit FaultyStorage(Mechanism mechanism = Mechanism::kIoUring) : mechanism_(mechanism) {}

  void Set(Fault fault) { fault_ = fault; }
  // Reads wait until it is opened. Only for Mechanism::kThreads*.
  void CloseGate() { gate_closed_ = true; }
  void OpenGate() {
    const std::lock_guard lock(mutex_);
    gate_closed_ = false;
    opened_.notify_all();
  }
  // io_uring stops working.
  void BreakIoUring(int error) { enter_error_ = error; }
  // Reads that were asked for, those from the page cache included.
  size_t num_reads() const { return num_reads_; }

  int64_t Read(int fd, std::span<std::byte> out, uint64_t offset) override {
    if (gate_closed_) {
      std::unique_lock lock(mutex_);
      opened_.wait(lock, [this] { return !gate_closed_; });
    }
    ++num_reads_;
    return Disturb(out, StorageCalls::Read(fd, out, offset));
  }

  int64_t ReadCached(int fd, std::span<std::byte> out, uint64_t offset) override {
    if (mechanism_ == Mechanism::kThreadsOnly) return -EOPNOTSUPP;
    if (gate_closed_) return -EAGAIN;
    const int64_t result = StorageCalls::ReadCached(fd, out, offset);
    // A system without such reads has not read; it is asked once.
    if (result == -EOPNOTSUPP || result == -ENOSYS) return result;
    ++num_reads_;
    return Disturb(out, result);
  }

  int IoUringSetup(unsigned entries, io_uring_params* params) override {
    if (mechanism_ != Mechanism::kIoUring) return -setup_error;
    return StorageCalls::IoUringSetup(entries, params);
  }

  int IoUringEnter(int ring, unsigned to_submit, unsigned min_complete, unsigned flags) override {
    if (enter_error_ != 0) return -enter_error_;
    const int result = StorageCalls::IoUringEnter(ring, to_submit, min_complete, flags);
    if (result > 0) num_reads_ += static_cast<size_t>(result);
    return result;
  }

  int64_t IoUringResult(std::span<std::byte> out, uint64_t, int64_t result) override {
    return Disturb(out, result);
  }

  int setup_error = ENOSYS;

 private:
  int64_t Disturb(std::span<std::byte> out, int64_t result) {
    switch (fault_.load()) {
      case kNone:
        break;
      case kShort:
        if (result > 5) {
          // Nothing beyond what was reported may count as read.
          for (size_t i = 5; i < out.size(); ++i) out[i] = std::byte{0xee};
          return 5;
        }
        break;
      case kInterrupted:
        if (++num_calls_ % 2 == 0) return -EINTR;
        break;
      case kAlwaysInterrupted:
        return -EINTR;
      case kInputOutput:
        return -EIO;
      case kEnd:
        return 0;
    }
    return result;
  }

  const Mechanism mechanism_;
  std::atomic<Fault> fault_{kNone};
  std::atomic<int> enter_error_{0};
  std::atomic<size_t> num_calls_{0};
  std::atomic<size_t> num_reads_{0};
  std::atomic<bool> gate_closed_{false};
  std::mutex mutex_;
  std::condition_variable opened_;
};

}  // namespace nestling::testing
