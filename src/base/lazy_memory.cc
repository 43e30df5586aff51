// SPDX-License-Identifier: Apache-2.0
#include "base/lazy_memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <utility>

#include "base/math.h"

namespace nestling {

Result<LazyMemory> LazyMemory::Create(size_t bytes) {
  LazyMemory memory;
  if (bytes == 0) return memory;
  void* data = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (data == MAP_FAILED) return OutOfMemory("no address space for ", bytes, " bytes");
  memory.data_ = static_cast<std::byte*>(data);
  memory.size_ = bytes;
  return memory;
}

LazyMemory::LazyMemory(LazyMemory&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

LazyMemory& LazyMemory::operator=(LazyMemory&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

LazyMemory::~LazyMemory() {
  if (data_ != nullptr) munmap(data_, size_);
}

void LazyMemory::Release(size_t begin) {
  const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  const size_t first = RoundUp(begin, page);
  if (first < size_) madvise(data_ + first, size_ - first, MADV_DONTNEED);
}

}  // namespace nestling
