// SPDX-License-Identifier: Apache-2.0
#include "container/reader.h"
#include "container/xxh3.h"

namespace nestling {

Status CheckSection(const ContainerReader& reader, const SectionInfo& section, uint64_t found) {
  if (found == section.xxh3) return OkStatus();
  return BadModel("\"", reader.file().name(), "\": section ", SectionName(section.kind),
                  " is damaged: checksum ", found, ", want ", section.xxh3);
}

Status VerifySection(const ContainerReader& reader, const SectionInfo& section) {
  const auto read = [&](uint64_t offset, std::span<std::byte> out) {
    return reader.file().ReadAt(offset, out);
  };
  ASSIGN_OR_RETURN(const uint64_t checksum,
                   Xxh3OfFile(section.offset, section.bytes, read, [](size_t) {}));
  return CheckSection(reader, section, checksum);
}

Status VerifyContainer(const ContainerReader& reader,
                       FunctionRef<void(uint64_t, uint64_t)> progress) {
  uint64_t total = 0;
  uint64_t done = 0;
  for (const SectionInfo& section : reader.sections()) total += section.bytes;
  const auto read = [&](uint64_t offset, std::span<std::byte> out) {
    return reader.file().ReadAt(offset, out);
  };
  const auto each = [&](size_t piece) {
    done += piece;
    if (progress) progress(done, total);
  };
  for (const SectionInfo& section : reader.sections()) {
    ASSIGN_OR_RETURN(const uint64_t checksum,
                     Xxh3OfFile(section.offset, section.bytes, read, each));
    RETURN_IF_ERROR(CheckSection(reader, section, checksum));
  }
  return OkStatus();
}

}  // namespace nestling
