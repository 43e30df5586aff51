// SPDX-License-Identifier: Apache-2.0
#include "base/file_calls.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/types.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>

namespace nestling {
namespace {

int64_t OrErrno(int64_t result) { return result < 0 ? -int64_t{errno} : result; }

}  // namespace

FileCalls& FileCalls::System() {
  static FileCalls& calls = *new FileCalls;
  return calls;
}

int FileCalls::CreateTemporary(std::string* path) {
  return static_cast<int>(OrErrno(mkostemp(path->data(), O_CLOEXEC)));
}

int64_t FileCalls::Write(int fd, std::span<const std::byte> bytes, uint64_t offset) {
  return OrErrno(pwrite(fd, bytes.data(), bytes.size(), static_cast<off_t>(offset)));
}

int64_t FileCalls::Read(int fd, std::span<std::byte> out, uint64_t offset) {
  return OrErrno(pread(fd, out.data(), out.size(), static_cast<off_t>(offset)));
}

int FileCalls::Sync(int fd) { return static_cast<int>(OrErrno(fsync(fd))); }

int FileCalls::Rename(const std::string& from, const std::string& to) {
  return static_cast<int>(OrErrno(std::rename(from.c_str(), to.c_str())));
}

}  // namespace nestling
