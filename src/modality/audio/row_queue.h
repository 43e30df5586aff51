// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstring>

#include "base/status.h"
#include "modality/audio/float_memory.h"

namespace nestling {

// Consecutive rows of a stream that have been made and are still needed, [rows, width] f32. Rows
// are numbered from the stream's beginning.
class RowQueue {
 public:
  RowQueue() = default;
  // Room for `capacity` rows at a time.
  static Result<RowQueue> Create(size_t capacity, size_t width) {
    RowQueue queue;
    ASSIGN_OR_RETURN(queue.rows_, FloatMemory::Create(capacity * width));
    queue.width_ = width;
    return queue;
  }

  size_t width() const { return width_; }
  size_t size() const { return end_ - begin_; }
  size_t begin() const { return begin_; }
  size_t end() const { return end_; }

  float* row(size_t number) { return rows_.data() + (number - begin_) * width_; }
  const float* row(size_t number) const { return rows_.data() + (number - begin_) * width_; }

  // Room for `count` more rows, to be filled by the caller.
  float* Append(size_t count) {
    float* const added = row(end_);
    end_ += count;
    NESTLING_DCHECK(size() * width_ <= rows_.size());
    return added;
  }

  // Forgets the rows before `number`; those kept move to the front.
  void DropBefore(size_t number) {
    NESTLING_DCHECK(number >= begin_ && number <= end_);
    std::memmove(rows_.data(), row(number), (end_ - number) * width_ * sizeof(float));
    begin_ = number;
  }

 private:
  FloatMemory rows_;
  size_t width_ = 0;
  size_t begin_ = 0;
  size_t end_ = 0;
};

}  // namespace nestling
