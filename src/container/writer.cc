// SPDX-License-Identifier: Apache-2.0
#include "container/writer.h"

#include <algorithm>
#include <map>
#include <mutex>
#include <string_view>
#include <unordered_map>
#include <utility>

#include "base/math.h"
#include "container/header_codec.h"
#include "container/xxh3.h"

namespace nestling {
namespace {

// What has been written of a range, as disjoint spans that do not touch.
class WrittenSpans {
 public:
  // False, and no change, when a byte of [begin, end) was written before.
  bool Add(uint64_t begin, uint64_t end) {
    auto next = spans_.lower_bound(begin);
    if (next != spans_.end() && next->first < end) return false;
    if (next != spans_.begin()) {
      const auto previous = std::prev(next);
      if (previous->second > begin) return false;
      if (previous->second == begin) {
        begin = previous->first;
        spans_.erase(previous);
      }
    }
    if (next != spans_.end() && next->first == end) {
      end = next->second;
      spans_.erase(next);
    }
    spans_[begin] = end;
    return true;
  }

  // The first byte below `bytes` that was not written; `bytes` if there is none.
  uint64_t FirstMissing(uint64_t bytes) const {
    if (spans_.empty() || spans_.begin()->first != 0) return 0;
    return std::min(spans_.begin()->second, bytes);
  }

 private:
  std::map<uint64_t, uint64_t> spans_;  // begin -> end
};

}  // namespace

struct ContainerWriter::Impl {
  struct Part {  // the elements or the scales of a tensor
    uint64_t file_offset = 0;
    uint64_t bytes = 0;
    WrittenSpans written;  // guarded by `mutex`
  };
  struct Parts {
    Part elements;
    Part scales;
  };

  Status Write(const std::string& name, bool scales, uint64_t offset,
               std::span<const std::byte> bytes);
  Status CheckComplete() const;
  Status HashSections();

