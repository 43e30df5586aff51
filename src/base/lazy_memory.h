// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>

#include "base/status.h"

namespace nestling {

// Zeroed address space whose pages take memory when they are first written: for buffers that are
// sized for the worst case and mostly stay small. Page aligned.
class LazyMemory {
 public:
  LazyMemory() = default;
  static Result<LazyMemory> Create(size_t bytes);
  LazyMemory(LazyMemory&& other) noexcept;
  LazyMemory& operator=(LazyMemory&& other) noexcept;
  LazyMemory(const LazyMemory&) = delete;
  LazyMemory& operator=(const LazyMemory&) = delete;
  ~LazyMemory();

  std::byte* data() const { return data_; }
  size_t size() const { return size_; }
  // Gives back the pages that lie wholly in [begin, size()); their contents are zero again.
  void Release(size_t begin = 0);

 private:
  std::byte* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace nestling
