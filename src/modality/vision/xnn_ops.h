// SPDX-License-Identifier: Apache-2.0
// Operators of XNNPACK on feature maps in [height, width, channels] order, f32 or with int8 weights
// and dynamically quantised activations. Not thread-safe: an operator holds its shapes and
// pointers.
#pragma once

#include <xnnpack.h>

#include <cstddef>
#include <cstdint>
#include <memory>

#include "base/aligned_buffer.h"
#include "base/status.h"
#include "base/thread_pool.h"
#include "graph/packed_weights.h"
#include "modality/vision/vision_weights.h"

namespace nestling {

enum class VisionPrecision { kF32, kInt8 };

// Activations that an operator reads: f32, or codes with their parameters. Readable for
// XNN_EXTRA_BYTES after the end; `params` has XNN_EXTRA_QUANTIZATION_PARAMS entries more.
struct Activations {
  const float* values = nullptr;
  const int8_t* codes = nullptr;
  const xnn_quantization_params* params = nullptr;
};

struct XnnOperatorDeleter {
  void operator()(xnn_operator* op) const { xnn_delete_operator(op); }
};
using XnnOperator = std::unique_ptr<xnn_operator, XnnOperatorDeleter>;

// y = W x for every pixel: a 1x1 convolution. int8: params of every pixel.
class PointwiseOp {
 public:
  // Of the stored [out, in, ...] tensor `name`: all inputs, or `count` from `first` on.
  static Result<PointwiseOp> Create(const VisionWeights& weights, const std::string& name,
                                    size_t out, size_t in, VisionPrecision precision);
  static Result<PointwiseOp> CreatePart(const VisionWeights& weights, const std::string& name,
                                        size_t out, size_t in, size_t first, size_t count,
                                        VisionPrecision precision);

  // x [pixels, in] -> y [pixels, out].
  Status Run(const ThreadPool& pool, const Activations& x, size_t pixels, float* y);

 private:
  VisionPrecision precision_ = VisionPrecision::kF32;
  XnnOperator op_;
  size_t pixels_ = 0;
};

// Rows and columns of zeros around a convolution's input.
struct ConvPadding {
  size_t top = 0, bottom = 0, left = 0, right = 0;
};

// A convolution with a square kernel. int8: one set of params for the whole input.
class ConvOp {
 public:
  // Of the stored [out, in, k, k] tensor `name`; `bias_name` empty: none.
  static Result<ConvOp> CreateDense(const VisionWeights& weights, const std::string& name,
                                    const std::string& bias_name, size_t out, size_t in,
                                    size_t kernel, size_t stride, const ConvPadding& padding,
                                    VisionPrecision precision);
  // Of the stored [channels, 1, k, k] tensor `name`; always f32.
  static Result<ConvOp> CreateDepthwise(const VisionWeights& weights, const std::string& name,
                                        size_t channels, size_t kernel, size_t stride,
                                        const ConvPadding& padding);

  // x [height, width, in] -> y.
  Status Run(const ThreadPool& pool, const Activations& x, size_t height, size_t width, float* y);

 private:
  VisionPrecision precision_ = VisionPrecision::kF32;
  XnnOperator op_;
  size_t height_ = 0, width_ = 0;
  AlignedBuffer<std::byte> workspace_;
};

}  // namespace nestling
