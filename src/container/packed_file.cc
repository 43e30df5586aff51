// SPDX-License-Identifier: Apache-2.0
#include "container/packed_file.h"

#include <sys/stat.h>
#include <time.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "container/xxh3.h"

namespace nestling {
namespace {

constexpr std::array<char, 8> kPackedMagic = {'N', 'E', 'S', 'T', 'P', 'A', 'C', 'K'};
constexpr uint32_t kPackedVersion = 1;
constexpr uint64_t kMaxDirectoryBytes = 16 << 20;
// Readable after the end, for kernels that believe an entry of a hostile file to be longer than it
// is: more than the padding and the biases of any matrix that we pack.
constexpr size_t kSlackBytes = sizeof(void*) >= 8 ? 256 << 20 : 16 << 20;

struct PackedPreamble {
  std::array<char, 8> magic = kPackedMagic;
  uint32_t version = kPackedVersion;
  uint32_t reserved = 0;
  uint64_t file_bytes = 0;
  uint64_t directory_offset = 0;
  uint64_t directory_bytes = 0;
  uint64_t directory_xxh3 = 0;
  // Modification time that the writer set, in seconds. Another one says that somebody wrote into
  // the file or copied it: only then is the payload checked at opening.
  int64_t sealed_seconds = 0;
  uint64_t preamble_xxh3 = 0;  // of what comes before
};
static_assert(sizeof(PackedPreamble) == 64);

uint64_t PreambleHash(const PackedPreamble& preamble) {
  return Xxh3(
      std::as_bytes(std::span(&preamble, 1)).first(offsetof(PackedPreamble, preamble_xxh3)));
}

class DirectoryWriter {
 public:
  void Number(uint64_t value) {
    const auto bytes = std::as_bytes(std::span(&value, 1));
    bytes_.insert(bytes_.end(), bytes.begin(), bytes.end());
  }
  void Text(std::string_view text) {
    Number(text.size());
    const auto bytes = std::as_bytes(std::span(text));
    bytes_.insert(bytes_.end(), bytes.begin(), bytes.end());
  }
  std::span<const std::byte> bytes() const { return bytes_; }

 private:
  std::vector<std::byte> bytes_;
};

// Every read is checked; after a failed one all further ones fail.
class DirectoryReader {
 public:
  explicit DirectoryReader(std::span<const std::byte> bytes) : left_(bytes) {}
  uint64_t Number() {
    uint64_t value = 0;
    const auto bytes = Take(sizeof value);
    if (ok_) std::memcpy(&value, bytes.data(), sizeof value);
    return value;
  }
  std::string Text() {
    const auto bytes = Take(Number());
    return std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  }
  bool ok() const { return ok_; }
  bool done() const { return ok_ && left_.empty(); }

