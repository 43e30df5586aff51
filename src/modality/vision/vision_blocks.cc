// SPDX-License-Identifier: Apache-2.0
#include "modality/vision/vision_blocks.h"

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "kernels/channel_norm/channel_norm.h"
#include "kernels/rms_norm/rms_norm.h"
#include "kernels/shared_kv_attention/shared_kv_attention.h"

namespace nestling {
namespace {

// Padding of a convolution that runs on bands: horizontally by XNNPACK, vertically by margins.
ConvPadding Sideways(size_t width, size_t kernel, size_t stride) {
  const SamePadding pad = SamePaddingOf(width, kernel, stride);
  return {0, 0, pad.low, pad.high};
}

ConvPadding AllAround(size_t height, size_t width, size_t kernel, size_t stride) {
  const SamePadding vertical = SamePaddingOf(height, kernel, stride);
  const SamePadding horizontal = SamePaddingOf(width, kernel, stride);
  return {vertical.low, vertical.high, horizontal.low, horizontal.high};
}

// a[i] *= b[i].
void MultiplyInto(AlignedBuffer<float>& a, const AlignedBuffer<float>& b) {
  for (size_t i = 0; i < a.size(); ++i) a[i] *= b[i];
}

// out = norm(out) * w, or residual + that.
void FinishBlock(const VisionRun& run, const FeatureMap& in, const FeatureMap& out, size_t row,
                 size_t num_rows, const float* w, bool residual) {
  const size_t n = out.channels;
  float* y = out.row(static_cast<ptrdiff_t>(row));
  const float* x = in.row(static_cast<ptrdiff_t>(row));
  ForPixels(run.pool, num_rows * out.width, n, [&](size_t begin, size_t end) {
    for (size_t p = begin; p < end; ++p) {
      float* pixel = y + p * n;
      if (residual) {
        kernels::RmsNormResidual(pixel, w, x + p * n, pixel, n, kVisionEps);
      } else {
        kernels::RmsNorm(pixel, w, pixel, n, kVisionEps);
      }
    }
  });
}

// ---- conv_stem ----

class Stem final : public VisionStem {
 public:
  static Result<std::unique_ptr<VisionStem>> Create(const VisionBuild& build,
                                                    const VisionConfig& config) {
    auto stem = std::make_unique<Stem>();
    stem->height_ = config.image_height;
    stem->width_ = config.image_width;
    stem->kernel_ = config.stem_kernel;
    const std::string p = StrCat(kVisionPrefix, "conv_stem.");
    // f32 also in int8 towers: three input channels cost nothing and everything depends on them.
    ASSIGN_OR_RETURN(
        stem->conv_,
        ConvOp::CreateDense(build.weights, p + "conv", config.stem_bias ? p + "conv.bias" : "",
                            config.stem, kColors, config.stem_kernel, kStride,
                            Sideways(config.image_width, config.stem_kernel, kStride),
                            VisionPrecision::kF32));
    ASSIGN_OR_RETURN(stem->norm_, build.weights.Vector(p + "bn"));
    stem->band_ = BandRows(config.stem_height, config.stem_width * config.stem * sizeof(float),
                           build.band_bytes);
    stem->in_rows_ = (stem->band_ - 1) * kStride + config.stem_kernel;
    stem->colors_ = stem->plan_.Add<float>(stem->in_rows_ * config.image_width * kColors);
    return std::unique_ptr<VisionStem>(std::move(stem));
  }

  Status Run(const VisionRun& run, const float* pixels, const FeatureMap& out) override {
    const SamePadding pad = SamePaddingOf(height_, kernel_, kStride);
    float* colors = run.At<float>(colors_);
    for (size_t row = 0; row < out.height; row += band_) {
      run.pool.ParallelFor(in_rows_, [&](size_t i) {
        ColorRow(pixels, row * kStride + i, pad.low, colors + i * width_ * kColors);
      });
      float* y = out.row(static_cast<ptrdiff_t>(row));
      RETURN_IF_ERROR(conv_.Run(run.pool, {colors}, in_rows_, width_, y));
      FinishPixels(run, VisionPrecision::kF32, {}, y, band_ * out.width, out.channels,
                   [&](float* pixel, size_t) {
                     kernels::RmsNormGelu(pixel, norm_.data(), pixel, out.channels, kVisionEps);
                   });
    }
    return OkStatus();
  }

 private:
  static constexpr size_t kColors = 3, kStride = 2;