  std::string path;
  std::unique_ptr<AtomicFileWriter> file;
  ContainerHeader header;    // sections are filled by Layout()
  std::vector<Parts> parts;  // of header.tensors
  std::unordered_map<std::string, size_t> by_name;
  std::vector<std::byte> tokenizer;
  uint64_t header_room = 0;
  uint64_t file_bytes = 0;
  bool placed = false;
  bool finished = false;
  std::mutex mutex;
};

Status ContainerWriter::Impl::Write(const std::string& name, bool scales, uint64_t offset,
                                    std::span<const std::byte> bytes) {
  if (!placed || finished) {
    return FailedPrecondition("tensor \"", name, "\" written before Layout or after Finish");
  }
  const auto found = by_name.find(name);
  if (found == by_name.end()) return NotFound("tensor \"", name, "\" was not declared");
  Part& part = scales ? parts[found->second].scales : parts[found->second].elements;
  if (offset > part.bytes || bytes.size() > part.bytes - offset) {
    return InvalidArgument("tensor \"", name, "\": ", bytes.size(), " bytes at ", offset,
                           " of its ", part.bytes, scales ? " of scales" : "");
  }
  if (bytes.empty()) return OkStatus();
  RETURN_IF_ERROR(file->WriteAt(part.file_offset + offset, bytes));
  // Only now: what could not be written is missing when Finish looks.
  const std::lock_guard<std::mutex> lock(mutex);
  if (!part.written.Add(offset, offset + bytes.size())) {
    return InvalidArgument("tensor \"", name, "\": bytes ", offset, " to ", offset + bytes.size(),
                           scales ? " of scales" : "", " written twice");
  }
  return OkStatus();
}

Status ContainerWriter::Impl::CheckComplete() const {
  for (size_t i = 0; i < parts.size(); ++i) {
    for (const Part* part : {&parts[i].elements, &parts[i].scales}) {
      const uint64_t missing = part->written.FirstMissing(part->bytes);
      if (missing == part->bytes) continue;
      return FailedPrecondition("tensor \"", header.tensors[i].name,
                                "\": ", part == &parts[i].scales ? "scales" : "elements",
                                " not written from byte ", missing, " of ", part->bytes);
    }
  }
  return OkStatus();
}

Status ContainerWriter::Impl::HashSections() {
  const auto read = [this](uint64_t offset, std::span<std::byte> out) {
    return file->ReadAt(offset, out);
  };
  for (SectionInfo& section : header.sections) {
    ASSIGN_OR_RETURN(section.xxh3, Xxh3OfFile(section.offset, section.bytes, read, [](size_t) {}));
  }
  return OkStatus();
}

ContainerWriter::ContainerWriter() : impl_(std::make_unique<Impl>()) {}
ContainerWriter::~ContainerWriter() = default;

Result<std::unique_ptr<ContainerWriter>> ContainerWriter::Create(const std::string& path) {
  std::unique_ptr<ContainerWriter> writer(new ContainerWriter);
  ASSIGN_OR_RETURN(writer->impl_->file, AtomicFileWriter::Create(path));
  writer->impl_->path = path;
  return writer;
}

Status ContainerWriter::Declare(TensorPlan plan) {
  Impl& impl = *impl_;
  if (impl.placed) return FailedPrecondition("tensor \"", plan.name, "\" declared after Layout");
  if (plan.section == SectionKind::kTokenizer) {
    return InvalidArgument("tensor \"", plan.name, "\": section TOKENIZER holds no tensors");
  }
  const Result<StorageSize> size =
      ComputeStorageSize(plan.dtype, plan.layout, plan.shape, plan.num_shells);
  if (!size.ok()) {
    return InvalidArgument("tensor \"", plan.name, "\": ", size.status().message());
  }
  if (!impl.by_name.emplace(plan.name, impl.header.tensors.size()).second) {
    return InvalidArgument("tensor \"", plan.name, "\" declared twice");
  }
  impl.header.tensors.push_back({.name = std::move(plan.name),
                                 .section = plan.section,
                                 .dtype = plan.dtype,
                                 .layout = plan.layout,
                                 .shape = std::move(plan.shape),
                                 .offset = 0,
                                 .bytes = size->bytes,
                                 .scales_offset = 0,
                                 .scales_bytes = size->scales_bytes});
  return OkStatus();
}

Status ContainerWriter::DeclareTokenizer(std::vector<std::byte> bytes) {
  if (impl_->placed) return FailedPrecondition("tokenizer declared after Layout");
  if (bytes.empty()) return InvalidArgument("tokenizer: no bytes");
  impl_->tokenizer = std::move(bytes);
  return OkStatus();
}

Status ContainerWriter::Layout(uint64_t fields_bytes) {
  Impl& impl = *impl_;
  if (impl.placed) return FailedPrecondition("Layout called twice");
  // Sections first: the header must be as long as the final one but for its fields. Numbers of a
  // flatbuffer that equal their default take no room, so that offsets are stood in for by ones.
  ContainerHeader probe{.fields = {}, .sections = {}, .tensors = impl.header.tensors};
  for (TensorInfo& tensor : probe.tensors) tensor.offset = tensor.scales_offset = 1;
  for (size_t i = 0; i < kNumSections; ++i) probe.sections.push_back({SectionKind::kText, 1, 1, 1});
  uint64_t header_end = 0;
  if (!CheckedAdd(sizeof(Preamble) + EncodeHeader(probe).size(), fields_bytes, &header_end) ||
      header_end > kMaxHeaderBytes) {
    return InvalidArgument("\"", impl.path, "\": the header would have more than ", kMaxHeaderBytes,
                           " bytes");
  }
  uint64_t cursor = RoundUp(header_end, kSectionAlignment);
  impl.header_room = cursor - sizeof(Preamble);

  impl.parts.resize(impl.header.tensors.size());
  for (size_t kind = 0; kind < kNumSections; ++kind) {
    SectionInfo section{static_cast<SectionKind>(kind), cursor, 0, 0};
    const auto place = [&](uint64_t bytes, uint64_t* offset) {
      *offset = RoundUp(section.bytes, kTensorAlignment);
      return CheckedAdd(*offset, bytes, &section.bytes) && section.bytes < UINT64_MAX / 4;
    };
    for (size_t i = 0; i < impl.header.tensors.size(); ++i) {
      TensorInfo& tensor = impl.header.tensors[i];
      if (tensor.section != section.kind) continue;
      if (!place(tensor.bytes, &tensor.offset) ||
          (tensor.scales_bytes != 0 && !place(tensor.scales_bytes, &tensor.scales_offset))) {
        return InvalidArgument("tensor \"", tensor.name, "\": the container would be too large");
      }
      impl.parts[i].elements.file_offset = section.offset + tensor.offset;
      impl.parts[i].elements.bytes = tensor.bytes;
      impl.parts[i].scales.file_offset = section.offset + tensor.scales_offset;
      impl.parts[i].scales.bytes = tensor.scales_bytes;
    }
    if (section.kind == SectionKind::kTokenizer) section.bytes = impl.tokenizer.size();
    if (section.bytes == 0) continue;
    impl.header.sections.push_back(section);
    impl.file_bytes = section.offset + section.bytes;
    if (impl.file_bytes > UINT64_MAX / 4) {
      return InvalidArgument("\"", impl.path, "\": the container would be too large");
    }
    cursor = RoundUp(impl.file_bytes, kSectionAlignment);
  }
  if (impl.header.sections.empty()) return InvalidArgument("nothing was declared");
  RETURN_IF_ERROR(impl.file->Reserve(impl.file_bytes));
  if (!impl.tokenizer.empty()) {
    RETURN_IF_ERROR(impl.file->WriteAt(impl.header.sections.back().offset, impl.tokenizer));
    impl.tokenizer = {};
  }
  impl.placed = true;
  return OkStatus();
}

Status ContainerWriter::WriteElements(const std::string& name, uint64_t offset,
                                      std::span<const std::byte> bytes) {
  return impl_->Write(name, /*scales=*/false, offset, bytes);
}

Status ContainerWriter::WriteScales(const std::string& name, uint64_t offset,
                                    std::span<const std::byte> bytes) {
  return impl_->Write(name, /*scales=*/true, offset, bytes);
}

Status ContainerWriter::Finish(const HeaderFields& fields) {
  Impl& impl = *impl_;
  if (!impl.placed || impl.finished) {
    return FailedPrecondition("Finish called before Layout or twice");
  }
  impl.finished = true;
  RETURN_IF_ERROR(ValidateHeaderFields(fields));
  RETURN_IF_ERROR(impl.CheckComplete());
  RETURN_IF_ERROR(impl.HashSections());
  impl.header.fields = fields;
  const std::vector<std::byte> header = EncodeHeader(impl.header);
  if (header.size() > impl.header_room) {
    return InvalidArgument("\"", impl.path, "\": header of ", header.size(), " bytes, but ",
                           impl.header_room, " were reserved for it");
  }
  // Nothing that our own reader would refuse leaves here.
  RETURN_IF_ERROR(DecodeHeader(header, /*newer_minor=*/false).status());
  RETURN_IF_ERROR(
      ValidateDirectory(impl.header, sizeof(Preamble) + header.size(), impl.file_bytes));
  Preamble preamble;
  preamble.version_minor = NeededMinorVersion(impl.header);
  preamble.header_bytes = header.size();
  preamble.header_xxh3 = Xxh3(header);
  preamble.file_bytes = impl.file_bytes;
  RETURN_IF_ERROR(impl.file->WriteAt(0, std::as_bytes(std::span(&preamble, 1))));
  RETURN_IF_ERROR(impl.file->WriteAt(sizeof(Preamble), header));
  return impl.file->Commit();
}

uint64_t ContainerWriter::total_bytes() const {
  uint64_t bytes = 0;
  for (const SectionInfo& section : impl_->header.sections) bytes += section.bytes;
  return bytes;
}

}  // namespace nestling
