// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <string>

#include "base/file_calls.h"

namespace nestling::testing {

// The system's calls on files with faults in between. Thread-safe.
class FaultyFiles : public FileCalls {
 public:
  enum Fault {
    kNone,
    kShort,        // never more than 5000 bytes at once
    kInterrupted,  // every other call is EINTR
    kWriteError,   // EIO
    kNoSpace,      // ENOSPC
    kReadError,    // EIO
    kReadEnd,      // as if the file had ended
    kSyncError,
    kRenameError,
    kReadOnly,  // no file can be created
    kKill,      // the process ends in the middle of a write
  };

  // `fault` from write number `after` on; reads and all else: at once.
  void Set(Fault fault, int after = 0) {
    writes_left_ = after;
    fault_ = fault;
  }
  int num_writes() const { return num_writes_; }

  int CreateTemporary(std::string* path) override {
    if (fault_ == kReadOnly) return -EROFS;
    return FileCalls::CreateTemporary(path);
  }

  int64_t Write(int fd, std::span<const std::byte> bytes, uint64_t offset) override {
    ++num_writes_;
    if (fault_ == kInterrupted && ++num_calls_ % 2 == 0) return -EINTR;
    if (fault_ == kShort) bytes = bytes.first(std::min<size_t>(bytes.size(), 5000));
    if (writes_left_-- <= 0) {
      if (fault_ == kWriteError) return -EIO;
      if (fault_ == kNoSpace) return -ENOSPC;
      if (fault_ == kKill) {
        FileCalls::Write(fd, bytes.first(bytes.size() / 2), offset);
        _exit(9);  // no destructor runs, as after SIGKILL
      }
    }
    return FileCalls::Write(fd, bytes, offset);
  }

  int64_t Read(int fd, std::span<std::byte> out, uint64_t offset) override {
    if (fault_ == kReadError) return -EIO;
    if (fault_ == kReadEnd) return 0;
    if (fault_ == kInterrupted && ++num_calls_ % 2 == 0) return -EINTR;
    if (fault_ == kShort) out = out.first(std::min<size_t>(out.size(), 5));
    return FileCalls::Read(fd, out, offset);
  }

  // What tests write need not survive a loss of power.
  int Sync(int) override { return fault_ == kSyncError ? -EIO : 0; }

  int Rename(const std::string& from, const std::string& to) override {
    return fault_ == kRenameError ? -EACCES : FileCalls::Rename(from, to);
  }

 private:
  std::atomic<Fault> fault_{kNone};
  std::atomic<int> writes_left_{0};
  std::atomic<int> num_writes_{0};
  std::atomic<unsigned> num_calls_{0};
};

}  // namespace nestling::testing
