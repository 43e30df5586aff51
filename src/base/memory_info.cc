// SPDX-License-Identifier: Apache-2.0
#include "base/memory_info.h"

#include <fcntl.h>
#if __has_include(<malloc.h>)
#include <malloc.h>
#endif
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstring>

namespace nestling {

ProcessMemory ReadProcessMemory() {
  ProcessMemory memory;
  std::FILE* status = std::fopen("/proc/self/status", "re");
  if (status == nullptr) return memory;
  struct Field {
    const char* name;
    uint64_t* bytes;
  };
  const Field fields[] = {{"VmRSS:", &memory.resident},
                          {"VmHWM:", &memory.peak_resident},
                          {"RssAnon:", &memory.anonymous},
                          {"RssFile:", &memory.file_backed}};
  char line[256];
  while (std::fgets(line, sizeof line, status) != nullptr) {
    for (const Field& field : fields) {
      unsigned long long kib = 0;
      const size_t length = std::strlen(field.name);
      if (std::strncmp(line, field.name, length) == 0 &&
          std::sscanf(line + length, "%llu", &kib) == 1) {
        *field.bytes = kib * 1024;
      }
    }
  }
  std::fclose(status);
  return memory;
}

void ReturnFreeMemory() {
#if defined(__GLIBC__)
  malloc_trim(0);
#endif
}

uint64_t ResidentBytes(std::span<const std::byte> memory) {
  if (memory.empty()) return 0;
  const int pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
  if (pagemap < 0) return 0;
  const uint64_t page = static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  const uint64_t begin = reinterpret_cast<uintptr_t>(memory.data());
  const uint64_t end = begin + memory.size();
  constexpr uint64_t kPresent = uint64_t{1} << 63;
  uint64_t resident = 0;
  std::array<uint64_t, 8192> entries;
  for (uint64_t first = begin / page; first * page < end; first += entries.size()) {
    const uint64_t wanted = std::min<uint64_t>(entries.size(), (end - 1) / page + 1 - first);
    const ssize_t read = pread(pagemap, entries.data(), wanted * sizeof(uint64_t),
                               static_cast<off_t>(first * sizeof(uint64_t)));
    if (read <= 0) break;
    for (uint64_t i = 0; i < static_cast<uint64_t>(read) / sizeof(uint64_t); ++i) {
      if ((entries[i] & kPresent) == 0) continue;
      const uint64_t address = (first + i) * page;
      resident += std::min(address + page, end) - std::max(address, begin);
    }
  }
  close(pagemap);
  return resident;
}

}  // namespace nestling
