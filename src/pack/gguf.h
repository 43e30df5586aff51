// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/file.h"
#include "base/status.h"
#include "pack/tensor_source.h"

namespace nestling {

// Numbers of the file format.
enum class GgufType : uint32_t {
  kUint8 = 0,
  kInt8 = 1,
  kUint16 = 2,
  kInt16 = 3,
  kUint32 = 4,
  kInt32 = 5,
  kFloat32 = 6,
  kBool = 7,
  kString = 8,
  kArray = 9,
  kUint64 = 10,
  kInt64 = 11,
  kFloat64 = 12
};

// A value of the metadata: one element, or an array of them (never of arrays).
class GgufValue {
 public:
  GgufType type() const { return type_; }  // of the elements
  bool is_array() const { return is_array_; }
  size_t size() const { return size_; }

  // Element i < size(), if its type is the wanted one: any integer that is not negative and fits, a
  // float of either width, a bool.
  std::optional<uint64_t> Unsigned(size_t i) const;
  std::optional<double> Float(size_t i) const;
  std::optional<bool> Bool(size_t i) const;
  // nullptr for other types.
  const std::string* String(size_t i) const;

  // For messages: "u32", "array of 3 strings".
  std::string Describe() const;

 private:
  friend class GgufReader;
  GgufType type_ = GgufType::kUint8;
  bool is_array_ = false;
  size_t size_ = 1;
  std::string numbers_;               // size() * the type's bytes, as in the file
  std::vector<std::string> strings_;  // kString
};

// Metadata and tensors of one GGUF file, version 2 or 3, little endian. The file is not trusted:
// counts and lengths are held against the rest of the file and against limits before anything is
// allocated, and every tensor lies inside the file and overlaps no other.
class GgufReader final : public TensorSource {
 public:
  // kBadModel for a damaged or hostile file; kUnsupported for other versions, byte orders, element
  // types, and for one part of a split model.
  static Result<std::unique_ptr<GgufReader>> Open(const std::string& path);

  const std::string& name() const { return file_->name(); }
  const std::map<std::string, GgufValue, std::less<>>& metadata() const { return metadata_; }
  // nullptr if there is none.
  const GgufValue* FindValue(std::string_view key) const;

  std::span<const SourceTensor> tensors() const override { return tensors_; }
  const SourceTensor* Find(std::string_view name) const override;
  Status Read(const SourceTensor& tensor, uint64_t first, std::span<float> out) const override;

 private:
  class Cursor;
  GgufReader() = default;
  Status ReadHeader();
  Status ReadValue(Cursor& cursor, const std::string& key, uint64_t* elements_left);
  Status ReadTensorInfo(Cursor& cursor);
  Status PlaceTensors(uint64_t info_end);

  std::unique_ptr<File> file_;
  std::map<std::string, GgufValue, std::less<>> metadata_;
  std::vector<SourceTensor> tensors_;
  std::unordered_map<std::string, size_t> by_name_;
};

}  // namespace nestling
