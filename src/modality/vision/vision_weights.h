// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "base/aligned_buffer.h"
#include "base/file.h"
#include "base/status.h"
#include "container/reader.h"

namespace nestling {

// The VISION section while a tower is made of it. What it returns are copies, so that the mapping
// goes away with this object. Thread-safe.
class VisionWeights {
 public:
  // `reader` is borrowed and must outlive the weights.
  static Result<VisionWeights> Create(const ContainerReader& reader);

  // All elements as f32, in the stored order, whatever the format. kBadModel names a tensor that
  // is missing or in a layout of the decoder's.
  Result<AlignedBuffer<float>> Floats(const std::string& name) const;

  // int8 with one scale per output channel (the first dimension): as stored, or quantised here.
  struct Int8 {
    AlignedBuffer<int8_t> codes;
    AlignedBuffer<float> scales;
  };
  Result<Int8> Codes(const std::string& name) const;

  // Lets go of the resident pages of all tensors whose names begin with `prefix`.
  void ReleasePages(const std::string& prefix) const;

 private:
  VisionWeights(const ContainerReader& reader, MappedRegion region)
      : reader_(reader), region_(std::move(region)) {}
  Result<const TensorInfo*> Find(const std::string& name) const;

  const ContainerReader& reader_;
  MappedRegion region_;
};

// [out, in, k, k] -> [out, k, k, in], XNNPACK's order. `kernel_size` is k * k.
template <typename T>
Result<AlignedBuffer<T>> ChannelsLast(const AlignedBuffer<T>& weights, size_t out, size_t in,
                                      size_t kernel_size) {
  ASSIGN_OR_RETURN(AlignedBuffer<T> moved, AlignedBuffer<T>::Create(weights.size()));
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
