// SPDX-License-Identifier: Apache-2.0
#include "cli/npy.h"

#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <charconv>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "cli/command.h"

namespace nestling::cli {
namespace {

static_assert(std::endian::native == std::endian::little, "rows are written as they are");

// Format version 1.0: magic, version, length of the dictionary, which ends with a newline and makes
// the header a multiple of 64 bytes.
std::string Header(size_t rows, size_t columns) {
  constexpr size_t kPrefix = 10;
  std::string dictionary = "{'descr': '<f4', 'fortran_order': False, 'shape': (" +
                           std::to_string(rows) + ", " + std::to_string(columns) + "), }";
  while ((kPrefix + dictionary.size() + 1) % 64 != 0) dictionary += ' ';
  dictionary += '\n';
  std::string header("\x93NUMPY\x01\x00", 8);
  header += static_cast<char>(dictionary.size() & 0xff);
  header += static_cast<char>(dictionary.size() >> 8);
  return header + dictionary;
}

// What follows "'key':" in the dictionary of a header, without spaces in front.
std::string_view ValueOf(std::string_view dictionary, std::string_view key) {
  const size_t at = dictionary.find("'" + std::string(key) + "':");
  if (at == std::string_view::npos) return {};
  dictionary.remove_prefix(at + key.size() + 3);
  dictionary.remove_prefix(std::min(dictionary.find_first_not_of(' '), dictionary.size()));
  return dictionary;
}

// "(3, 768, 768)" to numbers; false if that is not what `text` begins with.
bool ParseShape(std::string_view text, std::vector<size_t>* shape) {
  const size_t end = text.find(')');
  if (!text.starts_with('(') || end == std::string_view::npos) return false;
  text = text.substr(1, end - 1);
  while (true) {
    text.remove_prefix(std::min(text.find_first_not_of(", "), text.size()));
    if (text.empty()) return true;
    size_t number = 0;
    const auto [stop, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (error != std::errc()) return false;
    shape->push_back(number);
    text.remove_prefix(static_cast<size_t>(stop - text.data()));
  }
}

class NpyReader {
 public:
  explicit NpyReader(const std::string& path) : path_(path) {
    file_.reset(std::fopen(path.c_str(), "rb"));
    if (file_ == nullptr) throw ToolError("cannot open \"" + path + "\": " + std::strerror(errno));
  }

  NpyArray Read() {
    const std::string dictionary = ReadDictionary();
    NpyArray array;
    if (!ParseShape(ValueOf(dictionary, "shape"), &array.shape)) Fail("a shape that is none");
    if (!ValueOf(dictionary, "descr").starts_with("'<f4'"))
      Fail("values of another type, want f32");
    if (!ValueOf(dictionary, "fortran_order").starts_with("False")) Fail("not in C order");
    size_t count = 1;
    for (const size_t size : array.shape) {
      if (size == 0 || size > kMaxNpyValues / count) {
        Fail("shape " + ShapeToString(array.shape) + ", want 1 to " +
             std::to_string(kMaxNpyValues) + " values");
      }
      count *= size;
    }
    RequireRest(count * sizeof(float));
    array.values.resize(count);
    ReadBytes(array.values.data(), count * sizeof(float));
    return array;
  }

 private:
  struct Close {
    void operator()(std::FILE* file) const { std::fclose(file); }
  };

  [[noreturn]] void Fail(const std::string& why) const {
    throw ToolError("\"" + path_ + "\": " + why);
  }

  void ReadBytes(void* bytes, size_t count) {
    if (std::fread(bytes, 1, count, file_.get()) != count) Fail("the file is cut off");
  }

  // Versions 2 and 3 have a length of four bytes.
  std::string ReadDictionary() {
    unsigned char prefix[8] = {}, length[4] = {};
    ReadBytes(prefix, sizeof(prefix));
    if (std::memcmp(prefix, "\x93NUMPY", 6) != 0 || prefix[6] < 1 || prefix[6] > 3) {
      Fail("not a NumPy file");
    }
    ReadBytes(length, prefix[6] == 1 ? 2 : 4);
    size_t size = 0;
    for (int i = 3; i >= 0; --i) size = size << 8 | length[i];
    constexpr size_t kMaxDictionary = 64 << 10;
    if (size > kMaxDictionary) Fail("a header of " + std::to_string(size) + " bytes");
    std::string dictionary(size, '\0');
    ReadBytes(dictionary.data(), size);
    return dictionary;
  }

  // Before memory is taken for it.
  void RequireRest(size_t bytes) {
    const long at = std::ftell(file_.get());
    if (at < 0 || std::fseek(file_.get(), 0, SEEK_END) != 0) Fail("cannot read");
    const long end = std::ftell(file_.get());
    if (end < at || std::fseek(file_.get(), at, SEEK_SET) != 0) Fail("cannot read");
    const auto rest = static_cast<size_t>(end - at);
    if (rest != bytes) {
      Fail(std::to_string(rest) + " bytes of values, want " + std::to_string(bytes));
    }
  }

  const std::string& path_;
  std::unique_ptr<std::FILE, Close> file_;
};

}  // namespace

NpyArray ReadNpy(const std::string& path) { return NpyReader(path).Read(); }

std::string ShapeToString(std::span<const size_t> shape) {
  std::string text = "[";
  for (const size_t size : shape) {
    if (text.size() > 1) text += ", ";
    text += std::to_string(size);
  }
  return text + "]";
}

NpyWriter::NpyWriter(std::string path, size_t rows, size_t columns)
    : path_(std::move(path)),
      temporary_path_(path_ + ".tmp." + std::to_string(getpid())),
      rows_(rows),
      columns_(columns) {
  file_ = std::fopen(temporary_path_.c_str(), "wb");
  if (file_ == nullptr) Fail("cannot create");
  const std::string header = Header(rows, columns);
  if (std::fwrite(header.data(), 1, header.size(), file_) != header.size()) Fail("cannot write");
}

NpyWriter::~NpyWriter() {
  if (file_ == nullptr) return;
  std::fclose(file_);
  std::remove(temporary_path_.c_str());
}

void NpyWriter::WriteRow(std::span<const float> row) {
  if (row.size() != columns_ ||
      std::fwrite(row.data(), sizeof(float), columns_, file_) != columns_) {
    Fail("cannot write");
  }
  ++written_;
}

void NpyWriter::Finish() {
  if (written_ != rows_) Fail("not all rows were written to");
  std::FILE* file = std::exchange(file_, nullptr);
  if (std::fclose(file) != 0 || std::rename(temporary_path_.c_str(), path_.c_str()) != 0) {
    const int error = errno;
    std::remove(temporary_path_.c_str());
    errno = error;
    Fail("cannot write");
  }
}

void NpyWriter::Fail(const char* what) const {
  throw ToolError(std::string(what) + " \"" + path_ + "\": " + std::strerror(errno));
}

}  // namespace nestling::cli
