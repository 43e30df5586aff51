// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdio>
#include <span>
#include <string>
#include <vector>

namespace nestling::cli {

// Writes a NumPy file of [rows, columns] f32, little endian, row by row: memory does not depend on
// the number of rows. It has a temporary name until Finish(). Failures throw ToolError.
class NpyWriter {
 public:
  NpyWriter(std::string path, size_t rows, size_t columns);
  ~NpyWriter();
  NpyWriter(const NpyWriter&) = delete;
  NpyWriter& operator=(const NpyWriter&) = delete;

  void WriteRow(std::span<const float> row);
  void Finish();

 private:
  [[noreturn]] void Fail(const char* what) const;

  std::string path_;
  std::string temporary_path_;
  size_t rows_;
  size_t columns_;
  size_t written_ = 0;
  std::FILE* file_ = nullptr;
};

struct NpyArray {
  std::vector<size_t> shape;
  std::vector<float> values;  // the last dimension's are side by side
};

// Values that ReadNpy() accepts: an hour of sound and more, far more than an image has.
inline constexpr size_t kMaxNpyValues = 64u << 20;

// Reads a NumPy file of f32, little endian, in C order. ToolError: unreadable, another type, a file
// that is longer or shorter than its shape says, more than kMaxNpyValues.
NpyArray ReadNpy(const std::string& path);

// "[3, 768, 768]"
std::string ShapeToString(std::span<const size_t> shape);

}  // namespace nestling::cli
