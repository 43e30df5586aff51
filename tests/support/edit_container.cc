// SPDX-License-Identifier: Apache-2.0
#include "tests/support/edit_container.h"

#include <algorithm>
#include <cstring>
#include <fstream>
#include <span>

#include "container/reader.h"
#include "container/xxh3.h"
#include "tests/support/tiny_model.h"

namespace nestling::testing {

Bytes ReadAllBytes(const std::string& path) {
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  Bytes bytes(file ? static_cast<size_t>(file.tellg()) : 0);
  file.seekg(0);
  file.read(reinterpret_cast<char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  return bytes;
}

void WriteAllBytes(const std::string& path, const Bytes& bytes) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file.write(reinterpret_cast<const char*>(bytes.data()),
             static_cast<std::streamsize>(bytes.size()));
}

Preamble GetPreamble(const Bytes& file) {
  Preamble preamble;
  std::memcpy(&preamble, file.data(), sizeof preamble);
  return preamble;
}

void SetPreamble(const Preamble& preamble, Bytes* file) {
  std::memcpy(file->data(), &preamble, sizeof preamble);
}

void Reseal(Bytes* file) {
  Preamble preamble = GetPreamble(*file);
  preamble.header_xxh3 =
      Xxh3(std::span(*file).subspan(sizeof preamble, static_cast<size_t>(preamble.header_bytes)));
  preamble.file_bytes = file->size();
  SetPreamble(preamble, file);
}

void ReplaceHeader(const Bytes& header, Bytes* file) {
  Preamble preamble = GetPreamble(*file);
  preamble.header_bytes = header.size();
  SetPreamble(preamble, file);
  std::copy(header.begin(), header.end(), file->begin() + sizeof preamble);
  Reseal(file);
}

void EditHeader(const std::function<void(ContainerHeader&)>& edit, Bytes* file) {
  const auto* begin = file->data() + sizeof(Preamble);
  const Bytes header_bytes(begin, begin + GetPreamble(*file).header_bytes);
  ContainerHeader header = DecodeHeader(header_bytes, /*newer_minor=*/false).value();
  edit(header);
  ReplaceHeader(EncodeHeader(header), file);
}

Status OpenBytes(const Bytes& file) {
  const TemporaryPath temporary;
  WriteAllBytes(temporary.path(), file);
  return ContainerReader::Open(temporary.path()).status();
}

}  // namespace nestling::testing
