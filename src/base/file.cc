// SPDX-License-Identifier: Apache-2.0
#include "base/file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <system_error>
#include <utility>

#include "base/math.h"

namespace nestling {
namespace {

size_t PageBytes() {
  static const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  return page;
}

Status ErrorStatus(int error, std::string_view what, const std::string& name) {
  const std::string message = StrCat(what, " \"", name, "\": ", std::strerror(error));
  if (error == ENOENT) return Status(StatusCode::kNotFound, message);
  if (error == ENOMEM) return Status(StatusCode::kOutOfMemory, message);
  return Status(StatusCode::kIoError, message);
}

Status ErrnoStatus(std::string_view what, const std::string& name) {
  return ErrorStatus(errno, what, name);
}

constexpr std::string_view kTemporarySuffix = ".tmp-XXXXXX";

// Positional; retries EINTR and short reads.
Status ReadFully(FileCalls& calls, int fd, const std::string& name, uint64_t offset,
                 std::span<std::byte> out) {
  size_t done = 0;
  while (done < out.size()) {
    const int64_t n = calls.Read(fd, out.subspan(done), offset + done);
    if (n == -EINTR) continue;
    if (n < 0) return ErrorStatus(static_cast<int>(-n), "cannot read", name);
    if (n == 0) {
      return IoError("\"", name, "\" ended at ", offset + done, " bytes, wanted ",
                     offset + out.size());
    }
    done += static_cast<size_t>(n);
  }
  return OkStatus();
}

}  // namespace

MappedRegion::MappedRegion(MappedRegion&& other) noexcept
    : base_(std::exchange(other.base_, nullptr)),
      base_bytes_(std::exchange(other.base_bytes_, 0)),
      bytes_(std::exchange(other.bytes_, {})) {}

MappedRegion& MappedRegion::operator=(MappedRegion&& other) noexcept {
  std::swap(base_, other.base_);
  std::swap(base_bytes_, other.base_bytes_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

MappedRegion::~MappedRegion() {
  if (base_ != nullptr) munmap(base_, base_bytes_);
}

void MappedRegion::ReleasePages(std::span<const std::byte> part) const {
  if (base_ == nullptr || part.empty()) return;
  const uintptr_t page = PageBytes();
  const uintptr_t begin = reinterpret_cast<uintptr_t>(part.data());
  const uintptr_t first = (begin + page - 1) / page * page;
  const uintptr_t last = (begin + part.size()) / page * page;
  if (first < last) madvise(reinterpret_cast<void*>(first), last - first, MADV_DONTNEED);
}

Result<std::unique_ptr<File>> File::Open(const std::string& path, FileCalls& calls) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return ErrnoStatus("cannot open", path);
  std::unique_ptr<File> file(new File(calls));
  file->fd_ = fd;
  file->name_ = path;
  file->has_path_ = true;
  struct stat info;
  if (fstat(fd, &info) != 0) return ErrnoStatus("cannot stat", path);
  if (!S_ISREG(info.st_mode)) return IoError("\"", path, "\" is not a regular file");
  file->size_ = static_cast<uint64_t>(info.st_size);
  return file;
}

Result<std::unique_ptr<File>> File::FromDescriptor(int fd, uint64_t offset, uint64_t length) {
  const std::string name = StrCat("descriptor ", fd);
  const int own = fcntl(fd, F_DUPFD_CLOEXEC, 0);
  if (own < 0) return ErrnoStatus("cannot duplicate", name);
  std::unique_ptr<File> file(new File(FileCalls::System()));
  file->fd_ = own;
  file->name_ = name;
  struct stat info;
  if (fstat(own, &info) != 0) return ErrnoStatus("cannot stat", name);
  if (!S_ISREG(info.st_mode)) return IoError(name, " is not a regular file");
  const uint64_t file_bytes = static_cast<uint64_t>(info.st_size);
  if (offset > file_bytes || length > file_bytes - offset) {
    return InvalidArgument(name, ": offset ", offset, " + length ", length, " exceeds ", file_bytes,
                           " bytes");
  }
  file->start_ = offset;
  file->size_ = length != 0 ? length : file_bytes - offset;
  return file;
}

File::~File() {
  if (fd_ >= 0) close(fd_);
}

Status File::ReadAt(uint64_t offset, std::span<std::byte> out) const {
  if (offset > size_ || out.size() > size_ - offset) {
    return IoError("read of ", out.size(), " bytes at ", offset, " of \"", name_, "\" of ", size_,
                   " bytes");
  }
  return ReadFully(calls_, fd_, name_, start_ + offset, out);
}

Result<std::unique_ptr<File>> File::Span(uint64_t offset, uint64_t length) const {
  if (offset > size_ || length > size_ - offset) {
    return IoError("span of ", length, " bytes at ", offset, " of \"", name_, "\" of ", size_,
                   " bytes");
  }
  std::unique_ptr<File> span(new File(calls_));
  span->fd_ = fcntl(fd_, F_DUPFD_CLOEXEC, 0);
  if (span->fd_ < 0) return ErrnoStatus("cannot duplicate", name_);
  span->start_ = start_ + offset;
  span->size_ = length;
  span->name_ = name_;
  return span;
}

Result<MappedRegion> File::Map(uint64_t offset, uint64_t length, size_t slack_bytes) const {
  if (offset > size_ || length > size_ - offset) {
    return IoError("map of ", length, " bytes at ", offset, " of \"", name_, "\" of ", size_,
                   " bytes");
  }
  MappedRegion region;
  if (length == 0) return region;
  const uint64_t begin = start_ + offset;
  const uint64_t aligned = begin / PageBytes() * PageBytes();
  const size_t bytes = static_cast<size_t>(begin - aligned + length);
  void* place = nullptr;
  if (slack_bytes != 0) {  // the zeros first, then the file over their beginning
    place = mmap(nullptr, bytes + slack_bytes, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (place == MAP_FAILED) return ErrnoStatus("no addresses to map", name_);
    region.base_ = place;
    region.base_bytes_ = bytes + slack_bytes;
  }
  void* base = mmap(place, bytes, PROT_READ, MAP_SHARED | (place != nullptr ? MAP_FIXED : 0), fd_,
                    static_cast<off_t>(aligned));
  if (base == MAP_FAILED) return ErrnoStatus("cannot map", name_);
  region.base_ = base;
  region.base_bytes_ = bytes + slack_bytes;
  region.bytes_ = {static_cast<const std::byte*>(base) + (begin - aligned),
                   static_cast<size_t>(length)};
  return region;
}

Result<std::string> ReadFile(const std::string& path, uint64_t limit_bytes) {
  ASSIGN_OR_RETURN(auto file, File::Open(path));
  if (file->size() > limit_bytes) {
    return BadModel("\"", path, "\" has ", file->size(), " bytes, at most ", limit_bytes,
                    " are read");
  }
  std::string text(static_cast<size_t>(file->size()), '\0');
  RETURN_IF_ERROR(file->ReadAt(0, std::as_writable_bytes(std::span(text))));
  return text;
}

Result<std::unique_ptr<AtomicFileWriter>> AtomicFileWriter::Create(const std::string& path,
                                                                   FileCalls& calls) {
  std::unique_ptr<AtomicFileWriter> writer(new AtomicFileWriter(calls));
  writer->path_ = path;
  // Between creation and lock, RemoveAbandoned of another process may take the file: once more.
  for (int attempt = 0; attempt < 8; ++attempt) {
    std::string temporary = StrCat(path, kTemporarySuffix);
    const int fd = calls.CreateTemporary(&temporary);
    if (fd < 0) return ErrorStatus(-fd, "cannot create", temporary);
    // Some file systems have no locks; the file is then never taken for an abandoned one.
    flock(fd, LOCK_EX | LOCK_NB);
    struct stat info;
    if (fstat(fd, &info) == 0 && info.st_nlink == 0) {
      close(fd);
      continue;
    }
    writer->fd_ = fd;
    writer->temporary_path_ = temporary;
    return writer;
  }
  return IoError("cannot create a temporary file of \"", path, "\": others remove it");
}

void AtomicFileWriter::RemoveAbandoned(const std::string& path) {
  namespace fs = std::filesystem;
  const fs::path final_path(path);
  const fs::path parent = final_path.parent_path();
  const std::string name = final_path.filename().string();
  const std::string_view infix = kTemporarySuffix.substr(0, kTemporarySuffix.size() - 6);
  std::error_code error;
  fs::directory_iterator folder(parent.empty() ? fs::path(".") : parent, error);
  for (; !error && folder != fs::directory_iterator(); folder.increment(error)) {
    const std::string file = folder->path().filename().string();
    if (file.size() != name.size() + kTemporarySuffix.size() || !file.starts_with(name) ||
        file.compare(name.size(), infix.size(), infix) != 0) {
      continue;
    }
    const int fd = open(folder->path().c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0) continue;
    if (flock(fd, LOCK_EX | LOCK_NB) == 0) unlink(folder->path().c_str());
    close(fd);
  }
}

AtomicFileWriter::~AtomicFileWriter() {
  if (fd_ >= 0) close(fd_);
  if (!temporary_path_.empty()) unlink(temporary_path_.c_str());
}

Status AtomicFileWriter::Append(std::span<const std::byte> bytes) {
  RETURN_IF_ERROR(WriteAt(position_, bytes));
  position_ += bytes.size();
  return OkStatus();
}

Status AtomicFileWriter::WriteAt(uint64_t offset, std::span<const std::byte> bytes) {
  size_t done = 0;
  while (done < bytes.size()) {
    const int64_t n = calls_.Write(fd_, bytes.subspan(done), offset + done);
    if (n == -EINTR) continue;
    if (n <= 0) return ErrorStatus(n < 0 ? static_cast<int>(-n) : EIO, "cannot write", path_);
    done += static_cast<size_t>(n);
  }
  return OkStatus();
}

Status AtomicFileWriter::ReadAt(uint64_t offset, std::span<std::byte> out) const {
  return ReadFully(calls_, fd_, path_, offset, out);
}

Status AtomicFileWriter::Reserve(uint64_t bytes) {
#ifdef __linux__
  int result = 0;
  do {
    result = fallocate(fd_, FALLOC_FL_KEEP_SIZE, 0, static_cast<off_t>(bytes));
  } while (result != 0 && errno == EINTR);
  if (result != 0 && errno != EOPNOTSUPP && errno != ENOSYS) {
    return ErrnoStatus(StrCat("no room for ", bytes, " bytes in"), path_);
  }
#else
  static_cast<void>(bytes);
#endif
  return OkStatus();
}

Status AtomicFileWriter::Commit() {
  // mkostemp creates files for the owner only; a model is an ordinary file.
  const mode_t mask = umask(0);
  umask(mask);
  if (fchmod(fd_, mode_.value_or(0666 & ~mask)) != 0) {
    return ErrnoStatus("cannot set the mode of", path_);
  }
  if (const int error = calls_.Sync(fd_); error != 0) {
    return ErrorStatus(-error, "cannot sync", path_);
  }
  // Open until the name is there, so that a caller who cannot have it may still read what he wrote;
  // all is synced, nothing can go wrong when it is closed.
  if (const int error = calls_.Rename(temporary_path_, path_); error != 0) {
    return ErrorStatus(-error, "cannot rename to", path_);
  }
  close(std::exchange(fd_, -1));
  temporary_path_.clear();
  return OkStatus();
}

}  // namespace nestling
