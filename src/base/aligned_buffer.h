// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <span>

#include "base/math.h"
#include "base/status.h"

namespace nestling {

// Owned, zeroed memory for numbers, aligned for every vector unit, with room after the end for
// kernels that read a little past it (XNNPACK: XNN_EXTRA_BYTES). Never throws: no memory is a
// Status, because sizes come from models.
template <typename T>
class AlignedBuffer {
 public:
  static constexpr size_t kAlignment = 64;
  static constexpr size_t kSlackBytes = 128;

  AlignedBuffer() = default;

  static Result<AlignedBuffer> Create(size_t size) {
    uint64_t bytes = 0;
    if (!CheckedMul(size, sizeof(T), &bytes) ||
        !CheckedAdd(bytes, kSlackBytes + kAlignment, &bytes)) {
      return OutOfMemory("buffer of ", size, " elements of ", sizeof(T), " bytes");
    }
    bytes = bytes / kAlignment * kAlignment;
    void* memory = std::aligned_alloc(kAlignment, bytes);
    if (memory == nullptr) return OutOfMemory("buffer of ", bytes, " bytes");
    std::memset(memory, 0, bytes);
    AlignedBuffer buffer;
    buffer.data_.reset(static_cast<T*>(memory));
    buffer.size_ = size;
    return buffer;
  }

  T* data() { return data_.get(); }
  const T* data() const { return data_.get(); }
  size_t size() const { return size_; }
  size_t size_bytes() const { return size_ * sizeof(T); }
  T& operator[](size_t i) { return data_.get()[i]; }
  const T& operator[](size_t i) const { return data_.get()[i]; }
  std::span<T> span() { return {data_.get(), size_}; }
  std::span<const T> span() const { return {data_.get(), size_}; }

 private:
  struct Free {
    void operator()(T* memory) const { std::free(memory); }
  };
  std::unique_ptr<T, Free> data_;
  size_t size_ = 0;
};

}  // namespace nestling
