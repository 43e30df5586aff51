// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <xnnpack.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

#include "base/math.h"
#include "base/thread_pool.h"
#include "kernels/affine_int8/affine_int8.h"
#include "modality/vision/xnn_ops.h"

namespace nestling {

// [height, width, channels] f32, borrowed. `margin` rows above and below may be read too: zeros, the
// vertical padding of convolutions, so that these can run on a band of rows anywhere in the map.
struct FeatureMap {
  float* data = nullptr;  // of row 0
  size_t height = 0, width = 0, channels = 0;
  size_t margin = 0;

  size_t pixels() const { return height * width; }
  size_t row_floats() const { return width * channels; }
  // -margin <= y.
  float* row(ptrdiff_t y) const { return data + y * static_cast<ptrdiff_t>(row_floats()); }
  void ZeroMargins() const {
    std::fill_n(row(-static_cast<ptrdiff_t>(margin)), margin * row_floats(), 0.0f);
    std::fill_n(row(static_cast<ptrdiff_t>(height)), margin * row_floats(), 0.0f);
  }
};

// Where the parts of a block's scratch memory lie; the memory itself is shared by all blocks.
class ScratchPlan {
 public:
  // Returns the offset of `count` elements, 64-byte aligned and with room to read past the end.
  template <typename T>
  size_t Add(size_t count) {
    const size_t offset = bytes_;
    bytes_ += RoundUp(count * sizeof(T) + AlignedBuffer<T>::kSlackBytes, 64);
    return offset;
  }
  size_t bytes() const { return bytes_; }

 private:
  size_t bytes_ = 0;
};

// What a run of a block needs.
struct VisionRun {
  const ThreadPool& pool;
  std::byte* scratch;

  template <typename T>
  T* At(size_t offset) const {
    return reinterpret_cast<T*>(scratch + offset);
  }
};

// Calls body(begin, end) for ranges of `pixels` that together are all of them, in parallel.
template <typename Body>
void ForPixels(const ThreadPool& pool, size_t pixels, size_t channels, const Body& body) {
  constexpr size_t kFloats = 32 << 10;  // of a task: large beside the cost of handing it out
  const size_t step = std::max<size_t>(1, kFloats / channels);
  pool.ParallelFor((pixels + step - 1) / step, [&](size_t task) {
    body(task * step, std::min(pixels, (task + 1) * step));
  });
}

// Quantised copies of pixels in a block's scratch; planned only if the tower computes in int8.
struct CodesPlan {
  size_t codes = 0;
  size_t params = 0;

  static CodesPlan Add(ScratchPlan& plan, VisionPrecision precision, size_t pixels,
                       size_t channels) {
    if (precision == VisionPrecision::kF32) return {};
    return {plan.Add<int8_t>(pixels * channels),
            plan.Add<xnn_quantization_params>(pixels + XNN_EXTRA_QUANTIZATION_PARAMS)};
  }
};

inline xnn_quantization_params ToXnn(const kernels::AffineInt8& affine) {
  return {affine.zero_point, affine.scale};
}

// One pixel of n channels, with a scale of its own.
inline xnn_quantization_params QuantizePixel(const float* x, size_t n, int8_t* codes) {
  kernels::ValueRange range;
  kernels::WidenRange(x, n, &range);
  const kernels::AffineInt8 affine = kernels::AffineOf(range);
  kernels::QuantizeAffine(x, n, affine, codes);
  return ToXnn(affine);
}

// XNNPACK's last tile of rows computes rows that do not exist and stores them over the last one:
// harmless only if they have its parameters.
inline void PadParams(xnn_quantization_params* params, size_t pixels) {
  std::fill_n(params + pixels, XNN_EXTRA_QUANTIZATION_PARAMS, params[pixels - 1]);
}

// Applies `op` to every pixel of y [pixels, channels] in place (op(row, pixel)), then, in int8,
// quantises it while it is in the cache. Returns what the next operator reads.
template <typename Op>
Activations FinishPixels(const VisionRun& run, VisionPrecision precision, const CodesPlan& plan,
                         float* y, size_t pixels, size_t channels, const Op& op) {
  const bool int8 = precision == VisionPrecision::kInt8;
  int8_t* codes = int8 ? run.At<int8_t>(plan.codes) : nullptr;
  auto* params = int8 ? run.At<xnn_quantization_params>(plan.params) : nullptr;
  ForPixels(run.pool, pixels, channels, [&](size_t begin, size_t end) {
    for (size_t p = begin; p < end; ++p) {
      float* row = y + p * channels;
      op(row, p);
      if (int8) params[p] = QuantizePixel(row, channels, codes + p * channels);
    }
  });
  if (int8) PadParams(params, pixels);
  return {y, codes, params};
}

// The same without anything to apply; x is only read.
inline Activations QuantizePixels(const VisionRun& run, VisionPrecision precision,
                                  const CodesPlan& plan, const float* x, size_t pixels,
                                  size_t channels) {
  if (precision == VisionPrecision::kF32) return {x, nullptr, nullptr};
  int8_t* codes = run.At<int8_t>(plan.codes);
  auto* params = run.At<xnn_quantization_params>(plan.params);
  ForPixels(run.pool, pixels, channels, [&](size_t begin, size_t end) {
    for (size_t p = begin; p < end; ++p) {
      params[p] = QuantizePixel(x + p * channels, channels, codes + p * channels);
    }
  });
  PadParams(params, pixels);
  return {x, codes, params};
}

}  // namespace nestling
