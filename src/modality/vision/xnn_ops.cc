// SPDX-License-Identifier: Apache-2.0
#include "modality/vision/xnn_ops.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "graph/graph_context.h"

namespace nestling {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

const char* PrecisionName(VisionPrecision precision) {
  return precision == VisionPrecision::kInt8 ? "int8" : "f32";
}

// Columns [first, first + count) of [out, in].
template <typename T>
Result<PackBuffer<T>> Columns(PackBuffer<T> matrix, size_t out, size_t in, size_t first,
                              size_t count) {
  if (count == in) return matrix;
  ASSIGN_OR_RETURN(PackBuffer<T> part, PackBuffer<T>::Create(out * count));
  for (size_t o = 0; o < out; ++o) {
    std::copy_n(matrix.data() + o * in + first, count, part.data() + o * count);
  }
  return part;
}

}  // namespace

Result<PointwiseOp> PointwiseOp::Create(const VisionWeights& weights, const std::string& name,
                                        size_t out, size_t in, VisionPrecision precision) {
  return CreatePart(weights, name, out, in, 0, in, precision);
}

Result<PointwiseOp> PointwiseOp::CreatePart(const VisionWeights& weights, const std::string& name,
                                            size_t out, size_t in, size_t first, size_t count,
                                            VisionPrecision precision) {
  PointwiseOp pointwise;
  pointwise.precision_ = precision;
  PackedWeights& packed = weights.packed();
  std::string entry = StrCat(name, " ", PrecisionName(precision), " ", first, "+", count);
  const bool there = packed.Has(entry);
  PackingScope scope(packed);
  xnn_operator_t op = nullptr;
  if (precision == VisionPrecision::kF32) {
    PackBuffer<float> floats;
    if (!there) {
      ASSIGN_OR_RETURN(floats, weights.Floats(name));
      ASSIGN_OR_RETURN(floats, Columns(std::move(floats), out, in, first, count));
    }
    scope.Name(floats.data(), std::move(entry), {.out = out, .in = count, .bits = 32});
    RETURN_IF_ERROR(XnnStatus(
        xnn_create_fully_connected_nc_f32(count, out, count, out, floats.data(), /*bias=*/nullptr,
                                          -kInfinity, kInfinity, XNN_FLAG_YIELD_WORKERS,
                                          /*code_cache=*/nullptr, packed.provider(), &op),
        "create a fully connected operator"));
  } else {
    VisionWeights::Int8 int8;
    if (!there) {
      ASSIGN_OR_RETURN(int8, weights.Codes(name));
      ASSIGN_OR_RETURN(int8.codes, Columns(std::move(int8.codes), out, in, first, count));
    }
    scope.Name(int8.codes.data(), std::move(entry), {.out = out, .in = count, .bits = 8});
    RETURN_IF_ERROR(XnnStatus(xnn_create_fully_connected_nc_qd8_f32_qc8w(
                                  count, out, count, out, int8.scales.data(), int8.codes.data(),
                                  /*bias=*/nullptr, -kInfinity, kInfinity, XNN_FLAG_YIELD_WORKERS,
                                  /*code_cache=*/nullptr, packed.provider(), &op),
                              "create an int8 fully connected operator"));
  }
  pointwise.op_.reset(op);
  RETURN_IF_ERROR(scope.status());
  return pointwise;
}

Status PointwiseOp::Run(const ThreadPool& pool, const Activations& x, size_t pixels, float* y) {
  const bool reshape = pixels != pixels_;
  pixels_ = 0;  // unless all succeeds, the next run reshapes again
  xnn_operator_t op = op_.get();
  if (precision_ == VisionPrecision::kF32) {
    if (reshape) {
      RETURN_IF_ERROR(
          XnnStatus(xnn_reshape_fully_connected_nc_f32(op, pixels, pool.get()), "reshape"));
    }
    RETURN_IF_ERROR(XnnStatus(xnn_setup_fully_connected_nc_f32(op, x.values, y), "set up"));
  } else {
    if (reshape) {
      RETURN_IF_ERROR(XnnStatus(xnn_reshape_fully_connected_nc_qd8_f32_qc8w(op, pixels, pool.get()),
                                "reshape"));
    }
    RETURN_IF_ERROR(
        XnnStatus(xnn_setup_fully_connected_nc_qd8_f32_qc8w(op, x.codes, y, x.params), "set up"));
  }
  RETURN_IF_ERROR(XnnStatus(xnn_run_operator(op, pool.get()), "run"));
  pixels_ = pixels;
  return OkStatus();
}

