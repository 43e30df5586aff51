// SPDX-License-Identifier: Apache-2.0
#include "modality/audio/audio_stream.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <utility>

namespace nestling {
namespace {

// Frames that go through the convolutions at a time (0.64 s): the patches of so many stay in the
// cache.
constexpr size_t kChunkFrames = 64;
// Frames that one task computes, with one piece of working memory.
constexpr size_t kFramesPerTask = 8;
// Beyond any unit that a sample might have; keeps the arithmetic of the front end finite.
constexpr float kMaxSample = 1e9f;

// Output rows of a subsampling convolution whose inputs exist: row t reads 2 t .. 2 t + 2.
size_t CompleteRows(size_t inputs, bool ended) {
  if (inputs == 0) return 0;
  return ended ? (inputs - 1) / kSubsampleStride + 1 : (inputs - 1) / kSubsampleStride;
}

}  // namespace

Result<std::unique_ptr<AudioStream>> AudioStream::Create(const AudioTower& tower,
                                                         size_t block_steps,
                                                         AudioObserver observer) {
  const AudioConfig& config = tower.config();
  const size_t most_steps = config.NumSteps(config.NumFrames(config.max_samples()));
  if (block_steps == 0) return InvalidArgument("0 steps at a time, want at least 1");
  std::unique_ptr<AudioStream> stream(
      new AudioStream(tower, std::min(block_steps, most_steps), std::move(observer)));
  RETURN_IF_ERROR(stream->Allocate());
  return stream;
}

Status AudioStream::Allocate() {
  const AudioConfig& config = tower_.config();
  const SubsampleBlock& first = *tower_.subsample_[0];
  const SubsampleBlock& second = *tower_.subsample_[1];
  constexpr size_t kHalves = kChunkFrames / 2 + 1, kQuarters = kChunkFrames / 4 + 1;
  static_assert(kHalves <= SubsampleBlock::kMaxRows);
  constexpr size_t kCarried = kSubsampleKernel - 1;  // rows that the next output needs again
  ASSIGN_OR_RETURN(frames_, RowQueue::Create(kChunkFrames + kCarried, config.mel.num_bins));
  ASSIGN_OR_RETURN(halves_, RowQueue::Create(kHalves + kCarried, first.row_width()));
  ASSIGN_OR_RETURN(quarters_, RowQueue::Create(block_steps_ + kQuarters, second.row_width()));
  ASSIGN_OR_RETURN(patches_, FloatMemory::Create(std::max(kHalves * first.scratch_size(),
                                                          kQuarters * second.scratch_size())));
  ASSIGN_OR_RETURN(mel_scratch_,
                   AlignedBuffer<double>::Create((kChunkFrames + kFramesPerTask - 1) /
                                                 kFramesPerTask * tower_.mel_->ScratchSize()));
  const size_t kept = (block_steps_ + config.reduction - 1) / config.reduction;
  ASSIGN_OR_RETURN(x_, FloatMemory::Create(block_steps_ * config.size));
  ASSIGN_OR_RETURN(kept_, FloatMemory::Create(kept * config.size));
  ASSIGN_OR_RETURN(kept_normed_, FloatMemory::Create(kept * config.size));
  ASSIGN_OR_RETURN(kept_tokens_, FloatMemory::Create(kept * config.hidden_size));
  ASSIGN_OR_RETURN(scratch_, ConformerScratch::Create(config, block_steps_));
  for (size_t layer = 0; layer < config.num_layers; ++layer) {
    ASSIGN_OR_RETURN(ConformerState state, MakeConformerState(config));
    states_.push_back(std::move(state));
  }
  return OkStatus();
}

void AudioStream::Show(std::string_view stage, const float* rows, size_t num_rows,
                       size_t width) const {
  if (observer_) observer_(stage, rows, num_rows, width);
}

Status CheckSamples(std::span<const float> pcm, size_t first) {
  for (size_t i = 0; i < pcm.size(); ++i) {
    if (std::abs(pcm[i]) <= kMaxSample) continue;  // false for NaN, too
    return InvalidArgument("sample ", first + i, " of the sound is ", pcm[i],
                           ", want a finite number, full scale -1 to 1");
  }
  return OkStatus();
}

Status AudioStream::Push(std::span<const float> pcm) {
  if (!usable_) return FailedPrecondition("the clip has ended, or failed; want a new stream");
  if (pcm.size() > remaining_samples()) {
    return InvalidArgument("a clip of more than ", tower_.config().max_samples(), " samples at ",
                           kAudioSampleRate, " Hz");
  }
  RETURN_IF_ERROR(CheckSamples(pcm, num_samples_));
  usable_ = false;  // until the work has succeeded
  samples_.insert(samples_.end(), pcm.begin(), pcm.end());
  num_samples_ += pcm.size();
  RETURN_IF_ERROR(Advance(/*ended=*/false));
  usable_ = true;
  return OkStatus();
}

Result<SoftTokens> AudioStream::Finish() {
  if (!usable_) return FailedPrecondition("the clip has ended, or failed; want a new stream");
  RETURN_IF_ERROR(tower_.config().CheckLength(num_samples_));
  usable_ = false;
  samples_.resize(samples_.size() +
                  (kClipSampleMultiple - num_samples_ % kClipSampleMultiple) % kClipSampleMultiple);
  RETURN_IF_ERROR(Advance(/*ended=*/true));
  return std::move(tokens_);
}

Status AudioStream::Advance(bool ended) {
  while (true) {
    const bool all_frames = MakeFrames(ended) == 0;
    const bool last = ended && all_frames;
    RETURN_IF_ERROR(MakeSubsampled(0, last));
    RETURN_IF_ERROR(MakeSubsampled(1, last));
    while (quarters_.size() >= block_steps_) RETURN_IF_ERROR(RunConformer(block_steps_));
    if (all_frames) break;
  }
  if (ended && quarters_.size() > 0) RETURN_IF_ERROR(RunConformer(quarters_.size()));
  NESTLING_DCHECK(!ended || num_steps_ == tower_.config().NumSteps(frames_.end()));
  return OkStatus();
}

// Up to kChunkFrames more; returns how many.
size_t AudioStream::MakeFrames(bool ended) {
  const AudioConfig& config = tower_.config();
  const size_t hop = config.mel.hop_length, length = config.mel.frame_length;
  // A frame is sure to exist when the sample after it is there (NumFrames).
  size_t complete = 0;
  if (ended) {
    complete = config.NumFrames(num_samples_);
  } else if (num_samples_ > length) {
    complete = (num_samples_ - length - 1) / hop + 1;
  }
  const size_t first = frames_.end();
  const size_t count = std::min(complete - first, kChunkFrames);
  if (count == 0) return 0;
  float* const frames = frames_.Append(count);
  const size_t tasks = (count + kFramesPerTask - 1) / kFramesPerTask;
  tower_.pool_.ParallelFor(tasks, [&](size_t task) {
    double* const scratch = mel_scratch_.data() + task * tower_.mel_->ScratchSize();
    const size_t end = std::min(count, (task + 1) * kFramesPerTask);
    for (size_t i = task * kFramesPerTask; i < end; ++i) {
      const float* const samples = samples_.data() + (first + i) * hop - first_sample_;
      tower_.mel_->Compute(samples, scratch, frames + i * config.mel.num_bins);
    }
  });
  Show("mel", frames, count, config.mel.num_bins);
  const size_t next_sample = std::min((first + count) * hop, first_sample_ + samples_.size());
  // Moving what is left costs as much as it, so not for every chunk of a long push.
  if (next_sample - first_sample_ >= samples_.size() / 2) {
    samples_.erase(samples_.begin(),
                   samples_.begin() + static_cast<ptrdiff_t>(next_sample - first_sample_));
    first_sample_ = next_sample;
  }
  return count;
}

// The rows of one convolution whose inputs exist.
Status AudioStream::MakeSubsampled(size_t index, bool ended) {
  RowQueue& inputs = index == 0 ? frames_ : halves_;
  RowQueue& outputs = index == 0 ? halves_ : quarters_;
  const size_t first = outputs.end();
  const size_t count = CompleteRows(inputs.end(), ended) - first;
  if (count == 0) return OkStatus();
  float* const rows = outputs.Append(count);
  RETURN_IF_ERROR(
      tower_.subsample_[index]->Run(inputs, first, count, patches_.data(), &norms_[index], rows));
  Show(index == 0 ? "conv_0" : "conv_1", rows, count, outputs.width());
  inputs.DropBefore(std::min(outputs.end() * kSubsampleStride, inputs.end()));
  return OkStatus();
}

// The next steps through the conformer and the embedder.
Status AudioStream::RunConformer(size_t num_steps) {
  const AudioConfig& config = tower_.config();
  const size_t size = config.size, first = quarters_.begin();
  const float* const input = quarters_.row(first);
  float* const x = x_.data();
  RETURN_IF_ERROR(tower_.input_projection_->Run(num_steps, std::span(&input, 1), std::span(&x, 1),
                                                scratch_.workspace));
  quarters_.DropBefore(first + num_steps);
  Show("subsample", x, num_steps, size);
  for (size_t layer = 0; layer < config.num_layers; ++layer) {
    const auto show = [&](const char* part, const float* rows) {
      const std::string block = StrCat("conformer", layer);
      Show(*part == '\0' ? block : StrCat(block, ".", part), rows, num_steps, size);
    };
    RETURN_IF_ERROR(
        tower_.blocks_[layer]->Run(num_steps_, num_steps, &scratch_, &states_[layer], x,
                                   observer_ ? ConformerObserver(show) : ConformerObserver()));
  }
  size_t kept = 0;
  for (size_t t = 0; t < num_steps; ++t) {
    if ((num_steps_ + t) % config.reduction != 0) continue;
    std::memcpy(kept_.data() + kept++ * size, x + t * size, size * sizeof(float));
  }
  num_steps_ += num_steps;
  if (kept == 0) return OkStatus();
  Show("encodings", kept_.data(), kept, size);
  RETURN_IF_ERROR(tower_.Embed(kept, kept_.data(), kept_normed_.data(), kept_tokens_.data(),
                               scratch_.workspace));
  Show("soft_tokens", kept_tokens_.data(), kept, config.hidden_size);
  tokens_.values.insert(tokens_.values.end(), kept_tokens_.data(),
                        kept_tokens_.data() + kept * config.hidden_size);
  tokens_.count += kept;
  return OkStatus();
}

}  // namespace nestling
