// SPDX-License-Identifier: Apache-2.0
#include "cli/system_info.h"

#include <sys/utsname.h>

#include <fstream>

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

}  // namespace nestling::cli