  // Row padded_row - pad of the image, [width, 3]; zeros outside of it.
  void ColorRow(const float* pixels, size_t padded_row, size_t pad, float* to) const {
    if (padded_row < pad || padded_row - pad >= height_) {
      std::fill_n(to, width_ * kColors, 0.0f);
      return;
    }
    const float* from = pixels + (padded_row - pad) * width_;
    for (size_t x = 0; x < width_; ++x) {
      for (size_t c = 0; c < kColors; ++c) to[x * kColors + c] = from[c * height_ * width_ + x];
    }
  }

  ConvOp conv_;
  AlignedBuffer<float> norm_;
  size_t height_ = 0, width_ = 0, kernel_ = 0;
  size_t band_ = 1;     // output rows at a time
  size_t in_rows_ = 1;  // that they need
  size_t colors_ = 0;
};

// ---- Edge residual ----

class EdgeResidual final : public VisionBlock {
 public:
  static Result<std::unique_ptr<VisionBlock>> Create(const VisionBuild& build,
                                                     const VisionBlockConfig& config) {
    auto block = std::make_unique<EdgeResidual>();
    block->config_ = config;
    block->precision_ = build.precision;
    const std::string& p = config.prefix;
    ASSIGN_OR_RETURN(block->expand_,
                     ConvOp::CreateDense(build.weights, p + "conv_exp", "", config.middle,
                                         config.in, config.kernel, config.stride,
                                         Sideways(config.in_width, config.kernel, config.stride),
                                         build.precision));
    ASSIGN_OR_RETURN(block->expand_norm_, build.weights.Vector(p + "bn1"));
    ASSIGN_OR_RETURN(block->project_, PointwiseOp::Create(build.weights, p + "conv_pwl", config.out,
                                                          config.middle, build.precision));
    ASSIGN_OR_RETURN(block->project_norm_, build.weights.Vector(p + "bn2"));
    block->Plan(build.band_bytes);
    return std::unique_ptr<VisionBlock>(std::move(block));
  }

  Status Run(const VisionRun& run, const FeatureMap& in, const FeatureMap& out) override {
    const SamePadding pad = SamePaddingOf(in.height, config_.kernel, config_.stride);
    float* expanded = run.At<float>(expanded_);  // [band, width, middle]
    const size_t pixels = band_ * out.width;
    for (size_t row = 0; row < out.height; row += band_) {
      const float* x =
          in.row(static_cast<ptrdiff_t>(row * config_.stride) - static_cast<ptrdiff_t>(pad.low));
      RETURN_IF_ERROR(
          expand_.Run(run.pool, QuantizeBand(run, x, in), in_rows_, in.width, expanded));
      const Activations wide = FinishPixels(
          run, precision_, expanded_codes_, expanded, pixels, config_.middle,
          [&](float* pixel, size_t) {
            kernels::RmsNormGelu(pixel, expand_norm_.data(), pixel, config_.middle, kVisionEps);
          });
      RETURN_IF_ERROR(project_.Run(run.pool, wide, pixels, out.row(static_cast<ptrdiff_t>(row))));
      FinishBlock(run, in, out, row, band_, project_norm_.data(), config_.residual);
    }
    return OkStatus();
  }

 private:
  void Plan(size_t band_bytes) {
    band_ = BandRows(config_.out_height, config_.out_width * config_.middle * sizeof(float),
                     band_bytes);
    in_rows_ = (band_ - 1) * config_.stride + config_.kernel;
    const size_t pixels = band_ * config_.out_width;
    expanded_ = plan_.Add<float>(pixels * config_.middle);
    expanded_codes_ = CodesPlan::Add(plan_, precision_, pixels, config_.middle);
    in_codes_ = CodesPlan::Add(plan_, precision_, in_rows_ * config_.in_width, config_.in);
    if (precision_ == VisionPrecision::kInt8) {
      ranges_ = plan_.Add<kernels::ValueRange>(in_rows_);
    }
  }

