// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>

#include "base/aligned_buffer.h"
#include "base/file.h"
#include "base/lazy_memory.h"
#include "base/status.h"
#include "container/reader.h"
#include "graph/packed_weights.h"

namespace nestling {

// Memory for a large tensor on its way to XNNPACK. Not of the heap: what many threads free there,
// in between what stays, does not go back to the operating system.
template <typename T>
class PackBuffer {
 public:
  static Result<PackBuffer> Create(size_t size) {
    PackBuffer buffer;
    ASSIGN_OR_RETURN(buffer.memory_,
                     LazyMemory::Create(size * sizeof(T) + AlignedBuffer<T>::kSlackBytes));
    buffer.size_ = size;
    return buffer;
  }
  T* data() const { return reinterpret_cast<T*>(memory_.data()); }
  size_t size() const { return size_; }
  T& operator[](size_t i) const { return data()[i]; }
  std::span<T> span() const { return {data(), size_}; }

 private:
  LazyMemory memory_;
  size_t size_ = 0;
};

// The VISION section while a tower is made of it, and what is packed of it already. What it returns
// are copies, so that the mapping goes away with this object. Thread-safe.
class VisionWeights {
 public:
  // `reader` and `packed` are borrowed and must outlive the weights.
  static Result<VisionWeights> Create(const ContainerReader& reader, PackedWeights& packed);

  PackedWeights& packed() const { return packed_; }

  // All elements as f32, in the stored order, whatever the format. kBadModel names a tensor that
  // is missing or in a layout of the decoder's.
  Result<PackBuffer<float>> Floats(const std::string& name) const;
  // The same for a small tensor that is kept; packed, too.
  Result<AlignedBuffer<float>> Vector(const std::string& name) const;

  // int8 with one scale per output channel (the first dimension): as stored, or quantised here.
  struct Int8 {
    PackBuffer<int8_t> codes;
    PackBuffer<float> scales;
  };
  Result<Int8> Codes(const std::string& name) const;

  // Lets go of the resident pages of all tensors whose names begin with `prefix`.
  void ReleasePages(const std::string& prefix) const;

 private:
  VisionWeights(const ContainerReader& reader, PackedWeights& packed, MappedRegion region)
      : reader_(reader), packed_(packed), region_(std::move(region)) {}
  Result<const TensorInfo*> Find(const std::string& name) const;
  // The same of a tensor whose elements are needed: not in packed form only.
  Result<const TensorInfo*> FindStored(const std::string& name) const;

  const ContainerReader& reader_;
  PackedWeights& packed_;
  MappedRegion region_;
};

// [out, in, k, k] -> [out, k, k, in], XNNPACK's order. `kernel_size` is k * k.
template <typename T>
Result<PackBuffer<T>> ChannelsLast(const PackBuffer<T>& weights, size_t out, size_t in,
                                   size_t kernel_size) {
  ASSIGN_OR_RETURN(PackBuffer<T> moved, PackBuffer<T>::Create(weights.size()));
  for (size_t o = 0; o < out; ++o) {
    const T* from = weights.data() + o * in * kernel_size;
    T* to = moved.data() + o * in * kernel_size;
    for (size_t i = 0; i < in; ++i) {
      for (size_t k = 0; k < kernel_size; ++k) to[k * in + i] = from[i * kernel_size + k];
    }
  }
  return moved;
}

}  // namespace nestling
