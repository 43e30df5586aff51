// SPDX-License-Identifier: Apache-2.0
#include "modality/audio/subsample.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/gelu_gate/gelu_gate.h"

namespace nestling {

Result<std::unique_ptr<SubsampleBlock>> SubsampleBlock::Create(
    const AudioConfig& config, size_t index, const ContainerReader& reader,
    const AudioWeights& weights, GraphContext& context, const ThreadPool& pool) {
  std::unique_ptr<SubsampleBlock> block(new SubsampleBlock(pool));
  block->in_frequencies_ = index == 0 ? config.mel.num_bins : config.conv_frequencies[0];
  block->in_channels_ = index == 0 ? 1 : config.conv_channels[0];
  block->out_frequencies_ = config.conv_frequencies[index];
  block->out_channels_ = config.conv_channels[index];
  block->eps_ = config.group_norm_eps;
  const size_t in = block->in_channels_, out = block->out_channels_;
  constexpr size_t kTaps = kSubsampleKernel * kSubsampleKernel;
  block->patch_size_ = kTaps * in;

  const char* const conv = index == 0 ? "conv_0.conv" : "conv_1.conv";
  const char* const norm = index == 0 ? "conv_0.norm" : "conv_1.norm";
  ASSIGN_OR_RETURN(block->norm_, weights.Floats(reader, audio_names::Subsample(norm)));
  // [out, in, time, frequency] -> [out, time, frequency, in], the order of a patch.
  ASSIGN_OR_RETURN(const AlignedBuffer<float> stored,
                   weights.Floats(reader, audio_names::Subsample(conv)));
  ASSIGN_OR_RETURN(AlignedBuffer<float> moved, AlignedBuffer<float>::Create(stored.size()));
  for (size_t o = 0; o < out; ++o) {
    for (size_t i = 0; i < in; ++i) {
      for (size_t tap = 0; tap < kTaps; ++tap) {
        moved[(o * kTaps + tap) * in + i] = stored[(o * in + i) * kTaps + tap];
      }
    }
  }
  ASSIGN_OR_RETURN(block->convolution_, FloatBlock(context, audio_names::Subsample(conv),
                                                   moved.data(), out, block->patch_size_));
  return block;
}

// The patches of one output row: [out_frequencies, time tap, frequency tap, channel].
void SubsampleBlock::CopyPatches(const RowQueue& inputs, size_t row, float* patches) const {
  const size_t channels = in_channels_, span = kSubsampleKernel * channels;
  for (size_t tap = 0; tap < kSubsampleKernel; ++tap) {
    const size_t time = row * kSubsampleStride + tap;  // padding: none before, two after
    if (time >= inputs.end()) {
      for (size_t f = 0; f < out_frequencies_; ++f) {
        std::memset(patches + f * patch_size_ + tap * span, 0, span * sizeof(float));
      }
      continue;
    }
    const float* const input = inputs.row(time);
    for (size_t f = 0; f < out_frequencies_; ++f) {
      float* const patch = patches + f * patch_size_ + tap * span;
      // Frequencies 2 f - 1 .. 2 f + 1, with one of padding at each end.
      const size_t skipped = f == 0 ? 1 : 0;
      const size_t begin = f * kSubsampleStride + skipped - 1;
      const size_t end = std::min(f * kSubsampleStride + 2, in_frequencies_);
      const size_t copied = (end - begin) * channels;
      std::memset(patch, 0, skipped * channels * sizeof(float));
      std::memcpy(patch + skipped * channels, input + begin * channels, copied * sizeof(float));
      const size_t filled = skipped * channels + copied;
      std::memset(patch + filled, 0, (span - filled) * sizeof(float));
    }
  }
}

// The mean of step t is that of all values of the steps up to t. The variance is not the running
// one: each step's squared deviations are from its own mean, and stay so.
void SubsampleBlock::Normalise(size_t count, CumulativeNormState* state, float* rows) const {
  const size_t width = row_width();
  double sums[kMaxRows], means[kMaxRows], scales[kMaxRows];
  pool_.ParallelFor(count, [&](size_t t) { sums[t] = kernels::Sum(rows + t * width, width); });
  for (size_t t = 0; t < count; ++t) {
    state->sum += sums[t];
    means[t] = state->sum / static_cast<double>((state->steps + t + 1) * width);
  }
  pool_.ParallelFor(count, [&](size_t t) {
    sums[t] = kernels::SumSquaredDeviation(rows + t * width, width, static_cast<float>(means[t]));
  });
  for (size_t t = 0; t < count; ++t) {
    state->squared_deviations += sums[t];
    const double variance =
        state->squared_deviations / static_cast<double>((state->steps + t + 1) * width);
    scales[t] = 1.0 / std::sqrt(variance + eps_);
  }
  state->steps += count;
  pool_.ParallelFor(count, [&](size_t t) {
    const float mean = static_cast<float>(means[t]), scale = static_cast<float>(scales[t]);
    const float* const weights = norm_.data();
    for (size_t f = 0; f < out_frequencies_; ++f) {
      float* const values = rows + t * width + f * out_channels_;
      for (size_t c = 0; c < out_channels_; ++c) {
        values[c] = std::max((values[c] - mean) * scale * weights[c], 0.0f);
      }
    }
  });
}

Status SubsampleBlock::Run(const RowQueue& inputs, size_t first, size_t count, float* scratch,
                           CumulativeNormState* state, float* outputs) const {
  NESTLING_DCHECK(count <= kMaxRows);
  pool_.ParallelFor(
      count, [&](size_t t) { CopyPatches(inputs, first + t, scratch + t * scratch_size()); });
  const float* const input = scratch;
  RETURN_IF_ERROR(convolution_->Run(count * out_frequencies_, std::span(&input, 1),
                                    std::span(&outputs, 1), LinearWorkspace()));
  Normalise(count, state, outputs);
  return OkStatus();
}

}  // namespace nestling
