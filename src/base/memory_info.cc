// SPDX-License-Identifier: Apache-2.0
#include "base/memory_info.h"

#if __has_include(<malloc.h>)
#include <malloc.h>
#endif

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

}  // namespace nestling
