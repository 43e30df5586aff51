// SPDX-License-Identifier: Apache-2.0
#include "container/rewriter.h"

#include <algorithm>
#include <cstddef>
#include <span>
#include <utility>

#include "base/math.h"
#include "container/xxh3.h"

namespace nestling {
namespace {

constexpr size_t kPieceBytes = 1 << 20;

}  // namespace

Result<std::unique_ptr<ContainerRewriter>> ContainerRewriter::Create(const ContainerReader& source,
                                                                     const std::string& path,
                                                                     FileCalls& calls) {
  std::unique_ptr<ContainerRewriter> rewriter(new ContainerRewriter(source));
  AtomicFileWriter::RemoveAbandoned(path);
  ASSIGN_OR_RETURN(rewriter->file_, AtomicFileWriter::Create(path, calls));
  ContainerHeader& header = rewriter->header_;
  header.fields = source.header();
  header.tensors.assign(source.tensors().begin(), source.tensors().end());
  // The longest header that may come out: numbers of a flatbuffer that equal their default take no
  // room, so that ones stand in for offsets.
  ContainerHeader probe = header;
  for (TensorInfo& tensor : probe.tensors) tensor.offset = tensor.scales_offset = 1;
  for (size_t i = 0; i < kNumSections; ++i)
    probe.sections.push_back({SectionKind::kEmbed, 1, 1, 1});
  const uint64_t header_end = sizeof(Preamble) + EncodeHeader(probe).size();
  rewriter->end_ = header_end;
  rewriter->cursor_ = RoundUp(header_end, kSectionAlignment);
  rewriter->header_room_ = rewriter->cursor_ - sizeof(Preamble);
  return rewriter;
}

Status ContainerRewriter::AddPacked(const PackedPart& part, uint64_t bytes,
                                    const std::unordered_set<std::string>& tensors) {
  for (TensorInfo& tensor : header_.tensors) {
    if (tensor.section != part.section || !tensors.contains(tensor.name)) continue;
    tensor.layout = Layout::kPacked;
    tensor.offset = tensor.bytes = tensor.scales_offset = tensor.scales_bytes = 0;
  }
  changed_.push_back(part.section);
  ASSIGN_OR_RETURN(const uint64_t hash, Hash(cursor_, bytes));
  header_.sections.push_back({part.packed, cursor_, bytes, hash});
  end_ = cursor_ + bytes;
  cursor_ = RoundUp(end_, kSectionAlignment);
  return OkStatus();
}

Status ContainerRewriter::Finish(FunctionRef<void(uint64_t)> progress) {
  for (const SectionInfo& section : source_.sections()) {
    const bool changed =
        std::find(changed_.begin(), changed_.end(), section.kind) != changed_.end();
    RETURN_IF_ERROR(changed ? CopyTensors(section, progress) : CopySection(section, progress));
  }
  const std::vector<std::byte> header = EncodeHeader(header_);
  if (header.size() > header_room_) {
    return Internal("header of ", header.size(), " bytes, but ", header_room_, " were reserved");
  }
  Preamble preamble;
  preamble.version_minor = NeededMinorVersion(header_);
  preamble.header_bytes = header.size();
  preamble.header_xxh3 = Xxh3(header);
  preamble.file_bytes = end_;
  RETURN_IF_ERROR(file_->WriteAt(0, std::as_bytes(std::span(&preamble, 1))));
  return file_->WriteAt(sizeof(Preamble), header);
}

// Byte for byte; only its place is another.
Status ContainerRewriter::CopySection(SectionInfo section, FunctionRef<void(uint64_t)> progress) {
  RETURN_IF_ERROR(CopySpan(section.offset, section.bytes, cursor_, progress));
  section.offset = cursor_;
  ASSIGN_OR_RETURN(const uint64_t hash, Hash(section.offset, section.bytes));
  RETURN_IF_ERROR(CheckSection(source_, section, hash));
  header_.sections.push_back(section);
  end_ = cursor_ + section.bytes;
  cursor_ = RoundUp(end_, kSectionAlignment);
  return OkStatus();
}

// What is left of a section: its tensors closer together, in the same order.
Status ContainerRewriter::CopyTensors(SectionInfo section, FunctionRef<void(uint64_t)> progress) {
  const uint64_t from = section.offset;
  uint64_t bytes = 0;
  const auto move = [&](uint64_t span_bytes, uint64_t* offset) -> Status {
    const uint64_t to = RoundUp(bytes, kTensorAlignment);
    RETURN_IF_ERROR(CopySpan(from + *offset, span_bytes, cursor_ + to, progress));
    *offset = to;
    bytes = to + span_bytes;
    return OkStatus();
  };
  for (TensorInfo& tensor : header_.tensors) {
    if (tensor.section != section.kind || tensor.layout == Layout::kPacked) continue;
    RETURN_IF_ERROR(move(tensor.bytes, &tensor.offset));
    if (tensor.scales_bytes != 0) RETURN_IF_ERROR(move(tensor.scales_bytes, &tensor.scales_offset));
  }
  if (bytes == 0) {
    return Unsupported("section ", SectionName(section.kind), " would be empty");
  }
  section.offset = cursor_;
  section.bytes = bytes;
  ASSIGN_OR_RETURN(section.xxh3, Hash(section.offset, section.bytes));
  header_.sections.push_back(section);
  end_ = cursor_ + bytes;
  cursor_ = RoundUp(end_, kSectionAlignment);
  return OkStatus();
}

Status ContainerRewriter::CopySpan(uint64_t from, uint64_t bytes, uint64_t to,
                                   FunctionRef<void(uint64_t)> progress) {
  std::vector<std::byte> buffer(static_cast<size_t>(std::min<uint64_t>(bytes, kPieceBytes)));
  for (uint64_t done = 0; done < bytes;) {
    const auto piece = std::span(buffer).first(
        static_cast<size_t>(std::min<uint64_t>(buffer.size(), bytes - done)));
    RETURN_IF_ERROR(source_.file().ReadAt(from + done, piece));
    RETURN_IF_ERROR(file_->WriteAt(to + done, piece));
    done += piece.size();
    if (progress) progress(piece.size());
  }
  return OkStatus();
}

Result<uint64_t> ContainerRewriter::Hash(uint64_t offset, uint64_t bytes) const {
  const auto read = [this](uint64_t at, std::span<std::byte> out) {
    return file_->ReadAt(at, out);
  };
  return Xxh3OfFile(offset, bytes, read, [](size_t) {});
}

Result<std::unique_ptr<ContainerReader>> ContainerRewriter::OpenCopy() const {
  ASSIGN_OR_RETURN(auto file, File::FromDescriptor(file_->descriptor(), 0, 0));
  return ContainerReader::Open(std::move(file));
}

}  // namespace nestling
