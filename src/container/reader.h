// SPDX-License-Identifier: Apache-2.0
#pragma once

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
#include "container/header_fields.h"
#include "container/types.h"

namespace nestling {

// One entry of the tensor directory, validated: shape, dtype, layout and sizes agree and lie
// inside the section.
struct TensorInfo {
  std::string name;
  SectionKind section;
  DType dtype;
  Layout layout;
  std::vector<uint64_t> shape;
  uint64_t offset;  // of the elements, from the start of the section
  uint64_t bytes;
  uint64_t scales_offset;  // from the start of the section; meaningless if scales_bytes is 0
  uint64_t scales_bytes;
};

struct SectionInfo {
  SectionKind kind;
  uint64_t offset;  // from the start of the container
  uint64_t bytes;
  uint64_t xxh3;
};

// A validated container. Immutable after Open, thread-safe. Nothing but the header is read at
// opening; sections are mapped on request.
class ContainerReader {
 public:
  // Verifies preamble, checksum, flatbuffer, directory and configuration before it returns.
  static Result<std::unique_ptr<ContainerReader>> Open(std::unique_ptr<File> file);
  static Result<std::unique_ptr<ContainerReader>> Open(const std::string& path);
  ~ContainerReader();

  const File& file() const { return *file_; }
  // Configuration, slices, tokens, template; validated.
  const HeaderFields& header() const { return header_; }
  // XXH3-64 of the header, which holds the checksum of every section: identifies the content.
  uint64_t content_hash() const { return content_hash_; }
  uint16_t version_minor() const { return version_minor_; }

  // nullptr if the container has none.
  const SectionInfo* FindSection(SectionKind kind) const;
  const TensorInfo* FindTensor(std::string_view name) const;
  std::span<const SectionInfo> sections() const { return sections_; }
  std::span<const TensorInfo> tensors() const { return tensors_; }

  // Maps a whole section; an absent one is kNotFound.
  Result<MappedRegion> MapSection(SectionKind kind) const;

 private:
  ContainerReader() = default;

  std::unique_ptr<File> file_;
  HeaderFields header_;
  uint64_t content_hash_ = 0;
  uint16_t version_minor_ = 0;
  std::vector<SectionInfo> sections_;
  std::vector<TensorInfo> tensors_;
  std::unordered_map<std::string_view, size_t> tensor_by_name_;
};

// Reads every section and compares its checksum; `progress(done, total)` counts bytes
// and may be empty.
// kBadModel names the first damaged section.
Status VerifyContainer(const ContainerReader& reader,
                       FunctionRef<void(uint64_t, uint64_t)> progress);

// kBadModel unless the checksum `found` of a section's bytes is the one that it should have.
Status CheckSection(const ContainerReader& reader, const SectionInfo& section, uint64_t found);

// Reads one section and compares.
Status VerifySection(const ContainerReader& reader, const SectionInfo& section);

}  // namespace nestling
