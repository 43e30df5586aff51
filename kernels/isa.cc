// SPDX-License-Identifier: Apache-2.0
#include "kernels/isa.h"

#include <cpuinfo.h>

namespace nestling::kernels {
namespace {

uint32_t DetectIsa() {
  if (!cpuinfo_initialize()) return kIsaNone;
  uint32_t isa = kIsaNone;
#if defined(__x86_64__)
  if (cpuinfo_has_x86_avx2() && cpuinfo_has_x86_fma3() && cpuinfo_has_x86_f16c()) isa |= kIsaAvx2;
  if (cpuinfo_has_x86_avx512f() && cpuinfo_has_x86_avx512bw() && cpuinfo_has_x86_avx512vl() &&
      cpuinfo_has_x86_avx512dq()) {
    isa |= kIsaAvx512;
    if (cpuinfo_has_x86_avx512vnni()) isa |= kIsaAvx512Vnni;
  }
#elif defined(__aarch64__)
  isa |= kIsaNeon;
  if (cpuinfo_has_arm_neon_dot()) isa |= kIsaNeonDot;
  if (cpuinfo_has_arm_i8mm()) isa |= kIsaNeonI8mm;
#endif
  return isa;
}

}  // namespace

uint32_t AvailableIsa() {
  static const uint32_t isa = DetectIsa();
  return isa;
}

}  // namespace nestling::kernels
