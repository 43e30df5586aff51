// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace nestling {

// What writing a file asks of the operating system, so that tests can put faults in between.
// Results are as of the calls, but -errno instead of -1. Thread-safe.
class FileCalls {
 public:
  virtual ~FileCalls() = default;

  // The system's own; never destroyed.
  static FileCalls& System();

  // Makes a file that did not exist; the six X at the end of `path` become its name. A descriptor.
  virtual int CreateTemporary(std::string* path);
  // Positional; may be short.
  virtual int64_t Write(int fd, std::span<const std::byte> bytes, uint64_t offset);
  // Positional; may be short, 0 at the end of the file.
  virtual int64_t Read(int fd, std::span<std::byte> out, uint64_t offset);
  virtual int Sync(int fd);
  virtual int Rename(const std::string& from, const std::string& to);
};

}  // namespace nestling
