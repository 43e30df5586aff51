// SPDX-License-Identifier: Apache-2.0
#include "pack/gguf.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <utility>

#include "base/math.h"
#include "pack/ggml_blocks.h"

namespace nestling {
namespace {

constexpr std::string_view kMagic = "GGUF";
constexpr const char* kAlignmentKey = "general.alignment";
constexpr uint64_t kDefaultAlignment = 32;

// Limits, generous for Gemma 3n: 847 tensors, some 50 keys, 262,400 pieces and 514,000 merges.
constexpr uint64_t kMaxMetadataBytes = 128ull << 20;
constexpr uint64_t kMaxKeys = 1 << 16;
constexpr uint64_t kMaxTensors = 1 << 16;
constexpr uint64_t kMaxArrayElements = 4 << 20;  // of all arrays together
constexpr uint64_t kMaxKeyBytes = 65535;         // the specification's
constexpr uint64_t kMaxTensorNameBytes = 64;     // the specification's
constexpr uint64_t kMaxStringBytes = 8 << 20;
constexpr uint32_t kMaxRank = 4;
constexpr uint64_t kMaxAlignment = 1 << 20;
// The least that one of them takes in the file.
constexpr uint64_t kMinStringBytes = 8;
constexpr uint64_t kMinPairBytes = 8 + 4 + 1;
constexpr uint64_t kMinTensorInfoBytes = 8 + 4 + 8 + 4 + 8;

// Blocks are read through a buffer of this size on the stack.
constexpr size_t kReadBytes = 32 << 10;

constexpr std::array<const char*, 13> kTypeNames = {
    "u8", "i8", "u16", "i16", "u32", "i32", "f32", "bool", "string", "array", "u64", "i64", "f64"};

uint64_t NumberBytes(GgufType type) {
  switch (type) {
    case GgufType::kUint8:
    case GgufType::kInt8:
    case GgufType::kBool:
      return 1;
    case GgufType::kUint16:
    case GgufType::kInt16:
      return 2;
    case GgufType::kUint32:
    case GgufType::kInt32:
    case GgufType::kFloat32:
      return 4;
    case GgufType::kUint64:
    case GgufType::kInt64:
    case GgufType::kFloat64:
      return 8;
    case GgufType::kString:
    case GgufType::kArray:
      break;
  }
  return 0;
}

template <typename T>
T NumberAt(const std::string& numbers, size_t i) {
  T value;
  std::memcpy(&value, numbers.data() + i * sizeof value, sizeof value);
  return value;
}

template <typename T>
std::optional<uint64_t> SignedAt(const std::string& numbers, size_t i) {
  const T value = NumberAt<T>(numbers, i);
  if (value < 0) return std::nullopt;
  return static_cast<uint64_t>(value);
}

// Names come from the file: for messages, short and printable.
std::string Quoted(std::string_view text) {
  std::string quoted = "\"";
  for (const char c : text.substr(0, 80)) quoted += c >= ' ' && c < 0x7f ? c : '?';
  return quoted + (text.size() > 80 ? "...\"" : "\"");
}

}  // namespace

std::optional<uint64_t> GgufValue::Unsigned(size_t i) const {
  switch (type_) {
    case GgufType::kUint8:
      return NumberAt<uint8_t>(numbers_, i);
    case GgufType::kUint16:
      return NumberAt<uint16_t>(numbers_, i);
    case GgufType::kUint32:
      return NumberAt<uint32_t>(numbers_, i);
    case GgufType::kUint64:
      return NumberAt<uint64_t>(numbers_, i);
    case GgufType::kInt8:
      return SignedAt<int8_t>(numbers_, i);
    case GgufType::kInt16:
      return SignedAt<int16_t>(numbers_, i);
    case GgufType::kInt32:
      return SignedAt<int32_t>(numbers_, i);
    case GgufType::kInt64:
      return SignedAt<int64_t>(numbers_, i);
    default:
      return std::nullopt;
  }
}

std::optional<double> GgufValue::Float(size_t i) const {
  if (type_ == GgufType::kFloat32) return NumberAt<float>(numbers_, i);
  if (type_ == GgufType::kFloat64) return NumberAt<double>(numbers_, i);
  return std::nullopt;
}

std::optional<bool> GgufValue::Bool(size_t i) const {
  if (type_ != GgufType::kBool) return std::nullopt;
  return numbers_[i] != 0;
}

const std::string* GgufValue::String(size_t i) const {
  return type_ == GgufType::kString ? &strings_[i] : nullptr;
}

std::string GgufValue::Describe() const {
  const char* const type = kTypeNames[static_cast<size_t>(type_)];
  return is_array_ ? StrCat("an array of ", size_, " ", type) : StrCat("of type ", type);
}

// Reads the metadata from the beginning of the file, a buffer at a time.
class GgufReader::Cursor {
 public:
  explicit Cursor(const File& file)
      : file_(file), end_(std::min(file.size(), kMaxMetadataBytes)), buffer_(64 << 10) {}

