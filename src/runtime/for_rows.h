// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>

#include "base/math.h"
#include "base/thread_pool.h"

namespace nestling {

// body(row) for every row of a chunk. One row is done at once on this thread: handing it to the
// pool costs more than the work. Rows go to the pool in blocks of a few.
template <typename Body>
void ForRows(const ThreadPool& pool, size_t rows, const Body& body) {
  constexpr size_t kBlock = 4;
  if (rows <= kBlock) {
    for (size_t row = 0; row < rows; ++row) body(row);
    return;
  }
  pool.ParallelFor(DivUp(rows, kBlock), [&](size_t block) {
    const size_t end = std::min(rows, (block + 1) * kBlock);
    for (size_t row = block * kBlock; row < end; ++row) body(row);
  });
}

}  // namespace nestling
