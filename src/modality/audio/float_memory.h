// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <utility>

#include "base/aligned_buffer.h"
#include "base/lazy_memory.h"
#include "base/status.h"

namespace nestling {

// Zeroed floats with slack after their end, as AlignedBuffer, but not of the heap: a stream's large
// buffers, freed between small ones that stay, would not go back to the operating system there.
class FloatMemory {
 public:
  FloatMemory() = default;
  static Result<FloatMemory> Create(size_t size) {
    FloatMemory floats;
    ASSIGN_OR_RETURN(floats.memory_,
                     LazyMemory::Create(size * sizeof(float) + AlignedBuffer<float>::kSlackBytes));
    floats.size_ = size;
    return floats;
  }
  float* data() const { return reinterpret_cast<float*>(memory_.data()); }
  size_t size() const { return size_; }

 private:
  LazyMemory memory_;
  size_t size_ = 0;
};

}  // namespace nestling