  uint64_t position() const { return position_; }
  uint64_t remaining() const { return end_ - position_; }

  Status Take(std::span<std::byte> out, const char* what) {
    if (out.size() > remaining()) return TooShort(what, out.size());
    while (!out.empty()) {
      if (position_ < buffer_begin_ || position_ >= buffer_end_) RETURN_IF_ERROR(Fill());
      const size_t n = std::min<size_t>(out.size(), buffer_end_ - position_);
      std::memcpy(out.data(), buffer_.data() + (position_ - buffer_begin_), n);
      out = out.subspan(n);
      position_ += n;
    }
    return OkStatus();
  }

  template <typename T>
  Result<T> Number(const char* what) {
    T value{};
    RETURN_IF_ERROR(Take(std::as_writable_bytes(std::span(&value, 1)), what));
    return value;
  }

  Result<std::string> String(uint64_t limit, const char* what) {
    ASSIGN_OR_RETURN(const uint64_t length, Number<uint64_t>(what));
    if (length > limit) {
      return BadModel(Where(), what, " of ", length, " bytes, want at most ", limit);
    }
    return Bytes(length, what);
  }

  // `length` is held against the rest of the file before memory is taken.
  Result<std::string> Bytes(uint64_t length, const char* what) {
    if (length > remaining()) return TooShort(what, length);
    std::string bytes(static_cast<size_t>(length), '\0');
    RETURN_IF_ERROR(Take(std::as_writable_bytes(std::span(bytes)), what));
    return bytes;
  }

  std::string Where() const { return StrCat("\"", file_.name(), "\", byte ", position_, ": "); }

 private:
  Status Fill() {
    buffer_begin_ = position_;
    buffer_end_ = std::min<uint64_t>(position_ + buffer_.size(), end_);
    return file_.ReadAt(buffer_begin_,
                        std::span(buffer_).first(static_cast<size_t>(buffer_end_ - buffer_begin_)));
  }

  Status TooShort(const char* what, uint64_t bytes) const {
    return BadModel(Where(), what, " of ", bytes, " bytes, but ",
                    end_ < file_.size() ? "metadata is limited to " : "the file has ", end_);
  }

