// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

struct io_uring_params;

// io_uring may be tried here. Not on Android: its filter for apps ends the process on the call.
#if defined(__linux__) && !defined(__ANDROID__) && __has_include(<linux/io_uring.h>)
#define NESTLING_HAS_IO_URING 1
#else
#define NESTLING_HAS_IO_URING 0
#endif

namespace nestling {

// What reading rows asks of the operating system, so that tests can put faults in between. Results
// are as of the calls, but -errno instead of -1. Thread-safe.
class StorageCalls {
 public:
  virtual ~StorageCalls() = default;

  // The system's own; never destroyed.
  static StorageCalls& System();

  // Positional; may be short, 0 at the end of the file.
  virtual int64_t Read(int fd, std::span<std::byte> out, uint64_t offset);
  // Like Read, but only what the page cache holds: -EAGAIN rather than to wait for storage,
  // -EOPNOTSUPP or -ENOSYS where the system cannot say.
  virtual int64_t ReadCached(int fd, std::span<std::byte> out, uint64_t offset);
  virtual int IoUringSetup(unsigned entries, io_uring_params* params);
  virtual int IoUringEnter(int ring, unsigned to_submit, unsigned min_complete, unsigned flags);
  // What io_uring said about a read: a test may say something else.
  virtual int64_t IoUringResult(std::span<std::byte> out, uint64_t offset, int64_t result);
};

}  // namespace nestling
