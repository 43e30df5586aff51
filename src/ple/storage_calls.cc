// SPDX-License-Identifier: Apache-2.0
#include "ple/storage_calls.h"

#include <sys/types.h>
#include <unistd.h>

#include <cerrno>

#if NESTLING_HAS_IO_URING
#include <sys/syscall.h>
#include <sys/uio.h>
#endif

namespace nestling {
namespace {

int64_t OrErrno(int64_t result) { return result < 0 ? -int64_t{errno} : result; }

}  // namespace

StorageCalls& StorageCalls::System() {
  static StorageCalls& calls = *new StorageCalls;
  return calls;
}

int64_t StorageCalls::Read(int fd, std::span<std::byte> out, uint64_t offset) {
  return OrErrno(pread(fd, out.data(), out.size(), static_cast<off_t>(offset)));
}

int64_t StorageCalls::ReadCached(int fd, std::span<std::byte> out, uint64_t offset) {
#if NESTLING_HAS_IO_URING && defined(RWF_NOWAIT)
  const iovec part = {out.data(), out.size()};
  return OrErrno(preadv2(fd, &part, 1, static_cast<off_t>(offset), RWF_NOWAIT));
#else
  static_cast<void>(fd), static_cast<void>(out), static_cast<void>(offset);
  return -ENOSYS;
#endif
}

int StorageCalls::IoUringSetup(unsigned entries, io_uring_params* params) {
#if NESTLING_HAS_IO_URING
  return static_cast<int>(OrErrno(syscall(__NR_io_uring_setup, entries, params)));
#else
  static_cast<void>(entries), static_cast<void>(params);
  return -ENOSYS;
#endif
}

int StorageCalls::IoUringEnter(int ring, unsigned to_submit, unsigned min_complete,
                               unsigned flags) {
#if NESTLING_HAS_IO_URING
  return static_cast<int>(OrErrno(
      syscall(__NR_io_uring_enter, ring, to_submit, min_complete, flags, nullptr, size_t{0})));
#else
  static_cast<void>(ring), static_cast<void>(to_submit);
  static_cast<void>(min_complete), static_cast<void>(flags);
  return -ENOSYS;
#endif
}

int64_t StorageCalls::IoUringResult(std::span<std::byte>, uint64_t, int64_t result) {
  return result;
}

}  // namespace nestling
