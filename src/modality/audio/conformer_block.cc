// SPDX-License-Identifier: Apache-2.0
#include "modality/audio/conformer_block.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <numbers>

#include "base/math.h"
#include "kernels/conformer/conformer.h"
#include "kernels/rms_norm/rms_norm.h"
#include "model/weights.h"

namespace nestling {
namespace {

constexpr size_t kAlignment = 64;  // bytes; kernels may read as much past a buffer's end, and more
constexpr size_t kSlackBytes = AlignedBuffer<float>::kSlackBytes;

// The widest input or output of a block's operators.
size_t WidestRow(const AudioConfig& config) {
  return std::max({config.ffn_size, 2 * config.size, config.subsampled_size()});
}

size_t PastRows(const AudioConfig& config) {
  return std::max(config.attention_window, config.conv_kernel) - 1;
}

Status RunOne(LinearBlock& block, size_t num_steps, const float* input, float* output,
              const LinearWorkspace& workspace) {
  return block.Run(num_steps, std::span(&input, 1), std::span(&output, 1), workspace);
}

}  // namespace

Result<ConformerState> MakeConformerState(const AudioConfig& config) {
  const size_t keys = (config.attention_window - 1) * config.size;
  ConformerState state;
  ASSIGN_OR_RETURN(state.keys, FloatMemory::Create(keys));
  ASSIGN_OR_RETURN(state.values, FloatMemory::Create(keys));
  ASSIGN_OR_RETURN(state.convolved, FloatMemory::Create((config.conv_kernel - 1) * config.size));
  return state;
}

Result<ConformerScratch> ConformerScratch::Create(const AudioConfig& config, size_t max_steps) {
  const size_t rows = max_steps * config.size, wide = max_steps * WidestRow(config);
  const size_t history = (PastRows(config) + max_steps) * config.size;
  const size_t workspace = LinearWorkspaceBytes(max_steps, WidestRow(config), /*num_inputs=*/1);
  size_t bytes = 0;
  const auto reserve = [&bytes](size_t part_bytes) {
    const size_t offset = bytes;
    bytes += RoundUp(part_bytes + kSlackBytes, kAlignment);
    return offset;
  };
  const size_t offsets[] = {reserve(rows * 4), reserve(wide * 4), reserve(rows * 4),
                            reserve(history * 4), reserve(history * 4)};
  const size_t workspace_offset = reserve(workspace);
  ConformerScratch scratch;
  ASSIGN_OR_RETURN(scratch.memory_, LazyMemory::Create(bytes));
  std::byte* const base = scratch.memory_.data();
  const auto part = [&](size_t i) { return reinterpret_cast<float*>(base + offsets[i]); };
  scratch.normed = part(0);
  scratch.wide = part(1);
  scratch.out = part(2);
  scratch.history[0] = part(3);
  scratch.history[1] = part(4);
  scratch.workspace = {base + workspace_offset, workspace};
  return scratch;
}

Result<std::unique_ptr<ConformerBlock>> ConformerBlock::Create(
    const AudioConfig& config, size_t layer, const ContainerReader& reader, AudioWeights* weights,
    GraphContext& context, const ThreadPool& pool) {
  std::unique_ptr<ConformerBlock> block(new ConformerBlock(config, pool));
  RETURN_IF_ERROR(block->Load(layer, reader, weights, context));
  return block;
}

Status ConformerBlock::LoadFeedForward(size_t layer, const char* part,
                                       const ContainerReader& reader, AudioWeights* weights,
                                       GraphContext& context, FeedForward* ffw) {
  const std::string p = audio_names::Layer(layer, part);
  ASSIGN_OR_RETURN(ffw->pre_norm, weights->Floats(reader, p + ".pre_layer_norm"));
  ASSIGN_OR_RETURN(ffw->post_norm, weights->Floats(reader, p + ".post_layer_norm"));
  kernels::Scale(ffw->post_norm.data(), config_.residual_weight, config_.size);
  const AudioLinear up[] = {{p + ".ffw_layer_1"}}, down[] = {{p + ".ffw_layer_2"}};
  ASSIGN_OR_RETURN(ffw->up, weights->Block(reader, context, up));
  ASSIGN_OR_RETURN(ffw->down, weights->Block(reader, context, down));
  return OkStatus();
}

Status ConformerBlock::Load(size_t layer, const ContainerReader& reader, AudioWeights* weights,
                            GraphContext& context) {
  const auto name = [layer](const char* part) { return audio_names::Layer(layer, part); };
  const auto floats = [&](const char* part) { return weights->Floats(reader, name(part)); };
  RETURN_IF_ERROR(LoadFeedForward(layer, "ffw_layer_start", reader, weights, context, &ffw_start_));
  RETURN_IF_ERROR(LoadFeedForward(layer, "ffw_layer_end", reader, weights, context, &ffw_end_));
  ASSIGN_OR_RETURN(pre_attention_norm_, floats("attention.pre_attn_norm"));
  ASSIGN_OR_RETURN(post_attention_norm_, floats("attention.post_norm"));
  ASSIGN_OR_RETURN(pre_conv_norm_, floats("lconv1d.pre_layer_norm"));
  ASSIGN_OR_RETURN(conv_norm_, floats("lconv1d.conv_norm"));
  ASSIGN_OR_RETURN(final_norm_, floats("norm"));

  const AudioLinear qkv[] = {{name("attention.attn.q_proj")},
                             {name("attention.attn.k_proj")},
                             {name("attention.attn.v_proj")}};
  const AudioLinear attention_out[] = {{name("attention.post")}};
  const AudioLinear conv_in[] = {{name("lconv1d.linear_start")}};
  const AudioLinear conv_out[] = {{name("lconv1d.linear_end")}};
  ASSIGN_OR_RETURN(qkv_, weights->Block(reader, context, qkv));
  ASSIGN_OR_RETURN(attention_out_, weights->Block(reader, context, attention_out));
  ASSIGN_OR_RETURN(conv_in_, weights->Block(reader, context, conv_in));
  ASSIGN_OR_RETURN(conv_out_, weights->Block(reader, context, conv_out));

  // [size, 1, taps] -> [taps, size].
  ASSIGN_OR_RETURN(const AlignedBuffer<float> stored, floats("lconv1d.depthwise_conv1d"));
  ASSIGN_OR_RETURN(taps_, AlignedBuffer<float>::Create(stored.size()));
  for (size_t c = 0; c < config_.size; ++c) {
    for (size_t t = 0; t < config_.conv_kernel; ++t) {
      taps_[t * config_.size + c] = stored[c * config_.conv_kernel + t];
    }
  }

  // softplus(0) = ln 2, so that a zero parameter means head_dim^-0.5.
  ASSIGN_OR_RETURN(const AlignedBuffer<float> per_dim, floats("attention.attn.per_dim_scale"));
  ASSIGN_OR_RETURN(query_scales_, AlignedBuffer<float>::Create(config_.size));
  const double base = 1.0 / std::sqrt(static_cast<double>(config_.head_dim)) / std::numbers::ln2;
  for (size_t i = 0; i < config_.size; ++i) {
    const double value = per_dim[i % config_.head_dim];
    const double softplus = value > 20.0 ? value : std::log1p(std::exp(value));
    query_scales_[i] = static_cast<float>(base * softplus);
  }
  return MakePositions(layer, reader, *weights);
}

// The relative position vectors: sinusoids of the distance, projected.
Status ConformerBlock::MakePositions(size_t layer, const ContainerReader& reader,
                                     const AudioWeights& weights) {
  const std::string name =
      audio_names::Layer(layer, "attention.attn.relative_position_embedding.pos_proj");
  const size_t count = config_.attention_window * config_.size;
  ASSIGN_OR_RETURN(
      const std::span<const std::byte> bytes,
      weights.packed().Blob(
          name + " positions", count * sizeof(float), [&](std::span<std::byte> out) -> Status {
            ASSIGN_OR_RETURN(const Matrix projection, weights.View(reader, name));
            RETURN_IF_ERROR(RequireStored(projection));
            RETURN_IF_ERROR(ProjectPositions(projection, reinterpret_cast<float*>(out.data())));
            weights.ReleasePages(projection);
            return OkStatus();
          }));
  positions_ = {reinterpret_cast<const float*>(bytes.data()), count};
  return OkStatus();
}

// positions [window, size] = sinusoids * projection^T. The projection is used once: it is not
// packed, and widened a few rows at a time.
Status ConformerBlock::ProjectPositions(const Matrix& projection, float* positions) const {
  const size_t size = config_.size, half = size / 2, window = config_.attention_window;
  ASSIGN_OR_RETURN(AlignedBuffer<float> sinusoids, AlignedBuffer<float>::Create(window * size));
  const double step = std::log(1e4) / static_cast<double>(std::max<size_t>(half - 1, 1));
  for (size_t distance = 0; distance < window; ++distance) {
    float* const row = sinusoids.data() + distance * size;
    for (size_t j = 0; j < half; ++j) {
      const double angle = static_cast<double>(distance) * std::exp(-static_cast<double>(j) * step);
      row[j] = static_cast<float>(std::sin(angle));
      row[half + j] = static_cast<float>(std::cos(angle));
    }
  }
  constexpr size_t kRows = 32;
  ASSIGN_OR_RETURN(AlignedBuffer<float> rows, AlignedBuffer<float>::Create(kRows * size));
  for (size_t begin = 0; begin < size; begin += kRows) {
    pool_.ParallelFor(std::min(kRows, size - begin), [&](size_t i) {
      float* const row = rows.data() + i * size;
      DequantizeRow(projection, begin + i, row);
      for (size_t distance = 0; distance < window; ++distance) {
        const float* const x = sinusoids.data() + distance * size;
        double sum = 0.0;
        for (size_t c = 0; c < size; ++c) sum += static_cast<double>(row[c]) * x[c];
        positions[distance * size + begin + i] = static_cast<float>(sum);
      }
    });
  }
  return OkStatus();
}

void ConformerBlock::NormRows(const AlignedBuffer<float>& norm, size_t num_steps, const float* x,
                              float* y) const {
  const size_t size = config_.size;
  pool_.ParallelFor(num_steps, [&](size_t t) {
    kernels::RmsNorm(x + t * size, norm.data(), y + t * size, size, config_.norm_eps);
  });
}

// x + residual_weight * post_norm(down(silu(up(pre_norm(x)))))
Status ConformerBlock::RunFeedForward(const FeedForward& ffw, size_t num_steps,
                                      ConformerScratch* scratch, float* x) const {
  const size_t size = config_.size, ffn = config_.ffn_size;
  NormRows(ffw.pre_norm, num_steps, x, scratch->normed);
  RETURN_IF_ERROR(RunOne(*ffw.up, num_steps, scratch->normed, scratch->wide, scratch->workspace));
  pool_.ParallelFor(num_steps, [&](size_t t) { kernels::Silu(scratch->wide + t * ffn, ffn); });
  RETURN_IF_ERROR(RunOne(*ffw.down, num_steps, scratch->wide, scratch->out, scratch->workspace));
  pool_.ParallelFor(num_steps, [&](size_t t) {
    kernels::RmsNormAdd(scratch->out + t * size, ffw.post_norm.data(), x + t * size, size,
                        config_.norm_eps);
  });
  return OkStatus();
}

// x + post_norm(post(attention(pre_norm(x))))
Status ConformerBlock::RunAttention(size_t first_step, size_t num_steps, ConformerScratch* scratch,
                                    ConformerState* state, float* x) const {
  const size_t size = config_.size, past = config_.attention_window - 1;
  const size_t past_bytes = past * size * sizeof(float);
  float* const keys = scratch->history[0];
  float* const values = scratch->history[1];
  NormRows(pre_attention_norm_, num_steps, x, scratch->normed);
  if (past > 0) {
    std::memcpy(keys, state->keys.data(), past_bytes);
    std::memcpy(values, state->values.data(), past_bytes);
  }
  float* const queries = scratch->wide;
  const float* const input = scratch->normed;
  const std::array<float*, 3> outputs = {queries, keys + past * size, values + past * size};
  RETURN_IF_ERROR(qkv_->Run(num_steps, std::span(&input, 1), outputs, scratch->workspace));
  pool_.ParallelFor(num_steps, [&](size_t t) {
    float* const q = queries + t * size;
    for (size_t i = 0; i < size; ++i) q[i] *= query_scales_[i];
    const size_t newest = (past + t) * size;
    kernels::LocalAttentionArgs args;
    args.stride = size;
    args.position_stride = size;
    args.num_keys = std::min(first_step + t + 1, config_.attention_window);
    args.head_dim = config_.head_dim;
    args.cap = config_.logit_cap;
    for (size_t head = 0; head < config_.num_heads; ++head) {
      const size_t offset = head * config_.head_dim;
      args.q = q + offset;
      args.k = keys + newest + offset;
      args.v = values + newest + offset;
      args.positions = positions_.data() + offset;
      args.out = scratch->normed + t * size + offset;
      kernels::LocalAttention(args);
    }
  });
  if (past > 0) {
    std::memcpy(state->keys.data(), keys + num_steps * size, past_bytes);
    std::memcpy(state->values.data(), values + num_steps * size, past_bytes);
  }
  RETURN_IF_ERROR(
      RunOne(*attention_out_, num_steps, scratch->normed, scratch->out, scratch->workspace));
  pool_.ParallelFor(num_steps, [&](size_t t) {
    kernels::RmsNormAdd(scratch->out + t * size, post_attention_norm_.data(), x + t * size, size,
                        config_.norm_eps);
  });
  return OkStatus();
}

// x + linear_end(silu(conv_norm(depthwise(glu(linear_start(pre_norm(x)))))))
Status ConformerBlock::RunConvolution(size_t num_steps, ConformerScratch* scratch,
                                      ConformerState* state, float* x) const {
  const size_t size = config_.size, past = config_.conv_kernel - 1;
  float* const gated = scratch->history[0];  // [past + num_steps, size]
  NormRows(pre_conv_norm_, num_steps, x, scratch->normed);
  RETURN_IF_ERROR(RunOne(*conv_in_, num_steps, scratch->normed, scratch->wide, scratch->workspace));
  if (past > 0) std::memcpy(gated, state->convolved.data(), past * size * sizeof(float));
  pool_.ParallelFor(num_steps, [&](size_t t) {
    kernels::Glu(scratch->wide + t * 2 * size, gated + (past + t) * size, size);
  });
  pool_.ParallelFor(num_steps, [&](size_t t) {
    float* const row = scratch->normed + t * size;
    kernels::DepthwiseStep(gated + t * size, size, taps_.data(), config_.conv_kernel, row, size);
    kernels::RmsNorm(row, conv_norm_.data(), row, size, config_.norm_eps);
    kernels::Silu(row, size);
  });
  if (past > 0) {
    std::memcpy(state->convolved.data(), gated + num_steps * size, past * size * sizeof(float));
  }
  RETURN_IF_ERROR(RunOne(*conv_out_, num_steps, scratch->normed, scratch->out, scratch->workspace));
  pool_.ParallelFor(num_steps, [&](size_t t) {
    for (size_t i = t * size; i < (t + 1) * size; ++i) x[i] += scratch->out[i];
  });
  return OkStatus();
}

Status ConformerBlock::Run(size_t first_step, size_t num_steps, ConformerScratch* scratch,
                           ConformerState* state, float* x, ConformerObserver observer) const {
  const auto show = [&](const char* part) {
    if (observer) observer(part, x);
  };
  RETURN_IF_ERROR(RunFeedForward(ffw_start_, num_steps, scratch, x));
  show("ffw_start");
  RETURN_IF_ERROR(RunAttention(first_step, num_steps, scratch, state, x));
  show("attention");
  RETURN_IF_ERROR(RunConvolution(num_steps, scratch, state, x));
  show("lconv");
  RETURN_IF_ERROR(RunFeedForward(ffw_end_, num_steps, scratch, x));
  show("ffw_end");
  NormRows(final_norm_, num_steps, x, x);
  show("");
  return OkStatus();
}

}  // namespace nestling
