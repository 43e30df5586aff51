// SPDX-License-Identifier: Apache-2.0
#include "pack/safetensors.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <filesystem>
#include <map>
#include <set>
#include <utility>

#include "base/math.h"
#include "pack/json_util.h"

namespace nestling {
namespace {

static_assert(std::endian::native == std::endian::little, "safetensors is little endian");

// As the reference implementation.
constexpr uint64_t kMaxHeaderJsonBytes = 100'000'000;
constexpr uint64_t kMaxIndexBytes = 64ull << 20;
constexpr size_t kMaxRank = 8;
// Conversion from 16 bit goes through a buffer of this many elements on the stack (32 KiB).
constexpr size_t kConvertElements = 16384;

uint64_t ElementBytes(SourceDType dtype) { return dtype == SourceDType::kF32 ? 4 : 2; }

Result<SourceDType> ParseSourceDType(const Json& value, const std::string& where) {
  if (value.is_string()) {
    const auto& name = value.get_ref<const std::string&>();
    if (name == "F32") return SourceDType::kF32;
    if (name == "F16") return SourceDType::kF16;
    if (name == "BF16") return SourceDType::kBF16;
  }
  return Unsupported(where, ": dtype ", JsonForMessage(value), ", want F32, F16 or BF16");
}

// Fills shape, num_elements and offset from one entry of the header.
Status ParseEntry(const Json& entry, const std::string& where, uint64_t data_begin,
                  uint64_t data_bytes, SourceTensor* tensor) {
  if (!entry.is_object() || !entry.contains("dtype") || !entry.contains("shape") ||
      !entry.contains("data_offsets")) {
    return BadModel(where, ": want an object with dtype, shape and data_offsets");
  }
  ASSIGN_OR_RETURN(tensor->dtype, ParseSourceDType(entry["dtype"], where));
  const Json& shape = entry["shape"];
  if (!shape.is_array() || shape.size() > kMaxRank) {
    return BadModel(where, ": shape ", JsonForMessage(shape), ", want at most ", kMaxRank,
                    " dimensions");
  }
  uint64_t elements = 1;
  for (const Json& size : shape) {
    if (!size.is_number_unsigned() || !CheckedMul(elements, size.get<uint64_t>(), &elements)) {
      return BadModel(where, ": shape ", JsonForMessage(shape), " is not one of this file");
    }
    tensor->shape.push_back(size.get<uint64_t>());
  }
  const Json& span = entry["data_offsets"];
  if (!span.is_array() || span.size() != 2 || !span[0].is_number_unsigned() ||
      !span[1].is_number_unsigned()) {
    return BadModel(where, ": data_offsets ", JsonForMessage(span), ", want [begin, end]");
  }
  const uint64_t begin = span[0].get<uint64_t>();
  const uint64_t end = span[1].get<uint64_t>();
  if (begin > end || end > data_bytes) {
    return BadModel(where, ": data_offsets [", begin, ", ", end, "] in ", data_bytes,
                    " bytes of data");
  }
  uint64_t bytes = 0;
  if (!CheckedMul(elements, ElementBytes(tensor->dtype), &bytes) || bytes != end - begin) {
    return BadModel(where, ": data_offsets span ", end - begin, " bytes, shape ",
                    JsonForMessage(shape), " wants ", bytes);
  }
  tensor->num_elements = elements;
  tensor->offset = data_begin + begin;
  return OkStatus();
}

// Reads and checks the header of one file; the tensors come back ordered by offset.
Result<std::vector<SourceTensor>> ReadHeader(const File& file, size_t file_index) {
  const std::string& path = file.name();
  uint64_t header_bytes = 0;
  if (file.size() < sizeof header_bytes) {
    return BadModel("\"", path, "\" has ", file.size(), " bytes, too short for safetensors");
  }
  RETURN_IF_ERROR(file.ReadAt(0, std::as_writable_bytes(std::span(&header_bytes, 1))));
  const uint64_t available = file.size() - sizeof header_bytes;
  if (header_bytes > kMaxHeaderJsonBytes || header_bytes > available) {
    return BadModel("\"", path, "\": header of ", header_bytes, " bytes, want at most ",
                    std::min(kMaxHeaderJsonBytes, available));
  }
  std::string text(static_cast<size_t>(header_bytes), '\0');
  RETURN_IF_ERROR(file.ReadAt(sizeof header_bytes, std::as_writable_bytes(std::span(text))));
  ASSIGN_OR_RETURN(const Json header, ParseJson(text, StrCat("header of \"", path, "\"")));
  if (!header.is_object()) return BadModel("header of \"", path, "\": want an object");

  const uint64_t data_begin = sizeof header_bytes + header_bytes;
  const uint64_t data_bytes = available - header_bytes;
  std::vector<SourceTensor> tensors;
  for (const auto& [name, entry] : header.items()) {
    if (name == "__metadata__") continue;
    SourceTensor tensor;
    tensor.name = name;
    tensor.file = file_index;
    RETURN_IF_ERROR(ParseEntry(entry, StrCat("\"", path, "\": tensor \"", name, "\""), data_begin,
                               data_bytes, &tensor));
    tensors.push_back(std::move(tensor));
  }
  std::sort(tensors.begin(), tensors.end(), [](const SourceTensor& a, const SourceTensor& b) {
    return std::pair(a.offset, a.num_elements) < std::pair(b.offset, b.num_elements);
  });
  // The format allows neither overlaps nor holes, and the data end with the file.
  uint64_t expected = data_begin;
  for (const SourceTensor& tensor : tensors) {
    if (tensor.offset != expected) {
      return BadModel("\"", path, "\": tensor \"", tensor.name, "\" begins at byte ",
                      tensor.offset - data_begin, " of the data, ",
                      tensor.offset < expected ? "inside the one before it, which ends at "
                                               : "but the one before it ends at ",
                      expected - data_begin);
    }
    expected += tensor.num_elements * ElementBytes(tensor.dtype);
  }
  if (expected != data_begin + data_bytes) {
    return BadModel("\"", path, "\": tensors cover ", expected - data_begin, " of ", data_bytes,
                    " bytes of data");
  }
  return tensors;
}

}  // namespace

Result<std::unique_ptr<SafetensorsReader>> SafetensorsReader::Open(const std::string& path) {
  std::unique_ptr<SafetensorsReader> reader(new SafetensorsReader);
  std::error_code ignored;
  if (!std::filesystem::is_directory(path, ignored)) {
    RETURN_IF_ERROR(reader->AddFile(path));
    return reader;
  }
  const std::string index = path + "/model.safetensors.index.json";
  const std::string single = path + "/model.safetensors";
  if (std::filesystem::exists(index, ignored)) {
    RETURN_IF_ERROR(reader->AddShards(path, index));
  } else if (std::filesystem::exists(single, ignored)) {
    RETURN_IF_ERROR(reader->AddFile(single));
  } else {
    return NotFound("\"", path,
                    "\" has neither model.safetensors nor model.safetensors.index.json");
  }
  return reader;
}

Status SafetensorsReader::AddFile(const std::string& path) {
  ASSIGN_OR_RETURN(auto file, File::Open(path));
  ASSIGN_OR_RETURN(auto tensors, ReadHeader(*file, files_.size()));
  files_.push_back(std::move(file));
  for (SourceTensor& tensor : tensors) {
    const auto [it, is_new] = by_name_.emplace(tensor.name, tensors_.size());
    if (!is_new) {
      return BadModel("tensor \"", tensor.name, "\" is both in \"",
                      files_[tensors_[it->second].file]->name(), "\" and in \"", path, "\"");
    }
    tensors_.push_back(std::move(tensor));
  }
  return OkStatus();
}

Status SafetensorsReader::AddShards(const std::string& folder, const std::string& index_path) {
  ASSIGN_OR_RETURN(const Json index, ReadJsonFile(index_path, kMaxIndexBytes));
  if (!index.is_object() || !index.contains("weight_map") || !index["weight_map"].is_object()) {
    return BadModel("\"", index_path, "\": want an object \"weight_map\"");
  }
  std::set<std::string> shards;
  for (const auto& [tensor, shard] : index["weight_map"].items()) {
    // A name of a file in this folder, not a path that leads out of it.
    if (!shard.is_string() || shard.get_ref<const std::string&>().empty() ||
        shard.get_ref<const std::string&>().find_first_of(std::string_view("/\\\0", 3)) !=
            std::string::npos) {
      return BadModel("\"", index_path, "\": file of tensor \"", tensor, "\" is ",
                      JsonForMessage(shard), ", want a file name");
    }
    shards.insert(shard.get<std::string>());
  }
  std::map<std::string, size_t> file_of_shard;
  for (const std::string& shard : shards) {
    file_of_shard[shard] = files_.size();
    RETURN_IF_ERROR(AddFile(folder + "/" + shard));
  }
  for (const auto& [name, shard] : index["weight_map"].items()) {
    const SourceTensor* tensor = Find(name);
    if (tensor == nullptr || tensor->file != file_of_shard[shard.get<std::string>()]) {
      return BadModel("\"", index_path, "\": tensor \"", name, "\" is not in ",
                      JsonForMessage(shard));
    }
  }
  return OkStatus();
}

const SourceTensor* SafetensorsReader::Find(std::string_view name) const {
  const auto it = by_name_.find(std::string(name));
  return it == by_name_.end() ? nullptr : &tensors_[it->second];
}

Status SafetensorsReader::Read(const SourceTensor& tensor, uint64_t first,
                               std::span<float> out) const {
  if (first > tensor.num_elements || out.size() > tensor.num_elements - first) {
    return InvalidArgument("elements [", first, ", ", first, " + ", out.size(), ") of tensor \"",
                           tensor.name, "\" of ", tensor.num_elements);
  }
  const File& file = *files_[tensor.file];
  uint64_t offset = tensor.offset + first * ElementBytes(tensor.dtype);
  if (tensor.dtype == SourceDType::kF32) return file.ReadAt(offset, std::as_writable_bytes(out));
  std::array<uint16_t, kConvertElements> bits;
  while (!out.empty()) {
    const size_t n = std::min(out.size(), bits.size());
    RETURN_IF_ERROR(file.ReadAt(offset, std::as_writable_bytes(std::span(bits).first(n))));
    if (tensor.dtype == SourceDType::kBF16) {
      for (size_t i = 0; i < n; ++i) out[i] = Bf16ToFloat(bits[i]);
    } else {
      for (size_t i = 0; i < n; ++i) out[i] = HalfToFloat(bits[i]);
    }
    out = out.subspan(n);
    offset += n * sizeof(uint16_t);
  }
  return OkStatus();
}

}  // namespace nestling