 private:
  std::span<const std::byte> Take(uint64_t count) {
    ok_ = ok_ && count <= left_.size();
    if (!ok_) return {};
    const auto taken = left_.first(static_cast<size_t>(count));
    left_ = left_.subspan(taken.size());
    return taken;
  }
  std::span<const std::byte> left_;
  bool ok_ = true;
};

Status CheckPreamble(const PackedPreamble& preamble, uint64_t file_bytes) {
  if (preamble.magic != kPackedMagic) return BadModel("not a file of packed weights");
  if (preamble.version != kPackedVersion) {
    return Unsupported("packed weights of version ", preamble.version, ", want ", kPackedVersion);
  }
  if (const uint64_t hash = PreambleHash(preamble); hash != preamble.preamble_xxh3) {
    return BadModel("preamble checksum ", hash, ", want ", preamble.preamble_xxh3);
  }
  if (preamble.file_bytes != file_bytes) {
    return BadModel("has ", file_bytes, " bytes, wants ", preamble.file_bytes);
  }
  if (preamble.directory_bytes > kMaxDirectoryBytes || preamble.directory_bytes > file_bytes ||
      preamble.directory_offset != file_bytes - preamble.directory_bytes ||
      preamble.directory_offset % kPackedExtentAlignment != 0) {
    return BadModel("directory of ", preamble.directory_bytes, " bytes at ",
                    preamble.directory_offset, " of ", file_bytes);
  }
  return OkStatus();
}

bool IsSealed(const File& file, int64_t sealed_seconds) {
  struct stat info;
  if (fstat(file.descriptor(), &info) != 0) return false;
  return info.st_mtim.tv_sec == sealed_seconds && info.st_mtim.tv_nsec == 0;
}

// Even seconds: every file system keeps those.
int64_t SealSeconds() { return static_cast<int64_t>(time(nullptr)) & ~int64_t{1}; }

bool Seal(int fd, int64_t seconds) {
  timespec times[2] = {};
  times[0].tv_nsec = UTIME_OMIT;  // of the last access
  times[1].tv_sec = static_cast<time_t>(seconds);
  return futimens(fd, times) == 0;
}

Status InFile(const File& file, const Status& status) {
  return Status(status.code(), StrCat("\"", file.name(), "\": ", status.message()));
}

}  // namespace

std::string KeyDifference(const PackedKey& found, const PackedKey& wanted) {
  if (found.content_hash != wanted.content_hash) return "of another model";
  if (found.part != wanted.part || found.compute != wanted.compute) {
    return StrCat("of ", found.part, " in ", found.compute, ", want ", wanted.part, " in ",
                  wanted.compute);
  }
  if (found.library != wanted.library) {
    return StrCat("made with ", found.library, ", this is ", wanted.library);
  }
  if (found.cpu != wanted.cpu) return StrCat("made for ", found.cpu, ", this is ", wanted.cpu);
  return StrCat("in another layout for ", found.cpu);
}

Result<std::unique_ptr<PackedFile>> PackedFile::Open(std::unique_ptr<File> file) {
  return OpenAny(std::move(file), /*sealed=*/true);
}

Result<std::unique_ptr<PackedFile>> PackedFile::OpenSection(const ContainerReader& reader,
                                                            const PackedPart& part) {
  const SectionInfo* section = reader.FindSection(part.packed);
  if (section == nullptr) {
    return NotFound("\"", reader.file().name(), "\" has no section ", SectionName(part.packed));
  }
  ASSIGN_OR_RETURN(std::unique_ptr<File> span, reader.file().Span(section->offset, section->bytes));
  if (span->start() % kPackedEntryAlignment != 0) {
    return Unsupported("\"", span->name(), "\" begins at ", reader.file().start(),
                       " of its file: packed weights want a multiple of ", kPackedEntryAlignment);
  }
  Result<std::unique_ptr<PackedFile>> packed = OpenAny(std::move(span), /*sealed=*/false);
  if (!packed.ok()) {
    return Status(packed.status().code(),
                  StrCat("section ", SectionName(part.packed), " of ", packed.status().message()));
  }
  return packed;
}

Result<std::unique_ptr<PackedFile>> PackedFile::OpenAny(std::unique_ptr<File> file, bool sealed) {
  PackedPreamble preamble;
  if (file->size() < sizeof preamble) {
    return BadModel("\"", file->name(), "\": has ", file->size(), " bytes, wants at least ",
                    sizeof preamble);
  }
  RETURN_IF_ERROR(file->ReadAt(0, std::as_writable_bytes(std::span(&preamble, 1))));
  if (const Status status = CheckPreamble(preamble, file->size()); !status.ok()) {
    return InFile(*file, status);
  }
  std::vector<std::byte> directory(static_cast<size_t>(preamble.directory_bytes));
  RETURN_IF_ERROR(file->ReadAt(preamble.directory_offset, directory));
  if (const uint64_t hash = Xxh3(directory); hash != preamble.directory_xxh3) {
    return BadModel("\"", file->name(), "\": directory checksum ", hash, ", want ",
                    preamble.directory_xxh3);
  }
  std::unique_ptr<PackedFile> packed(new PackedFile);
  packed->file_ = std::move(file);
  if (const Status status = packed->ReadDirectory(directory); !status.ok()) {
    return InFile(*packed->file_, status);
  }
  ASSIGN_OR_RETURN(packed->region_, packed->file_->Map(0, preamble.directory_offset, kSlackBytes));
  if (sealed && !IsSealed(*packed->file_, preamble.sealed_seconds)) {
    RETURN_IF_ERROR(packed->VerifyPayload());
    // So that it is not read the next time; only the owner can.
    Seal(packed->file_->descriptor(), preamble.sealed_seconds);
  }
  return packed;
}

Status PackedFile::ReadDirectory(std::span<const std::byte> directory) {
  DirectoryReader reader(directory);
  key_.content_hash = reader.Number();
  key_.layout = reader.Number();
  for (std::string* text : {&key_.part, &key_.compute, &key_.library, &key_.cpu}) {
    *text = reader.Text();
  }
  const uint64_t count = reader.Number();
  for (uint64_t i = 0; i < count && reader.ok(); ++i) {
    PackedEntry entry;
    entry.name = reader.Text();
    entry.offset = reader.Number();
    entry.bytes = reader.Number();
    entry.xxh3 = reader.Number();
    const uint64_t end = file_->size() - directory.size();
    if (entry.offset % kPackedEntryAlignment != 0 || entry.offset < kPackedExtentAlignment ||
        entry.offset > end || entry.bytes > end - entry.offset || entry.bytes == 0) {
      return BadModel("entry \"", entry.name, "\": ", entry.bytes, " bytes at ", entry.offset,
                      " of ", end);
    }
    payload_bytes_ += entry.bytes;
    entries_.push_back(std::move(entry));
  }
  if (!reader.done()) return BadModel("directory of ", directory.size(), " bytes is cut off");
  for (size_t i = 0; i < entries_.size(); ++i) {
    if (!by_name_.emplace(entries_[i].name, i).second) {
      return BadModel("two entries \"", entries_[i].name, "\"");
    }
  }
  return OkStatus();
}

std::span<const std::byte> PackedFile::Find(std::string_view name) const {
  const auto found = by_name_.find(name);
  if (found == by_name_.end()) return {};
  const PackedEntry& entry = entries_[found->second];
  return region_.bytes().subspan(static_cast<size_t>(entry.offset),
                                 static_cast<size_t>(entry.bytes));
}

uint64_t PackedFile::ReadableBytes(std::span<const std::byte> entry) const {
  const std::span<const std::byte> all = region_.bytes();
  return static_cast<uint64_t>(all.data() + all.size() - entry.data()) + kSlackBytes;
}

std::span<const std::byte> PackedFile::extents() const {
  return region_.bytes().subspan(std::min(kPackedExtentAlignment, region_.bytes().size()));
}

Status PackedFile::VerifyPayload(FunctionRef<void(uint64_t, uint64_t)> progress) const {
  uint64_t done = 0;
  const auto read = [&](uint64_t offset, std::span<std::byte> out) {
    return file_->ReadAt(offset, out);
  };
  const auto each = [&](size_t piece) {
    done += piece;
    if (progress) progress(done, payload_bytes_);
  };
  for (const PackedEntry& entry : entries_) {
    ASSIGN_OR_RETURN(const uint64_t hash, Xxh3OfFile(entry.offset, entry.bytes, read, each));
    if (hash != entry.xxh3) {
      return BadModel("\"", file_->name(), "\": entry \"", entry.name, "\" is damaged: checksum ",
                      hash, ", want ", entry.xxh3);
    }
  }
  return OkStatus();
}

Result<std::string> HeldCompute(const ContainerReader& reader, SectionKind section) {
  for (const PackedPart& part : kPackedParts) {
    if (part.section != section || reader.FindSection(part.packed) == nullptr) continue;
    ASSIGN_OR_RETURN(const auto packed, PackedFile::OpenSection(reader, part));
    return packed->key().compute;
  }
  return std::string();
}

Result<std::unique_ptr<PackedFileWriter>> PackedFileWriter::Create(const std::string& path,
                                                                   FileCalls& calls) {
  ASSIGN_OR_RETURN(std::unique_ptr<AtomicFileWriter> file, AtomicFileWriter::Create(path, calls));
  auto writer = std::make_unique<PackedFileWriter>(*file, 0);
  writer->own_ = std::move(file);
  return writer;
}

Result<uint64_t> PackedFileWriter::AddExtent(std::span<const std::byte> bytes) {
  NESTLING_DCHECK(bytes.size() % kPackedExtentAlignment == 0);
  const uint64_t offset = end_;
  RETURN_IF_ERROR(file_->WriteAt(base_ + offset, bytes));
  end_ += bytes.size();
  return offset;
}

Result<uint64_t> PackedFileWriter::Finish(const PackedKey& key) {
  DirectoryWriter directory;
  directory.Number(key.content_hash);
  directory.Number(key.layout);
  for (const std::string* text : {&key.part, &key.compute, &key.library, &key.cpu}) {
    directory.Text(*text);
  }
  directory.Number(entries_.size());
  for (const PackedEntry& entry : entries_) {
    directory.Text(entry.name);
    directory.Number(entry.offset);
    directory.Number(entry.bytes);
    directory.Number(entry.xxh3);
  }
  PackedPreamble preamble;
  preamble.directory_offset = end_;
  preamble.directory_bytes = directory.bytes().size();
  preamble.directory_xxh3 = Xxh3(directory.bytes());
  preamble.file_bytes = end_ + preamble.directory_bytes;
  if (own_ != nullptr) preamble.sealed_seconds = SealSeconds();
  preamble.preamble_xxh3 = PreambleHash(preamble);
  RETURN_IF_ERROR(file_->WriteAt(base_ + end_, directory.bytes()));
  RETURN_IF_ERROR(file_->WriteAt(base_, std::as_bytes(std::span(&preamble, 1))));
  if (own_ != nullptr) {
    Seal(file_->descriptor(), preamble.sealed_seconds);  // else it is verified at each opening
    RETURN_IF_ERROR(own_->Commit());
  }
  return preamble.file_bytes;
}

}  // namespace nestling
