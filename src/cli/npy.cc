// SPDX-License-Identifier: Apache-2.0
#include "cli/npy.h"

#include <unistd.h>

#include <bit>
#include <cerrno>
#include <cstring>
#include <string>
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

}  // namespace

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
