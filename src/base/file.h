// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "base/file_calls.h"
#include "base/status.h"

namespace nestling {

// A read-only span of a file that stays mapped as long as this object lives. Pages are clean and
// file-backed: the kernel may drop and re-read them.
class MappedRegion {
 public:
  MappedRegion() = default;
  MappedRegion(MappedRegion&& other) noexcept;
  MappedRegion& operator=(MappedRegion&& other) noexcept;
  MappedRegion(const MappedRegion&) = delete;
  MappedRegion& operator=(const MappedRegion&) = delete;
  ~MappedRegion();

  std::span<const std::byte> bytes() const { return bytes_; }
  bool empty() const { return bytes_.empty(); }

  // Lets go of the resident pages that lie wholly inside `part` of bytes(); they are read again
  // from the file when touched.
  void ReleasePages(std::span<const std::byte> part) const;

 private:
  friend class File;
  void* base_ = nullptr;  // page aligned
  size_t base_bytes_ = 0;
  std::span<const std::byte> bytes_;
};

// An open file, or a span of one (Android assets: descriptor + offset + length). Reads are
// positional, so one File may be read from several threads.
class File {
 public:
  // `calls` is borrowed and does the reads.
  static Result<std::unique_ptr<File>> Open(const std::string& path,
                                            FileCalls& calls = FileCalls::System());
  // Duplicates `fd`: the caller keeps and closes his own. `length` 0 means up to the end.
  static Result<std::unique_ptr<File>> FromDescriptor(int fd, uint64_t offset, uint64_t length);
  ~File();
  File(const File&) = delete;
  File& operator=(const File&) = delete;

  // Bytes of the span, as it was at opening.
  uint64_t size() const { return size_; }
  // For messages: the path, or "descriptor N".
  const std::string& name() const { return name_; }
  // name() is a path.
  bool has_path() const { return has_path_; }
  int descriptor() const { return fd_; }
  // Offset of the span in the descriptor's file.
  uint64_t start() const { return start_; }

  // Fills `out` from `offset`; fewer bytes than asked for is kIoError. Retries EINTR.
  Status ReadAt(uint64_t offset, std::span<std::byte> out) const;
  // Maps [offset, offset + length). The span must lie inside the file. Zeros are readable for
  // `slack_bytes` after the last page of it; they take address space only.
  Result<MappedRegion> Map(uint64_t offset, uint64_t length, size_t slack_bytes = 0) const;
  // [offset, offset + length) of this one as a file with the same name.
  Result<std::unique_ptr<File>> Span(uint64_t offset, uint64_t length) const;

 private:
  explicit File(FileCalls& calls) : calls_(calls) {}
  FileCalls& calls_;
  int fd_ = -1;
  uint64_t start_ = 0;
  uint64_t size_ = 0;
  std::string name_;
  bool has_path_ = false;
};

// Reads a whole small file; larger than `limit_bytes` is kBadModel (an untrusted file must not
// choose how much memory we take).
Result<std::string> ReadFile(const std::string& path, uint64_t limit_bytes);

// Writes a file under a temporary name in the same folder; Commit() syncs and renames it, so that
// the final name never shows a part of it. Without Commit the temporary file is removed; one of a
// process that was killed stays, unlocked, until RemoveAbandoned().
class AtomicFileWriter {
 public:
  // `calls` is borrowed.
  static Result<std::unique_ptr<AtomicFileWriter>> Create(const std::string& path,
                                                          FileCalls& calls = FileCalls::System());
  // Removes temporary files of `path` that no living process writes. Errors are ignored.
  static void RemoveAbandoned(const std::string& path);
  // Permissions of the finished file; else those of any new one.
  void SetMode(uint32_t mode) { mode_ = mode; }
  ~AtomicFileWriter();
  AtomicFileWriter(const AtomicFileWriter&) = delete;
  AtomicFileWriter& operator=(const AtomicFileWriter&) = delete;

  // Appends at the current end.
  Status Append(std::span<const std::byte> bytes);
  // Overwrites or extends at `offset`; thread-safe against other WriteAt calls on other spans.
  Status WriteAt(uint64_t offset, std::span<const std::byte> bytes);
  // Fills `out` with what was written at `offset`.
  Status ReadAt(uint64_t offset, std::span<std::byte> out) const;
  // Claims disk space for a file of `bytes`, so that a full disk is known before the work is done.
  // Where the file system cannot, this does nothing.
  Status Reserve(uint64_t bytes);
  // Current end of appended data.
  uint64_t position() const { return position_; }
  // Of the temporary file, until Commit.
  int descriptor() const { return fd_; }
  Status Commit();

 private:
  explicit AtomicFileWriter(FileCalls& calls) : calls_(calls) {}
  FileCalls& calls_;
  std::string path_;
  std::string temporary_path_;
  int fd_ = -1;
  uint64_t position_ = 0;
  std::optional<uint32_t> mode_;
};

}  // namespace nestling
