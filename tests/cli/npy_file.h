// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstring>
#include <fstream>
#include <span>
#include <string>
#include <vector>

#include "tests/cli/tool.h"

namespace nestling::testing {

struct Npy {
  std::string dictionary;
  std::vector<float> values;
};

// Of format version 1.0; empty if it is none.
inline Npy ReadNpy(const std::string& path) {
  const std::string bytes = ReadWholeFile(path);
  Npy npy;
  if (bytes.size() < 10 || bytes.substr(0, 8) != std::string("\x93NUMPY\x01\x00", 8)) return npy;
  const size_t length =
      static_cast<unsigned char>(bytes[8]) + 256u * static_cast<unsigned char>(bytes[9]);
  npy.dictionary = bytes.substr(10, length);
  npy.values.resize((bytes.size() - 10 - length) / sizeof(float));
  std::memcpy(npy.values.data(), bytes.data() + 10 + length, npy.values.size() * sizeof(float));
  return npy;
}

// `header`: the dictionary, such as "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }".
inline void WriteNpy(const std::string& path, const std::string& header,
                     std::span<const float> values) {
  std::ofstream file(path, std::ios::binary);
  file << std::string("\x93NUMPY\x01\x00", 8) << static_cast<char>((header.size() + 1) & 0xff)
       << static_cast<char>((header.size() + 1) >> 8) << header << '\n';
  file.write(reinterpret_cast<const char*>(values.data()),
             static_cast<std::streamsize>(values.size_bytes()));
}
inline void WriteNpyOf(const std::string& path, const std::string& shape,
                       std::span<const float> values) {
  WriteNpy(path, "{'descr': '<f4', 'fortran_order': False, 'shape': " + shape + ", }", values);
}

}  // namespace nestling::testing
