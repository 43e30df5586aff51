// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "base/lazy_memory.h"
#include "base/status.h"
#include "graph/packed_weights.h"
#include "model/weights.h"

namespace nestling {

// A part of a stored matrix that becomes one fully connected operator, y = W x.
struct LinearWeight {
  Matrix matrix;
  // Outputs [out_begin, out_begin + out) of a row-major matrix.
  size_t out_begin = 0;
  size_t out = 0;
  // Inputs [in_begin, in_begin + in) of a transposed matrix (one shell of a down projection).
  size_t in_begin = 0;
  size_t in = 0;
  size_t shell = 0;

  // Of its packed form: tensor, element type, part. "": the matrix has no name.
  std::string PackedName() const;
  PackedShape packed_shape() const;

  static LinearWeight All(const Matrix& matrix);
  static LinearWeight Outputs(const Matrix& matrix, size_t begin, size_t end);
  static LinearWeight Shell(const Matrix& matrix, size_t shell, size_t begin, size_t end);
};

// Elements and scales as XNNPACK wants them: [out, in], blocks along `in`. Views the container
// where the layout is already that; a transposed part is turned into buffers of its own, which
// live as long as this object and are only needed while XNNPACK packs.
class PackSource {
 public:
  // kBadModel: a matrix that the container only has in packed form, and there it is missing.
  static Result<PackSource> Create(const LinearWeight& weight);
  // What stands for weights that are packed already: no elements, scales of one.
  static Result<PackSource> Placeholder(const LinearWeight& weight);

  const void* elements() const { return elements_; }
  const float* channel_scales() const { return static_cast<const float*>(scales_); }
  const uint16_t* block_scales() const { return static_cast<const uint16_t*>(scales_); }

 private:
  const void* elements_ = nullptr;
  const void* scales_ = nullptr;
  // Not the heap's, which keeps what is freed between two packed layers: tens of megabytes.
  LazyMemory own_elements_;
  LazyMemory own_scales_;
};

}  // namespace nestling
