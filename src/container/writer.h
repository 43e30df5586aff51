// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/file.h"
#include "base/status.h"
#include "container/header_fields.h"
#include "container/types.h"

namespace nestling {

// A tensor that will be written: its place follows from the order of declaration.
struct TensorPlan {
  std::string name;
  SectionKind section;
  DType dtype;
  Layout layout = Layout::kRowMajor;
  std::vector<uint64_t> shape;
  uint32_t num_shells = 1;  // kTransposed q8c and q4c: rows of scales
};

// Writes a container in two phases, so that memory does not depend on the model's size:
// Declare all tensors and blobs, then write their bytes in any order, from any thread; Finish
// computes the checksums, writes header and preamble, syncs and renames. Without Finish nothing
// appears under the final name.
//
// The header is written last, into room that Layout() reserves before the first section.
class ContainerWriter {
 public:
  static constexpr uint64_t kDefaultFieldsBytes = 256 << 10;

  static Result<std::unique_ptr<ContainerWriter>> Create(const std::string& path);
  ~ContainerWriter();

  Status Declare(TensorPlan plan);
  // Raw bytes as the whole TOKENIZER section (a SentencePiece model).
  Status DeclareTokenizer(std::vector<std::byte> bytes);
  // Places everything and claims the disk space. No Declare after it. The room for the header is
  // what the tensor directory needs plus `fields_bytes` for configuration, slices, chat template
  // and the towers' JSON; Finish fails if those are longer.
  Status Layout(uint64_t fields_bytes = kDefaultFieldsBytes);

  // Writes a part of a declared tensor; offsets count from the start of its elements / scales.
  // Thread-safe. Every byte is written once: a second time is kInvalidArgument.
  Status WriteElements(const std::string& name, uint64_t offset, std::span<const std::byte> bytes);
  Status WriteScales(const std::string& name, uint64_t offset, std::span<const std::byte> bytes);

  // `fields` is serialised into the header. Every declared byte must have been written:
  // kFailedPrecondition names the first tensor that lacks some. Reads all sections once more for
  // their checksums. After an error the writer is of no more use.
  Status Finish(const HeaderFields& fields);

  uint64_t total_bytes() const;  // of all sections, after Layout()

 private:
  ContainerWriter();
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace nestling
