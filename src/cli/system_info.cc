// SPDX-License-Identifier: Apache-2.0
#include "cli/system_info.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <vector>

namespace nestling::cli {

std::string CpuName() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    // x86 says "model name", some ARM kernels "Hardware".
    if (line.rfind("model name", 0) != 0 && line.rfind("Hardware", 0) != 0) continue;
    const size_t value = line.find_first_not_of(" \t", line.find(':') + 1);
    if (value != std::string::npos) return line.substr(value);
  }
  utsname system{};
  return uname(&system) == 0 ? system.machine : "unknown";
}

uint64_t ProportionalBytes() {
  std::ifstream file("/proc/self/smaps_rollup");
  for (std::string line; std::getline(file, line);) {
    unsigned long long kib = 0;
    if (std::sscanf(line.c_str(), "Pss: %llu kB", &kib) == 1) return kib * 1024;
  }
  return 0;
}

bool ForgetPeakResident() {
  std::ofstream file("/proc/self/clear_refs");
  file << "5" << std::flush;
  return file.good();
}

uint64_t DropFromPageCache(const std::string& path) {
  const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) return 0;
  uint64_t left = 0;
  struct stat status {};
  if (fstat(file, &status) == 0 && status.st_size > 0) {
#if defined(__linux__)
    fdatasync(file);  // pages that are not written yet are not dropped
    posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED);
    const size_t bytes = static_cast<size_t>(status.st_size);
    void* const mapping = mmap(nullptr, bytes, PROT_READ, MAP_SHARED, file, 0);
    if (mapping != MAP_FAILED) {
      const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
      std::vector<unsigned char> pages((bytes + page - 1) / page);
      if (mincore(mapping, bytes, pages.data()) == 0) {
        left = page * static_cast<uint64_t>(std::count_if(pages.begin(), pages.end(),
                                                          [](unsigned char p) { return p & 1; }));
      }
      munmap(mapping, bytes);
    }
#endif
  }
  close(file);
  return left;
}

}  // namespace nestling::cli