  // A convolution adds up neighbours, which therefore share one scale: that of the band.
  Activations QuantizeBand(const VisionRun& run, const float* x, const FeatureMap& in) const {
    if (precision_ == VisionPrecision::kF32) return {x};
    auto* ranges = run.At<kernels::ValueRange>(ranges_);
    int8_t* codes = run.At<int8_t>(in_codes_.codes);
    auto* params = run.At<xnn_quantization_params>(in_codes_.params);
    const size_t n = in.row_floats();
    run.pool.ParallelFor(in_rows_, [&](size_t row) {
      ranges[row] = {};
      kernels::WidenRange(x + row * n, n, &ranges[row]);
    });
    kernels::ValueRange all;
    for (size_t row = 0; row < in_rows_; ++row) {
      all.lowest = std::min(all.lowest, ranges[row].lowest);
      all.highest = std::max(all.highest, ranges[row].highest);
    }
    const kernels::AffineInt8 affine = kernels::AffineOf(all);
    run.pool.ParallelFor(in_rows_, [&](size_t row) {
      kernels::QuantizeAffine(x + row * n, n, affine, codes + row * n);
    });
    params[0] = ToXnn(affine);
    PadParams(params, 1);
    return {x, codes, params};
  }

  VisionBlockConfig config_;
  VisionPrecision precision_ = VisionPrecision::kF32;
  ConvOp expand_;
  PointwiseOp project_;
  AlignedBuffer<float> expand_norm_, project_norm_;
  size_t band_ = 1;     // output rows at a time
  size_t in_rows_ = 1;  // that they need
  size_t expanded_ = 0, ranges_ = 0;
  CodesPlan expanded_codes_, in_codes_;
};

// ---- Inverted bottleneck ----

class InvertedBottleneck final : public VisionBlock {
 public:
  static Result<std::unique_ptr<VisionBlock>> Create(const VisionBuild& build,
                                                     const VisionBlockConfig& config) {
    auto block = std::make_unique<InvertedBottleneck>();
    block->config_ = config;
    block->precision_ = build.precision;
    RETURN_IF_ERROR(block->Load(build));
    block->Plan(build.band_bytes);
    return std::unique_ptr<VisionBlock>(std::move(block));
  }

  Status Run(const VisionRun& run, const FeatureMap& in, const FeatureMap& out) override {
    float* expanded = run.At<float>(expanded_);
    const size_t pixels = band_ * out.width;
    for (size_t row = 0; row < out.height; row += band_) {
      Activations wide;
      if (config_.middle_kernel == 0) {
        RETURN_IF_ERROR(Expand(run, in, row, band_, expanded, &wide));
      } else {
        RETURN_IF_ERROR(FillWindow(run, in, row));
        float* middle = run.At<float>(middle_);
        RETURN_IF_ERROR(middle_conv_.Run(run.pool, {expanded}, window_, in.width, middle));
        wide = FinishPixels(run, precision_, middle_codes_, middle, pixels, config_.middle,
                            [&](float* pixel, size_t) {
                              kernels::RmsNormGelu(pixel, middle_norm_.data(), pixel,
                                                   config_.middle, kVisionEps);
                            });
      }
      RETURN_IF_ERROR(project_.Run(run.pool, wide, pixels, out.row(static_cast<ptrdiff_t>(row))));
      FinishBlock(run, in, out, row, band_, project_norm_.data(), config_.residual);
    }
    return OkStatus();
  }

 private:
  Status Load(const VisionBuild& build) {
    const std::string& p = config_.prefix;
    const VisionWeights& weights = build.weights;
    if (config_.start_kernel != 0) {
      ASSIGN_OR_RETURN(
          start_conv_,
          ConvOp::CreateDepthwise(weights, p + "dw_start.conv", config_.in, config_.start_kernel, 1,
                                  Sideways(config_.in_width, config_.start_kernel, 1)));
      ASSIGN_OR_RETURN(start_norm_, weights.Vector(p + "dw_start.bn"));
    }
    ASSIGN_OR_RETURN(expand_, PointwiseOp::Create(weights, p + "pw_exp.conv", config_.middle,
                                                  config_.in, build.precision));
    ASSIGN_OR_RETURN(expand_norm_, weights.Vector(p + "pw_exp.bn"));
    if (config_.middle_kernel != 0) {
      ASSIGN_OR_RETURN(
          middle_conv_,
          ConvOp::CreateDepthwise(
              weights, p + "dw_mid.conv", config_.middle, config_.middle_kernel, config_.stride,
              Sideways(config_.in_width, config_.middle_kernel, config_.stride)));
      ASSIGN_OR_RETURN(middle_norm_, weights.Vector(p + "dw_mid.bn"));
    }
    ASSIGN_OR_RETURN(project_, PointwiseOp::Create(weights, p + "pw_proj.conv", config_.out,
                                                   config_.middle, build.precision));
    ASSIGN_OR_RETURN(project_norm_, weights.Vector(p + "pw_proj.bn"));
    // The layer scale follows the norm's weight: one multiplication.
    ASSIGN_OR_RETURN(const AlignedBuffer<float> gamma, weights.Vector(p + "layer_scale.gamma"));
    MultiplyInto(project_norm_, gamma);
    return OkStatus();
  }

