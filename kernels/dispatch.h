// SPDX-License-Identifier: Apache-2.0
// For the *_dispatch.cc files only: they are compiled for the oldest CPU, the variants are not.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/isa.h"

namespace nestling::kernels {

// The first variant of `table` (best first) that needs nothing but `isa`. The last one is the
// scalar variant, which needs nothing and is therefore the answer when no other is.
template <typename Kernel>
const Kernel& SelectKernel(std::span<const Kernel* const> table, uint32_t isa) {
  for (const Kernel* kernel : table) {
    if ((kernel->needs_isa & ~isa) == 0) return *kernel;
  }
  return *table.back();
}

}  // namespace nestling::kernels
