// SPDX-License-Identifier: Apache-2.0
#include "container/reader.h"

#include <bit>
#include <cstring>
#include <utility>

#include "base/aligned_buffer.h"
#include "container/header_codec.h"
#include "container/xxh3.h"

namespace nestling {
namespace {

static_assert(std::endian::native == std::endian::little, "containers are read in place");

// What the first bytes are, when they are not the magic: a letter or a number per byte.
std::string MagicText(const std::array<char, 4>& magic) {
  std::string text;
  for (const char c : magic) {
    if (c > 0x20 && c < 0x7f) {
      text += c;
    } else {
      text += StrCat("\\", static_cast<int>(static_cast<unsigned char>(c)));
    }
  }
  return text;
}

Status CheckPreamble(const Preamble& preamble, uint64_t file_bytes) {
  if (preamble.magic != kMagic) {
    return BadModel("not a container: it begins with \"", MagicText(preamble.magic),
                    "\", want \"NEST\"");
  }
  if (preamble.version_major != kVersionMajor) {
    return Unsupported("container version ", preamble.version_major, ".", preamble.version_minor,
                       ", this library reads ", kVersionMajor, ".x (", kVersionMajor, ".",
                       kVersionMinor, ")");
  }
  if (preamble.file_bytes != file_bytes) {
    return BadModel(file_bytes < preamble.file_bytes ? "truncated: has " : "has ", file_bytes,
                    " bytes, wants ", preamble.file_bytes);
  }
  if (preamble.header_bytes == 0 || preamble.header_bytes > kMaxHeaderBytes ||
      preamble.header_bytes > file_bytes - sizeof(Preamble)) {
    return BadModel("header of ", preamble.header_bytes, " bytes, want 1 to ", kMaxHeaderBytes,
                    " within a file of ", file_bytes);
  }
  return OkStatus();
}

// Preamble and header of `file`, checked.
Result<ContainerHeader> ReadHeader(const File& file, Preamble* preamble) {
  if (file.start() % alignof(float) != 0) {
    return InvalidArgument("the container begins at ", file.start(), ", want a multiple of ",
                           alignof(float));
  }
  if (file.size() < sizeof(Preamble)) {
    return BadModel("truncated: has ", file.size(), " bytes, wants at least ", sizeof(Preamble));
  }
  RETURN_IF_ERROR(file.ReadAt(0, std::as_writable_bytes(std::span(preamble, 1))));
  RETURN_IF_ERROR(CheckPreamble(*preamble, file.size()));
  const size_t header_bytes = static_cast<size_t>(preamble->header_bytes);
  ASSIGN_OR_RETURN(auto buffer, AlignedBuffer<std::byte>::Create(header_bytes));
  RETURN_IF_ERROR(file.ReadAt(sizeof(Preamble), buffer.span()));
  const uint64_t checksum = Xxh3(buffer.span());
  if (checksum != preamble->header_xxh3) {
    return BadModel("header checksum ", checksum, ", want ", preamble->header_xxh3);
  }
  ASSIGN_OR_RETURN(auto header,
                   DecodeHeader(buffer.span(), preamble->version_minor > kVersionMinor));
  if (const uint16_t needed = NeededMinorVersion(header); needed > preamble->version_minor) {
    return BadModel("version ", preamble->version_major, ".", preamble->version_minor,
                    " with packed weights, which came with ", kVersionMajor, ".", needed);
  }
  RETURN_IF_ERROR(ValidateHeaderFields(header.fields));
  RETURN_IF_ERROR(ValidateDirectory(header, sizeof(Preamble) + header_bytes, file.size()));
  return header;
}

}  // namespace

ContainerReader::~ContainerReader() = default;

Result<std::unique_ptr<ContainerReader>> ContainerReader::Open(const std::string& path) {
  ASSIGN_OR_RETURN(auto file, File::Open(path));
  return Open(std::move(file));
}

Result<std::unique_ptr<ContainerReader>> ContainerReader::Open(std::unique_ptr<File> file) {
  Preamble preamble;
  Result<ContainerHeader> header = ReadHeader(*file, &preamble);
  if (!header.ok()) {
    return Status(header.status().code(),
                  StrCat("\"", file->name(), "\": ", header.status().message()));
  }
  std::unique_ptr<ContainerReader> reader(new ContainerReader);
  reader->file_ = std::move(file);
  reader->header_ = std::move(header->fields);
  reader->content_hash_ = preamble.header_xxh3;
  reader->version_minor_ = preamble.version_minor;
  reader->sections_ = std::move(header->sections);
  reader->tensors_ = std::move(header->tensors);
  for (size_t i = 0; i < reader->tensors_.size(); ++i) {
    reader->tensor_by_name_.emplace(reader->tensors_[i].name, i);
  }
  return reader;
}

const SectionInfo* ContainerReader::FindSection(SectionKind kind) const {
  for (const SectionInfo& section : sections_) {
    if (section.kind == kind) return &section;
  }
  return nullptr;
}

const TensorInfo* ContainerReader::FindTensor(std::string_view name) const {
  const auto found = tensor_by_name_.find(name);
  return found == tensor_by_name_.end() ? nullptr : &tensors_[found->second];
}

Result<MappedRegion> ContainerReader::MapSection(SectionKind kind) const {
  const SectionInfo* section = FindSection(kind);
  if (section == nullptr) {
    return NotFound("\"", file_->name(), "\" has no section ", SectionName(kind));
  }
  return file_->Map(section->offset, section->bytes);
}

}  // namespace nestling