  void Plan(size_t band_bytes) {
    const size_t expanded_row = config_.in_width * config_.middle;
    band_ = BandRows(config_.out_height, config_.stride * expanded_row * sizeof(float), band_bytes);
    window_ =
        config_.middle_kernel == 0 ? band_ : (band_ - 1) * config_.stride + config_.middle_kernel;
    const size_t in_pixels = window_ * config_.in_width;
    if (config_.start_kernel != 0) started_ = plan_.Add<float>(in_pixels * config_.in);
    in_codes_ = CodesPlan::Add(plan_, precision_, in_pixels, config_.in);
    expanded_ = plan_.Add<float>(window_ * expanded_row);
    const size_t out_pixels = band_ * config_.out_width;
    if (config_.middle_kernel != 0) middle_ = plan_.Add<float>(out_pixels * config_.middle);
    middle_codes_ = CodesPlan::Add(plan_, precision_, out_pixels, config_.middle);
  }

  // Rows [row, row + num_rows) of the input, through dw_start and pw_exp, to `expanded`. Its
  // quantised copy is made if `wide` wants it.
  Status Expand(const VisionRun& run, const FeatureMap& in, size_t row, size_t num_rows,
                float* expanded, Activations* wide) {
    const size_t pixels = num_rows * in.width;
    Activations x;
    if (config_.start_kernel != 0) {
      const SamePadding pad = SamePaddingOf(in.height, config_.start_kernel, 1);
      float* started = run.At<float>(started_);
      RETURN_IF_ERROR(start_conv_.Run(
          run.pool, {in.row(static_cast<ptrdiff_t>(row) - static_cast<ptrdiff_t>(pad.low))},
          num_rows + config_.start_kernel - 1, in.width, started));
      x = FinishPixels(run, precision_, in_codes_, started, pixels, config_.in,
                       [&](float* pixel, size_t) {
                         kernels::RmsNorm(pixel, start_norm_.data(), pixel, config_.in, kVisionEps);
                       });
    } else {
      x = QuantizePixels(run, precision_, in_codes_, in.row(static_cast<ptrdiff_t>(row)), pixels,
                         config_.in);
    }
    RETURN_IF_ERROR(expand_.Run(run.pool, x, pixels, expanded));
    const Activations activated = FinishPixels(
        run, wide != nullptr ? precision_ : VisionPrecision::kF32, middle_codes_, expanded, pixels,
        config_.middle, [&](float* pixel, size_t) {
          kernels::RmsNormGelu(pixel, expand_norm_.data(), pixel, config_.middle, kVisionEps);
        });
    if (wide != nullptr) *wide = activated;
    return OkStatus();
  }

  // The expanded rows that the output rows [row, row + band_) need, zeros outside the map. Those
  // that the band before had too are moved, not computed again.
  Status FillWindow(const VisionRun& run, const FeatureMap& in, size_t row) {
    const size_t row_floats = in.width * config_.middle;
    float* window = run.At<float>(expanded_);
    const SamePadding pad = SamePaddingOf(in.height, config_.middle_kernel, config_.stride);
    const auto first =
        static_cast<ptrdiff_t>(row * config_.stride) - static_cast<ptrdiff_t>(pad.low);
    const size_t step = band_ * config_.stride;
    const size_t kept = row == 0 || window_ < step ? 0 : window_ - step;
    std::memmove(window, window + (window_ - kept) * row_floats, kept * row_floats * sizeof(float));
    const ptrdiff_t height = static_cast<ptrdiff_t>(in.height);
    const ptrdiff_t begin = std::clamp<ptrdiff_t>(first + static_cast<ptrdiff_t>(kept), 0, height);
    const ptrdiff_t end =
        std::clamp<ptrdiff_t>(first + static_cast<ptrdiff_t>(window_), begin, height);
    float* const new_rows = window + kept * row_floats;
    float* const valid = window + static_cast<size_t>(begin - first) * row_floats;
    float* const after = window + static_cast<size_t>(end - first) * row_floats;
    std::fill(new_rows, std::max(new_rows, valid), 0.0f);
    std::fill(after, window + window_ * row_floats, 0.0f);
    if (begin == end) return OkStatus();
    return Expand(run, in, static_cast<size_t>(begin), static_cast<size_t>(end - begin), valid,
                  nullptr);
  }

