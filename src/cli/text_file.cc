// SPDX-License-Identifier: Apache-2.0
#include "cli/text_file.h"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>

#include "cli/command.h"

namespace nestling::cli {
namespace {

std::string ReadAll(std::FILE* file, const std::string& name) {
  std::string text;
  char buffer[65536];
  while (true) {
    const size_t bytes = std::fread(buffer, 1, sizeof(buffer), file);
    text.append(buffer, bytes);
    if (bytes < sizeof(buffer)) break;
  }
  if (std::ferror(file) != 0) {
    throw ToolError("cannot read \"" + name + "\": " + std::strerror(errno));
  }
  return text;
}

}  // namespace

std::string ReadTextFile(const std::string& path) {
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(path.c_str(), "rb"),
                                                             &std::fclose);
  if (file == nullptr) throw ToolError("cannot open \"" + path + "\": " + std::strerror(errno));
  return ReadAll(file.get(), path);
}

std::string ReadStandardInput() { return ReadAll(stdin, "standard input"); }

}  // namespace nestling::cli
