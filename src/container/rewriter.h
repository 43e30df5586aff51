// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <unordered_set>
#include <vector>

#include "base/file.h"
#include "base/function_ref.h"
#include "base/status.h"
#include "container/header_codec.h"
#include "container/reader.h"
#include "container/types.h"

namespace nestling {

// Writes a copy of a container in which packed weights take the place of canonical ones. Everything
// else is copied as it is. The copy has its name when it is complete; what exists there stays until
// then. Memory does not depend on the model's size. Not thread-safe.
class ContainerRewriter {
 public:
  // `source` and `calls` are borrowed. `path` may be that of the source.
  static Result<std::unique_ptr<ContainerRewriter>> Create(const ContainerReader& source,
                                                           const std::string& path,
                                                           FileCalls& calls);

  // Where the next section of packed weights goes. The caller writes it (PackedFileWriter).
  AtomicFileWriter& file() { return *file_; }
  uint64_t next_offset() const { return cursor_; }
  // It is there, `bytes` long; of part.section, `tensors` go.
  Status AddPacked(const PackedPart& part, uint64_t bytes,
                   const std::unordered_set<std::string>& tensors);

  // Copies what is left, then writes the header. `progress(bytes)` follows each piece of a section
  // and may be empty. kBadModel: a section of the source is damaged. No AddPacked after it.
  Status Finish(FunctionRef<void(uint64_t bytes)> progress);
  // The copy, before it has its name: to look at what is about to replace something.
  Result<std::unique_ptr<ContainerReader>> OpenCopy() const;
  // Syncs and renames.
  Status Commit() { return file_->Commit(); }

 private:
  explicit ContainerRewriter(const ContainerReader& source) : source_(source) {}
  Status CopySection(SectionInfo section, FunctionRef<void(uint64_t)> progress);
  Status CopyTensors(SectionInfo section, FunctionRef<void(uint64_t)> progress);
  Status CopySpan(uint64_t from, uint64_t bytes, uint64_t to, FunctionRef<void(uint64_t)> progress);
  Result<uint64_t> Hash(uint64_t offset, uint64_t bytes) const;

  const ContainerReader& source_;
  std::unique_ptr<AtomicFileWriter> file_;
  std::vector<SectionKind> changed_;
  ContainerHeader header_;  // sections as they are added
  uint64_t header_room_ = 0;
  uint64_t cursor_ = 0;  // of the next section
  uint64_t end_ = 0;     // of the last one
};

}  // namespace nestling