  VisionBlockConfig config_;
  VisionPrecision precision_ = VisionPrecision::kF32;
  ConvOp start_conv_, middle_conv_;
  PointwiseOp expand_, project_;
  AlignedBuffer<float> start_norm_, expand_norm_, middle_norm_, project_norm_;
  size_t band_ = 1;    // output rows at a time
  size_t window_ = 1;  // expanded rows that they need
  size_t started_ = 0, expanded_ = 0, middle_ = 0;
  CodesPlan in_codes_, middle_codes_;
};

// ---- Attention ----

class Attention final : public VisionBlock {
 public:
  static Result<std::unique_ptr<VisionBlock>> Create(const VisionBuild& build,
                                                     const VisionBlockConfig& config) {
    auto block = std::make_unique<Attention>();
    block->config_ = config;
    block->precision_ = build.precision;
    const std::string& p = config.prefix;
    const VisionWeights& weights = build.weights;
    ASSIGN_OR_RETURN(block->norm_, weights.Vector(p + "norm"));
    ASSIGN_OR_RETURN(block->query_, PointwiseOp::Create(weights, p + "attn.query.proj",
                                                        config.middle, config.in, build.precision));
    RETURN_IF_ERROR(block->LoadSide(build, "attn.key.", &block->key_));
    RETURN_IF_ERROR(block->LoadSide(build, "attn.value.", &block->value_));
    ASSIGN_OR_RETURN(block->project_,
                     PointwiseOp::Create(weights, p + "attn.output.proj", config.out, config.middle,
                                         build.precision));
    ASSIGN_OR_RETURN(block->gamma_, weights.Vector(p + "layer_scale.gamma"));
    block->Plan(build.num_threads);
    return std::unique_ptr<VisionBlock>(std::move(block));
  }

  Status Run(const VisionRun& run, const FeatureMap& in, const FeatureMap& out) override {
    const size_t pixels = in.pixels(), n = in.channels;
    float* normed = run.At<float>(normed_);
    const Activations x =
        FinishPixels(run, precision_, in_codes_, normed, pixels, n, [&](float* pixel, size_t p) {
          kernels::RmsNorm(in.data + p * n, norm_.data(), pixel, n, kVisionEps);
        });
    float* query = run.At<float>(query_values_);  // [pixels, heads, head_dim]
    RETURN_IF_ERROR(query_.Run(run.pool, x, pixels, query));
    float* keys = run.At<float>(keys_);      // [keys, head_dim]
    float* values = run.At<float>(values_);  // [keys, head_dim]
    RETURN_IF_ERROR(RunSide(run, key_, x, in, keys));
    RETURN_IF_ERROR(RunSide(run, value_, x, in, values));
    const Activations attended = Attend(run, pixels, query, keys, values);
    RETURN_IF_ERROR(project_.Run(run.pool, attended, pixels, out.data));
    ForPixels(run.pool, pixels, n, [&](size_t begin, size_t end) {
      for (size_t p = begin; p < end; ++p) {
        float* pixel = out.data + p * n;
        kernels::ScaleResidual(pixel, gamma_.data(), in.data + p * n, pixel, n);
      }
    });
    return OkStatus();
  }

 private:
  // Keys or values: optionally a depthwise convolution and a norm, then the projection.
  struct Side {
    ConvOp down;
    AlignedBuffer<float> norm;
    PointwiseOp project;
  };

  Status LoadSide(const VisionBuild& build, const char* name, Side* side) const {
    const std::string p = config_.prefix + name;
    if (config_.kv_kernel != 0) {
      ASSIGN_OR_RETURN(side->down,
                       ConvOp::CreateDepthwise(build.weights, p + "down_conv", config_.in,
                                               config_.kv_kernel, config_.kv_stride,
                                               AllAround(config_.in_height, config_.in_width,
                                                         config_.kv_kernel, config_.kv_stride)));
      ASSIGN_OR_RETURN(side->norm, build.weights.Vector(p + "norm"));
    }
    ASSIGN_OR_RETURN(side->project, PointwiseOp::Create(build.weights, p + "proj", config_.head_dim,
                                                        config_.in, build.precision));
    return OkStatus();
  }