Result<ConvOp> ConvOp::CreateDense(const VisionWeights& weights, const std::string& name,
                                   const std::string& bias_name, size_t out, size_t in,
                                   size_t kernel, size_t stride, const ConvPadding& padding,
                                   VisionPrecision precision) {
  ConvOp conv;
  conv.precision_ = precision;
  const auto u32 = [](size_t n) { return static_cast<uint32_t>(n); };
  PackedWeights& packed = weights.packed();
  std::string entry = StrCat(name, " ", PrecisionName(precision), " ", kernel, "x", kernel);
  const bool there = packed.Has(entry);
  PackingScope scope(packed);
  PackBuffer<float> bias;
  if (!there && !bias_name.empty()) {
    ASSIGN_OR_RETURN(bias, weights.Floats(bias_name));
  }
  PackedShape shape = {.out = out, .in = in, .bits = 32, .taps = kernel * kernel};
  xnn_operator_t op = nullptr;
  if (precision == VisionPrecision::kF32) {
    PackBuffer<float> floats;
    if (!there) {
      ASSIGN_OR_RETURN(floats, weights.Floats(name));
      ASSIGN_OR_RETURN(floats, ChannelsLast(floats, out, in, kernel * kernel));
    }
    scope.Name(floats.data(), std::move(entry), shape);
    RETURN_IF_ERROR(XnnStatus(
        xnn_create_convolution2d_nhwc_f32(
            u32(padding.top), u32(padding.right), u32(padding.bottom), u32(padding.left),
            u32(kernel), u32(kernel), u32(stride), u32(stride), 1, 1, /*groups=*/1, in, out, in,
            out, floats.data(), bias.data(), -kInfinity, kInfinity, XNN_FLAG_YIELD_WORKERS,
            /*code_cache=*/nullptr, packed.provider(), &op),
        "create a convolution"));
  } else {
    VisionWeights::Int8 int8;
    if (!there) {
      ASSIGN_OR_RETURN(int8, weights.Codes(name));
      ASSIGN_OR_RETURN(int8.codes, ChannelsLast(int8.codes, out, in, kernel * kernel));
    }
    shape.bits = 8;
    scope.Name(int8.codes.data(), std::move(entry), shape);
    RETURN_IF_ERROR(XnnStatus(
        xnn_create_convolution2d_nhwc_qd8_f32_qc8w(
            u32(padding.top), u32(padding.right), u32(padding.bottom), u32(padding.left),
            u32(kernel), u32(kernel), u32(stride), u32(stride), 1, 1, /*groups=*/1, in, out, in,
            out, int8.scales.data(), int8.codes.data(), bias.data(), -kInfinity, kInfinity,
            XNN_FLAG_YIELD_WORKERS, /*code_cache=*/nullptr, packed.provider(), &op),
        "create an int8 convolution"));
  }
  conv.op_.reset(op);
  RETURN_IF_ERROR(scope.status());
  return conv;
}

Result<ConvOp> ConvOp::CreateDepthwise(const VisionWeights& weights, const std::string& name,
                                       size_t channels, size_t kernel, size_t stride,
                                       const ConvPadding& padding) {
  ConvOp conv;
  const auto u32 = [](size_t n) { return static_cast<uint32_t>(n); };
  PackedWeights& packed = weights.packed();
  std::string entry = StrCat(name, " depthwise");
  const size_t count = channels * kernel * kernel;
  PackBuffer<float> floats;
  if (packed.Has(entry)) {  // XNNPACK packs zeros once more
    ASSIGN_OR_RETURN(floats, PackBuffer<float>::Create(count));
  } else {
    ASSIGN_OR_RETURN(floats, weights.Floats(name));
  }
  PackingScope scope(packed);
  scope.Name(floats.data(), std::move(entry), {.out = channels, .in = kernel * kernel, .bits = 32});
  xnn_operator_t op = nullptr;
  // One input and one output channel a group: the stored order is XNNPACK's.
  RETURN_IF_ERROR(XnnStatus(
      xnn_create_convolution2d_nhwc_f32(
          u32(padding.top), u32(padding.right), u32(padding.bottom), u32(padding.left), u32(kernel),
          u32(kernel), u32(stride), u32(stride), 1, 1, u32(channels), 1, 1, channels, channels,
          floats.data(), /*bias=*/nullptr, -kInfinity, kInfinity, XNN_FLAG_YIELD_WORKERS,
          /*code_cache=*/nullptr, packed.provider(), &op),
      "create a depthwise convolution"));
  conv.op_.reset(op);
  RETURN_IF_ERROR(scope.status());
  return conv;
}

Status ConvOp::Run(const ThreadPool& pool, const Activations& x, size_t height, size_t width,
                   float* y) {
  const bool reshape = height != height_ || width != width_;
  height_ = 0;  // unless all succeeds, the next run reshapes again
  xnn_operator_t op = op_.get();
  if (reshape) {
    size_t bytes = 0, alignment = 1, out_height = 0, out_width = 0;
    const auto reshape_op = precision_ == VisionPrecision::kF32
                                ? &xnn_reshape_convolution2d_nhwc_f32
                                : &xnn_reshape_convolution2d_nhwc_qd8_f32_qc8w;
    RETURN_IF_ERROR(XnnStatus(reshape_op(op, /*batch_size=*/1, height, width, &bytes, &alignment,
                                         &out_height, &out_width, pool.get()),
                              "reshape"));
    if (bytes > workspace_.size()) {
      ASSIGN_OR_RETURN(workspace_, AlignedBuffer<std::byte>::Create(bytes));
    }
  }
  if (precision_ == VisionPrecision::kF32) {
    RETURN_IF_ERROR(
        XnnStatus(xnn_setup_convolution2d_nhwc_f32(op, workspace_.data(), x.values, y), "set up"));
  } else {
    RETURN_IF_ERROR(XnnStatus(
        xnn_setup_convolution2d_nhwc_qd8_f32_qc8w(op, workspace_.data(), x.codes, y, x.params),
        "set up"));
  }
  RETURN_IF_ERROR(XnnStatus(xnn_run_operator(op, pool.get()), "run"));
  height_ = height;
  width_ = width;
  return OkStatus();
}

}  // namespace nestling
