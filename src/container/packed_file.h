// SPDX-License-Identifier: Apache-2.0
// A file of packed weights: what XNNPACK made of canonical weights for one kind of CPU. Little
// endian, as containers are. It is a cache beside a container, or a section of a container that was
// prepared in place, and then the only form in which those weights are there.
//
//   [0, 64)          preamble (packed_file.cc)
//   extents          each at a multiple of 16384, as long as that
//   directory        key; name, place and XXH3-64 of each entry
//
// An entry lies in one extent, at a multiple of 64. Large ones have an extent of their own.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/file.h"
#include "base/function_ref.h"
#include "base/status.h"
#include "container/reader.h"
#include "container/types.h"

namespace nestling {

inline constexpr size_t kPackedExtentAlignment = 16384;  // the largest page size that we run on
inline constexpr size_t kPackedEntryAlignment = 64;

// What the packed form depends on. A file with any other key is stale.
struct PackedKey {
  uint64_t content_hash = 0;  // of the container with the canonical weights
  std::string part;           // "text", "vision", "audio"
  std::string compute;        // "f32", "int8", "stored"
  std::string library;        // version of XNNPACK and of what we store
  std::string cpu;            // the features that XNNPACK looks at, for people too
  uint64_t layout = 0;        // hash of how XNNPACK packs here (packing_family.h)

  bool operator==(const PackedKey&) const = default;
};

// In which way `found` is not `wanted`, for messages; one of them differs.
std::string KeyDifference(const PackedKey& found, const PackedKey& wanted);

struct PackedEntry {
  std::string name;
  uint64_t offset = 0;
  uint64_t bytes = 0;
  uint64_t xxh3 = 0;
};

// An open, mapped file of packed weights. Immutable and thread-safe. Its pages are clean and
// file-backed; as with any mapping, who truncates the file in place ends the process (SIGBUS).
// This library never does: it replaces files by renaming, and a mapped file lives on without name.
class PackedFile {
 public:
  // Checks preamble, directory and bounds. kBadModel: damaged or truncated; kUnsupported: of
  // another version of this format. The payload is only read if the file was touched after it was
  // made.
  static Result<std::unique_ptr<PackedFile>> Open(std::unique_ptr<File> file);
  // The same of a section of a container, whose payload is checked as that of other sections is:
  // by VerifyContainer. kNotFound: it has no packed weights of this part; kUnsupported also: a
  // container that begins in the middle of another file, at no multiple of kPackedEntryAlignment.
  static Result<std::unique_ptr<PackedFile>> OpenSection(const ContainerReader& reader,
                                                         const PackedPart& part);

  const PackedKey& key() const { return key_; }
  const std::vector<PackedEntry>& entries() const { return entries_; }
  // Empty: no such entry.
  std::span<const std::byte> Find(std::string_view name) const;
  uint64_t payload_bytes() const { return payload_bytes_; }
  // Bytes that can be read from the beginning of an entry on: of what follows it, then zeros.
  uint64_t ReadableBytes(std::span<const std::byte> entry) const;
  // All of it, mapped.
  std::span<const std::byte> bytes() const { return region_.bytes(); }
  // All extents, from offset kPackedExtentAlignment on.
  std::span<const std::byte> extents() const;

  // Reads all entries and compares their checksums; `progress` counts bytes and may be empty.
  Status VerifyPayload(FunctionRef<void(uint64_t done, uint64_t total)> progress = {}) const;

 private:
  PackedFile() = default;
  static Result<std::unique_ptr<PackedFile>> OpenAny(std::unique_ptr<File> file, bool sealed);
  Status ReadDirectory(std::span<const std::byte> directory);

  std::unique_ptr<File> file_;
  PackedKey key_;
  std::vector<PackedEntry> entries_;
  std::unordered_map<std::string_view, size_t> by_name_;
  uint64_t payload_bytes_ = 0;
  MappedRegion region_;
};

// In what form of computing a container holds packed weights of the tensors in `section`; "": it
// does not. Errors as of OpenSection.
Result<std::string> HeldCompute(const ContainerReader& reader, SectionKind section);

// Writes such a file under a temporary name, or as a part of a larger file. Not thread-safe.
class PackedFileWriter {
 public:
  static Result<std::unique_ptr<PackedFileWriter>> Create(const std::string& path,
                                                          FileCalls& calls);
  // From `base` on, a multiple of kPackedExtentAlignment, of a file that is borrowed.
  PackedFileWriter(AtomicFileWriter& file, uint64_t base) : file_(&file), base_(base) {}

  // Appends whole extents, a multiple of kPackedExtentAlignment; returns their place.
  Result<uint64_t> AddExtent(std::span<const std::byte> bytes);
  // Something that lies in an extent.
  void AddEntry(PackedEntry entry) { entries_.push_back(std::move(entry)); }

  // Fills `out` with what was written.
  Status ReadAt(uint64_t offset, std::span<std::byte> out) const {
    return file_->ReadAt(base_ + offset, out);
  }
  // For mapping what was written: at base() + its place.
  int descriptor() const { return file_->descriptor(); }
  uint64_t base() const { return base_; }

  // Directory and preamble; if the file is this object's own, then its final name. The length.
  Result<uint64_t> Finish(const PackedKey& key);

 private:
  std::unique_ptr<AtomicFileWriter> own_;
  AtomicFileWriter* file_;
  uint64_t base_ = 0;
  std::vector<PackedEntry> entries_;
  uint64_t end_ = kPackedExtentAlignment;
};

}  // namespace nestling