  void Plan(size_t num_threads) {
    const size_t pixels = config_.in_height * config_.in_width;
    const auto down = [&](size_t n) { return (n + config_.kv_stride - 1) / config_.kv_stride; };
    num_keys_ = down(config_.in_height) * down(config_.in_width);
    normed_ = plan_.Add<float>(pixels * config_.in);
    in_codes_ = CodesPlan::Add(plan_, precision_, pixels, config_.in);
    query_values_ = plan_.Add<float>(pixels * config_.middle);
    query_codes_ = CodesPlan::Add(plan_, precision_, pixels, config_.middle);
    if (config_.kv_kernel != 0) {
      down_ = plan_.Add<float>(num_keys_ * config_.in);
      down_codes_ = CodesPlan::Add(plan_, precision_, num_keys_, config_.in);
    }
    keys_ = plan_.Add<float>(num_keys_ * config_.head_dim);
    values_ = plan_.Add<float>(num_keys_ * config_.head_dim);
    packed_keys_ = plan_.Add<float>(kernels::PackedKeyFloats(num_keys_, config_.head_dim));
    // Several tasks a thread, so that none waits long for the last one.
    const size_t tasks = std::min(pixels, num_threads * 8);
    task_pixels_ = (pixels + tasks - 1) / tasks;
    num_tasks_ = (pixels + task_pixels_ - 1) / task_pixels_;
    scores_ = plan_.Add<float>(num_tasks_ * kernels::SharedKvScratchFloats(num_keys_));
  }

  Status RunSide(const VisionRun& run, Side& side, const Activations& x, const FeatureMap& in,
                 float* projected) const {
    if (config_.kv_kernel == 0) return side.project.Run(run.pool, x, in.pixels(), projected);
    float* down = run.At<float>(down_);
    RETURN_IF_ERROR(side.down.Run(run.pool, {x.values}, in.height, in.width, down));
    const Activations normed = FinishPixels(
        run, precision_, down_codes_, down, num_keys_, config_.in, [&](float* pixel, size_t) {
          kernels::RmsNorm(pixel, side.norm.data(), pixel, config_.in, kVisionEps);
        });
    return side.project.Run(run.pool, normed, num_keys_, projected);
  }

  // Overwrites `query` with the weighted values. The heads of a pixel are rows like any others:
  // they share keys and values with all the rest.
  Activations Attend(const VisionRun& run, size_t pixels, float* query, const float* keys,
                     const float* values) const {
    float* packed_keys = run.At<float>(packed_keys_);
    kernels::PackKeys(keys, num_keys_, config_.head_dim, packed_keys);
    float* scores = run.At<float>(scores_);
    const bool int8 = precision_ == VisionPrecision::kInt8;
    int8_t* codes = int8 ? run.At<int8_t>(query_codes_.codes) : nullptr;
    auto* params = int8 ? run.At<xnn_quantization_params>(query_codes_.params) : nullptr;
    const size_t n = config_.middle;
    run.pool.ParallelFor(num_tasks_, [&](size_t task) {
      const size_t begin = task * task_pixels_, end = std::min(pixels, begin + task_pixels_);
      float* rows = query + begin * n;
      kernels::SharedKvAttention({rows, rows, (end - begin) * config_.num_heads, packed_keys,
                                  values, num_keys_, config_.head_dim,
                                  1.0f / std::sqrt(static_cast<float>(config_.head_dim)),
                                  scores + task * kernels::SharedKvScratchFloats(num_keys_)});
      if (!int8) return;
      for (size_t p = begin; p < end; ++p) {
        params[p] = QuantizePixel(query + p * n, n, codes + p * n);
      }
    });
    if (int8) PadParams(params, pixels);
    return {query, codes, params};
  }