  const File& file_;
  const uint64_t end_;
  std::vector<std::byte> buffer_;
  uint64_t position_ = 0;
  uint64_t buffer_begin_ = 0;
  uint64_t buffer_end_ = 0;
};

Result<std::unique_ptr<GgufReader>> GgufReader::Open(const std::string& path) {
  std::unique_ptr<GgufReader> reader(new GgufReader);
  ASSIGN_OR_RETURN(reader->file_, File::Open(path));
  RETURN_IF_ERROR(reader->ReadHeader());
  return reader;
}

Status GgufReader::ReadHeader() {
  Cursor cursor(*file_);
  const std::string where = StrCat("\"", name(), "\": ");
  ASSIGN_OR_RETURN(const std::string magic, cursor.Bytes(kMagic.size(), "magic"));
  if (magic != kMagic) return BadModel(where, "begins with ", Quoted(magic), ", want \"GGUF\"");
  ASSIGN_OR_RETURN(const uint32_t version, cursor.Number<uint32_t>("version"));
  if (version != 2 && version != 3) {
    const bool swapped = (version & 0xffffu) == 0 && version != 0;
    return Unsupported(where, "GGUF version ", version, swapped ? " (big endian)" : "",
                       ", want 2 or 3, little endian");
  }
  ASSIGN_OR_RETURN(const uint64_t num_tensors, cursor.Number<uint64_t>("number of tensors"));
  ASSIGN_OR_RETURN(const uint64_t num_pairs, cursor.Number<uint64_t>("number of keys"));
  if (num_tensors > std::min(kMaxTensors, cursor.remaining() / kMinTensorInfoBytes)) {
    return BadModel(where, num_tensors, " tensors in ", file_->size(), " bytes, want at most ",
                    kMaxTensors, " that fit");
  }
  if (num_pairs > std::min(kMaxKeys, cursor.remaining() / kMinPairBytes)) {
    return BadModel(where, num_pairs, " keys in ", file_->size(), " bytes, want at most ", kMaxKeys,
                    " that fit");
  }
  uint64_t elements_left = kMaxArrayElements;
  for (uint64_t i = 0; i < num_pairs; ++i) {
    ASSIGN_OR_RETURN(const std::string key, cursor.String(kMaxKeyBytes, "key"));
    if (metadata_.contains(key)) return BadModel(where, "key ", Quoted(key), " is there twice");
    RETURN_IF_ERROR(ReadValue(cursor, key, &elements_left));
  }
  if (const GgufValue* split = FindValue("split.count");
      split != nullptr && split->Unsigned(0).value_or(0) > 1) {
    return Unsupported(where, "one part of a model in ", *split->Unsigned(0),
                       " files, want a single file (llama-gguf-split --merge makes one)");
  }
  tensors_.reserve(static_cast<size_t>(num_tensors));
  for (uint64_t i = 0; i < num_tensors; ++i) RETURN_IF_ERROR(ReadTensorInfo(cursor));
  return PlaceTensors(cursor.position());
}

Status GgufReader::ReadValue(Cursor& cursor, const std::string& key, uint64_t* elements_left) {
  const std::string where = StrCat(cursor.Where(), "key ", Quoted(key), ": ");
  const auto read_type = [&](const char* what) -> Result<GgufType> {
    ASSIGN_OR_RETURN(const uint32_t type, cursor.Number<uint32_t>(what));
    if (type >= kTypeNames.size()) {
      return BadModel(where, what, " ", type, ", want less than ", kTypeNames.size());
    }
    return static_cast<GgufType>(type);
  };
  GgufValue value;
  ASSIGN_OR_RETURN(value.type_, read_type("value type"));
  if (value.type_ == GgufType::kArray) {
    value.is_array_ = true;
    ASSIGN_OR_RETURN(value.type_, read_type("element type"));
    if (value.type_ == GgufType::kArray) {
      return BadModel(where, "an array of arrays, want numbers or strings");
    }
    ASSIGN_OR_RETURN(const uint64_t count, cursor.Number<uint64_t>("array length"));
    const uint64_t least =
        value.type_ == GgufType::kString ? kMinStringBytes : NumberBytes(value.type_);
    if (count > *elements_left || count > cursor.remaining() / least) {
      return BadModel(where, "array of ", count, " elements, want at most ", *elements_left,
                      " that lie in the file");
    }
    *elements_left -= count;
    value.size_ = static_cast<size_t>(count);
  }
  if (value.type_ == GgufType::kString) {
    value.strings_.reserve(value.size_);
    for (size_t i = 0; i < value.size_; ++i) {
      ASSIGN_OR_RETURN(std::string text, cursor.String(kMaxStringBytes, "string"));
      value.strings_.push_back(std::move(text));
    }
  } else {
    ASSIGN_OR_RETURN(value.numbers_, cursor.Bytes(value.size_ * NumberBytes(value.type_), "value"));
    if (value.type_ == GgufType::kBool) {
      for (const char c : value.numbers_) {
        if (c != 0 && c != 1) {
          return BadModel(where, "bool ", static_cast<int>(static_cast<uint8_t>(c)),
                          ", want 0 or 1");
        }
      }
    }
  }
  metadata_.emplace(key, std::move(value));
  return OkStatus();
}

// The offset stays relative to the data until their beginning is known.
Status GgufReader::ReadTensorInfo(Cursor& cursor) {
  SourceTensor tensor;
  ASSIGN_OR_RETURN(tensor.name, cursor.String(kMaxTensorNameBytes, "tensor name"));
  const std::string where = StrCat(cursor.Where(), "tensor ", Quoted(tensor.name), ": ");
  // Messages repeat it from now on.
  if (!std::all_of(tensor.name.begin(), tensor.name.end(),
                   [](char c) { return c > ' ' && c < 0x7f; })) {
    return BadModel(where, "the name is not printable");
  }
  if (!by_name_.emplace(tensor.name, tensors_.size()).second) {
    return BadModel(where, "is there twice");
  }
  ASSIGN_OR_RETURN(const uint32_t rank, cursor.Number<uint32_t>("rank"));
  if (rank < 1 || rank > kMaxRank) {
    return BadModel(where, rank, " dimensions, want 1 to ", kMaxRank);
  }
  tensor.num_elements = 1;
  for (uint32_t i = 0; i < rank; ++i) {
    ASSIGN_OR_RETURN(const uint64_t size, cursor.Number<uint64_t>("dimension"));
    if (size == 0 || !CheckedMul(tensor.num_elements, size, &tensor.num_elements)) {
      return BadModel(where, "dimension ", i, " is ", size, ", not one of a tensor in this file");
    }
    tensor.shape.insert(tensor.shape.begin(), size);  // the file has the fastest one first
  }
  ASSIGN_OR_RETURN(const uint32_t type, cursor.Number<uint32_t>("element type"));
  const std::optional<SourceDType> dtype = SourceDTypeOfGgml(type);
  if (!dtype) {
    return Unsupported(where, "element type ", type,
                       ", want F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q5_K or Q6_K");
  }
  tensor.dtype = *dtype;
  if (const size_t block = BlockFormatOf(*dtype).elements; tensor.shape.back() % block != 0) {
    return BadModel(where, "rows of ", tensor.shape.back(), " elements, want a multiple of ",
                    block);
  }
  ASSIGN_OR_RETURN(tensor.offset, cursor.Number<uint64_t>("tensor offset"));
  tensors_.push_back(std::move(tensor));
  return OkStatus();
}

Status GgufReader::PlaceTensors(uint64_t info_end) {
  uint64_t alignment = kDefaultAlignment;
  if (const GgufValue* value = FindValue(kAlignmentKey)) {
    alignment = value->is_array() ? 0 : value->Unsigned(0).value_or(0);
  }
  if (!std::has_single_bit(alignment) || alignment > kMaxAlignment) {
    return BadModel("\"", name(), "\": ", kAlignmentKey, " is ", alignment,
                    ", want a power of two up to ", kMaxAlignment);
  }
  const uint64_t data_begin = RoundUp(info_end, alignment);
  std::vector<std::pair<uint64_t, size_t>> order;  // offset, index
  for (SourceTensor& tensor : tensors_) {
    const auto [elements, bytes] = BlockFormatOf(tensor.dtype);
    uint64_t tensor_bytes = 0, begin = 0, end = 0;
    if (!CheckedMul(tensor.num_elements / elements, bytes, &tensor_bytes) ||
        !CheckedAdd(data_begin, tensor.offset, &begin) || !CheckedAdd(begin, tensor_bytes, &end) ||
        end > file_->size()) {
      return BadModel("\"", name(), "\": tensor ", Quoted(tensor.name), " of ", tensor_bytes,
                      " bytes at offset ", tensor.offset, " of the data, which end at ",
                      file_->size() - std::min(data_begin, file_->size()),
                      "; is the file complete?");
    }
    if (tensor.offset % alignment != 0) {
      return BadModel("\"", name(), "\": tensor ", Quoted(tensor.name), " at offset ",
                      tensor.offset, ", want a multiple of ", alignment);
    }
    tensor.offset = begin;
    order.emplace_back(end, order.size());
  }
  // By their ends: no tensor is empty.
  std::sort(order.begin(), order.end());
  for (size_t i = 1; i < order.size(); ++i) {
    const SourceTensor& tensor = tensors_[order[i].second];
    if (tensor.offset < order[i - 1].first) {
      return BadModel("\"", name(), "\": tensor ", Quoted(tensor.name), " overlaps tensor ",
                      Quoted(tensors_[order[i - 1].second].name));
    }
  }
  return OkStatus();
}

const GgufValue* GgufReader::FindValue(std::string_view key) const {
  const auto it = metadata_.find(key);
  return it == metadata_.end() ? nullptr : &it->second;
}

const SourceTensor* GgufReader::Find(std::string_view tensor_name) const {
  const auto it = by_name_.find(std::string(tensor_name));
  return it == by_name_.end() ? nullptr : &tensors_[it->second];
}

Status GgufReader::Read(const SourceTensor& tensor, uint64_t first, std::span<float> out) const {
  if (first > tensor.num_elements || out.size() > tensor.num_elements - first) {
    return InvalidArgument("elements [", first, ", ", first, " + ", out.size(), ") of tensor \"",
                           tensor.name, "\" of ", tensor.num_elements);
  }
  if (tensor.dtype == SourceDType::kF32) {
    return file_->ReadAt(tensor.offset + first * sizeof(float), std::as_writable_bytes(out));
  }
  const auto [elements, bytes] = BlockFormatOf(tensor.dtype);
  std::array<std::byte, kReadBytes> buffer;
  std::array<float, kMaxBlockElements> part;  // of a block that is not wanted whole
  while (!out.empty()) {
    const size_t skip = first % elements;
    // Whole blocks go straight to their place.
    const bool whole = skip == 0 && out.size() >= elements;
    const size_t blocks = whole ? std::min(out.size() / elements, kReadBytes / bytes) : 1;
    RETURN_IF_ERROR(file_->ReadAt(tensor.offset + first / elements * bytes,
                                  std::span(buffer).first(blocks * bytes)));
    size_t done = blocks * elements;
    if (whole) {
      DequantiseBlocks(tensor.dtype, buffer.data(), blocks, out.data());
    } else {
      done = std::min(out.size(), elements - skip);
      DequantiseBlocks(tensor.dtype, buffer.data(), 1, part.data());
      std::memcpy(out.data(), part.data() + skip, done * sizeof(float));
    }
    out = out.subspan(done);
    first += done;
  }
  return OkStatus();
}

}  // namespace nestling
