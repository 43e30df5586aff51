// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/status.h"
#include "container/header_fields.h"
#include "container/reader.h"

namespace nestling {

// The header as plain structs. `header_codec.cc` is the only file that knows FlatBuffers.
struct ContainerHeader {
  HeaderFields fields;
  std::vector<SectionInfo> sections;
  std::vector<TensorInfo> tensors;
};

// The lowest minor version that has everything which the header uses: what a writer writes.
uint16_t NeededMinorVersion(const ContainerHeader& header);

std::vector<std::byte> EncodeHeader(const ContainerHeader& header);

// Verifies the flatbuffer and copies it out, with a limit on every count and length, so that a
// small file cannot ask for much memory. Enum values are in range afterwards; relations between
// fields are not checked yet (ValidateHeaderFields, ValidateDirectory).
//
// `newer_minor`: the file's minor version is newer than ours. Sections of kinds that we do not know
// are then left out, with their tensors; an unknown element format or layout is kUnsupported.
// `bytes` must be 8-byte aligned.
Result<ContainerHeader> DecodeHeader(std::span<const std::byte> bytes, bool newer_minor);

// Sections are aligned, apart, and inside [`header_end`, `file_bytes`); tensors have unique names,
// valid shapes, the sizes that follow from them, and lie aligned and apart in their sections.
Status ValidateDirectory(const ContainerHeader& header, uint64_t header_end, uint64_t file_bytes);

}  // namespace nestling