  VisionBlockConfig config_;
  VisionPrecision precision_ = VisionPrecision::kF32;
  AlignedBuffer<float> norm_, gamma_;
  PointwiseOp query_, project_;
  Side key_, value_;
  size_t num_keys_ = 0, num_tasks_ = 0, task_pixels_ = 0;
  size_t normed_ = 0, query_values_ = 0, down_ = 0, keys_ = 0, values_ = 0, packed_keys_ = 0,
         scores_ = 0;
  CodesPlan in_codes_, query_codes_, down_codes_;
};

// ---- Fusion adapter and embedder ----

class Head final : public VisionHead {
 public:
  static Result<std::unique_ptr<VisionHead>> Create(const VisionBuild& build,
                                                    const VisionConfig& config) {
    auto head = std::make_unique<Head>();
    head->config_ = config;
    head->precision_ = build.precision;
    const std::string p = StrCat(kVisionPrefix, "msfa.");
    const VisionWeights& weights = build.weights;
    const VisionBlockConfig& high = config.stages[config.stages.size() - 2].back();
    const VisionBlockConfig& low = config.stages.back().back();
    const size_t in = high.out + low.out, middle = config.fusion_middle;
    ASSIGN_OR_RETURN(head->expand_high_,
                     PointwiseOp::CreatePart(weights, p + "ffn.pw_exp.conv", middle, in, 0,
                                             high.out, build.precision));
    ASSIGN_OR_RETURN(head->expand_low_,
                     PointwiseOp::CreatePart(weights, p + "ffn.pw_exp.conv", middle, in, high.out,
                                             low.out, build.precision));
    ASSIGN_OR_RETURN(head->expand_norm_, weights.Vector(p + "ffn.pw_exp.bn"));
    ASSIGN_OR_RETURN(head->project_, PointwiseOp::Create(weights, p + "ffn.pw_proj.conv",
                                                         config.features, middle, build.precision));
    ASSIGN_OR_RETURN(head->project_norm_, weights.Vector(p + "ffn.pw_proj.bn"));
    ASSIGN_OR_RETURN(head->norm_, weights.Vector(p + "norm"));
    ASSIGN_OR_RETURN(head->soft_norm_, weights.Vector("embed_vision.soft_embedding_norm"));
    ASSIGN_OR_RETURN(head->embed_,
                     PointwiseOp::Create(weights, "embed_vision.embedding_projection",
                                         config.hidden_size, config.features, build.precision));
    head->Plan(high, low, build.band_bytes);
    return std::unique_ptr<VisionHead>(std::move(head));
  }

  Status Run(const VisionRun& run, const FeatureMap& high, const FeatureMap& low, float* features,
             float* soft_tokens) override {
    // The expansion is linear and per pixel: what comes from the low resolution is computed there
    // and repeated afterwards, as the nearest neighbour would have been before.
    float* expanded_low = run.At<float>(expanded_low_);
    RETURN_IF_ERROR(expand_low_.Run(
        run.pool, QuantizePixels(run, precision_, low_codes_, low.data, low.pixels(), low.channels),
        low.pixels(), expanded_low));
    for (size_t row = 0; row < high.height; row += band_) {
      RETURN_IF_ERROR(RunBand(run, high, low, expanded_low, row, features));
    }
    return Embed(run, features, soft_tokens);
  }

 private:
  void Plan(const VisionBlockConfig& high, const VisionBlockConfig& low, size_t band_bytes) {
    pool_height_ = high.out_height / config_.output_resolution;
    pool_width_ = high.out_width / config_.output_resolution;
    const size_t middle = config_.fusion_middle;
    band_ =
        pool_height_ * BandRows(config_.output_resolution,
                                pool_height_ * high.out_width * middle * sizeof(float), band_bytes);
    const size_t pixels = band_ * high.out_width;
    const size_t low_pixels = low.out_height * low.out_width;
    expanded_low_ = plan_.Add<float>(low_pixels * middle);
    low_codes_ = CodesPlan::Add(plan_, precision_, low_pixels, low.out);
    expanded_ = plan_.Add<float>(pixels * middle);
    high_codes_ = CodesPlan::Add(plan_, precision_, pixels, high.out);
    expanded_codes_ = CodesPlan::Add(plan_, precision_, pixels, middle);
    projected_ = plan_.Add<float>(pixels * config_.features);
    const size_t tokens = config_.num_soft_tokens();
    soft_ = plan_.Add<float>(tokens * config_.features);
    soft_codes_ = CodesPlan::Add(plan_, precision_, tokens, config_.features);
  }

