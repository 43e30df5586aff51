// SPDX-License-Identifier: Apache-2.0
#include "cli/memory_map.h"

#include <cinttypes>
#include <cstdio>
#include <filesystem>
#include <fstream>

namespace nestling::cli {

MemoryMap ReadMemoryMap(const std::string& model) {
  std::error_code ignored;
  const std::string model_path = std::filesystem::canonical(model, ignored).string();
  MemoryMap map;
  std::ifstream smaps("/proc/self/smaps");
  uint64_t* group = &map.anonymous;
  for (std::string line; std::getline(smaps, line);) {
    uint64_t begin = 0, end = 0, kib = 0;
    int path_at = 0;
    // "begin-end rights offset device inode   path", then "Name:  value kB" lines.
    if (std::sscanf(line.c_str(), "%" SCNx64 "-%" SCNx64 " %*s %*s %*s %*s %n", &begin, &end,
                    &path_at) == 2) {
      const std::string path = path_at > 0 ? line.substr(static_cast<size_t>(path_at)) : "";
      if (path == model_path) {
        group = &map.model;
      } else if (path == "[heap]") {
        group = &map.heap;
      } else {
        group = path.empty() || path[0] == '[' ? &map.anonymous : &map.code;
      }
    } else if (std::sscanf(line.c_str(), "Rss: %" SCNu64 " kB", &kib) == 1) {
      *group += kib * 1024;
    }
  }
  return map;
}

}  // namespace nestling::cli