  // Rows [row, row + band_) of the high resolution to the rows of features that pool them.
  Status RunBand(const VisionRun& run, const FeatureMap& high, const FeatureMap& low,
                 const float* expanded_low, size_t row, float* features) {
    const size_t pixels = band_ * high.width, middle = config_.fusion_middle;
    float* expanded = run.At<float>(expanded_);
    const Activations x = QuantizePixels(
        run, precision_, high_codes_, high.row(static_cast<ptrdiff_t>(row)), pixels, high.channels);
    RETURN_IF_ERROR(expand_high_.Run(run.pool, x, pixels, expanded));
    const Activations wide = FinishPixels(
        run, precision_, expanded_codes_, expanded, pixels, middle, [&](float* pixel, size_t p) {
          const size_t y = (row + p / high.width) * low.height / high.height;
          const size_t x_low = p % high.width * low.width / high.width;
          const float* other = expanded_low + (y * low.width + x_low) * middle;
          for (size_t i = 0; i < middle; ++i) pixel[i] += other[i];
          kernels::RmsNormGelu(pixel, expand_norm_.data(), pixel, middle, kVisionEps);
        });
    float* projected = run.At<float>(projected_);
    RETURN_IF_ERROR(project_.Run(run.pool, wide, pixels, projected));
    const size_t n = config_.features, resolution = config_.output_resolution;
    const size_t first = row / pool_height_ * resolution;
    run.pool.ParallelFor(band_ / pool_height_ * resolution, [&](size_t token) {
      PoolAndNorm(projected, high.width, token / resolution, token % resolution,
                  features + (first + token) * n);
    });
    return OkStatus();
  }

  // The mean of the normed pixels of one window, normed again.
  void PoolAndNorm(float* projected, size_t width, size_t token_y, size_t token_x,
                   float* feature) const {
    const size_t n = config_.features;
    std::fill_n(feature, n, 0.0f);
    for (size_t y = 0; y < pool_height_; ++y) {
      for (size_t x = 0; x < pool_width_; ++x) {
        float* pixel =
            projected + ((token_y * pool_height_ + y) * width + token_x * pool_width_ + x) * n;
        kernels::RmsNormAdd(pixel, project_norm_.data(), feature, n, kVisionEps);
      }
    }
    kernels::Scale(feature, 1.0f / static_cast<float>(pool_height_ * pool_width_), n);
    kernels::RmsNorm(feature, norm_.data(), feature, n, kVisionEps);
  }

  Status Embed(const VisionRun& run, const float* features, float* soft_tokens) {
    const size_t tokens = config_.num_soft_tokens(), n = config_.features;
    const float factor = std::sqrt(static_cast<float>(n));
    float* soft = run.At<float>(soft_);
    const Activations x =
        FinishPixels(run, precision_, soft_codes_, soft, tokens, n, [&](float* token, size_t p) {
          std::copy_n(features + p * n, n, token);
          kernels::Scale(token, factor, n);
          kernels::RmsNorm(token, soft_norm_.data(), token, n, config_.embedder_eps);
        });
    RETURN_IF_ERROR(embed_.Run(run.pool, x, tokens, soft_tokens));
    FinishPixels(run, VisionPrecision::kF32, {}, soft_tokens, tokens, config_.hidden_size,
                 [&](float* token, size_t) {
                   kernels::RmsNorm(token, nullptr, token, config_.hidden_size,
                                    config_.embedder_eps);
                 });
    return OkStatus();
  }

  VisionConfig config_;
  VisionPrecision precision_ = VisionPrecision::kF32;
  PointwiseOp expand_high_, expand_low_, project_, embed_;
  AlignedBuffer<float> expand_norm_, project_norm_, norm_, soft_norm_;
  size_t band_ = 1, pool_height_ = 1, pool_width_ = 1;
  size_t expanded_low_ = 0, expanded_ = 0, projected_ = 0, soft_ = 0;
  CodesPlan low_codes_, high_codes_, expanded_codes_, soft_codes_;
};

}  // namespace

size_t BandRows(size_t height, size_t row_bytes, size_t band_bytes) {
  size_t rows = std::clamp<size_t>(band_bytes / row_bytes, 1, height);
  while (height % rows != 0) --rows;
  return rows;
}

Result<std::unique_ptr<VisionBlock>> MakeVisionBlock(const VisionBuild& build,
                                                     const VisionBlockConfig& config) {
  switch (config.kind) {
    case VisionBlockConfig::Kind::kEdgeResidual:
      return EdgeResidual::Create(build, config);
    case VisionBlockConfig::Kind::kInvertedBottleneck:
      return InvertedBottleneck::Create(build, config);
    case VisionBlockConfig::Kind::kAttention:
      return Attention::Create(build, config);
  }
  return Internal("a vision block of no kind");
}

Result<std::unique_ptr<VisionStem>> MakeVisionStem(const VisionBuild& build,
                                                   const VisionConfig& config) {
  return Stem::Create(build, config);
}

Result<std::unique_ptr<VisionHead>> MakeVisionHead(const VisionBuild& build,
                                                   const VisionConfig& config) {
  return Head::Create(build, config);
}

}  // namespace nestling
