// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <vector>

#include "base/aligned_buffer.h"
#include "base/status.h"
#include "modality/audio/audio_tower.h"
#include "modality/audio/conformer_block.h"
#include "modality/audio/float_memory.h"
#include "modality/audio/row_queue.h"
#include "modality/audio/subsample.h"

namespace nestling {

// kInvalidArgument: a sample that is not a finite number, or beyond 1e9. `first` is the number of
// pcm[0], for the message.
Status CheckSamples(std::span<const float> pcm, size_t first = 0);

// One clip on its way through the tower, encoded while it is recorded. The tower is causal but for
// a look-ahead of 60 ms in the convolutions, so that the soft tokens are those of the whole clip:
// Encode is a stream that gets all samples at once. Not thread-safe.
class AudioStream {
 public:
  // Conformer steps (40 ms) that are run at a time. Each run reads all weights of the tower, so
  // that few steps are slow, and at the end of the clip at most so many are left to do.
  static constexpr size_t kDefaultBlockSteps = 64;

  // `tower` is borrowed and must outlive the stream.
  static Result<std::unique_ptr<AudioStream>> Create(const AudioTower& tower,
                                                     size_t block_steps = kDefaultBlockSteps,
                                                     AudioObserver observer = {});

  // The next samples of the clip, any number; works on what is complete. kInvalidArgument (a sample
  // that is not a finite number or beyond 1e9, or more than remaining_samples()) leaves the stream
  // as it was. After any other error, or Finish, it is kFailedPrecondition.
  Status Push(std::span<const float> pcm);

  // Ends the clip. kInvalidArgument: it is shorter than AudioConfig::min_samples().
  Result<SoftTokens> Finish();

  size_t num_samples() const { return num_samples_; }
  // Samples that this clip can still take; a longer recording goes on in another stream.
  size_t remaining_samples() const { return tower_.config().max_samples() - num_samples_; }

 private:
  AudioStream(const AudioTower& tower, size_t block_steps, AudioObserver observer)
      : tower_(tower), block_steps_(block_steps), observer_(std::move(observer)) {}
  Status Allocate();
  // All work that the samples pushed so far allow, or, when the clip has ended, the rest of it.
  Status Advance(bool ended);
  size_t MakeFrames(bool ended);
  Status MakeSubsampled(size_t index, bool ended);
  Status RunConformer(size_t num_steps);
  void Show(std::string_view stage, const float* rows, size_t num_rows, size_t width) const;

  const AudioTower& tower_;
  const size_t block_steps_;
  const AudioObserver observer_;
  bool usable_ = true;

  std::vector<float> samples_;  // those that frames still need
  size_t first_sample_ = 0;     // its number in the clip
  size_t num_samples_ = 0;      // pushed
  AlignedBuffer<double> mel_scratch_;

  // Log-mel frames, first and second convolution's outputs.
  RowQueue frames_, halves_, quarters_;
  CumulativeNormState norms_[2];
  FloatMemory patches_;

  size_t num_steps_ = 0;                          // that the conformer has done
  FloatMemory x_;                                 // [block_steps, size]
  FloatMemory kept_, kept_normed_, kept_tokens_;  // of the steps that become soft tokens
  ConformerScratch scratch_;
  std::vector<ConformerState> states_;  // one for each block
  SoftTokens tokens_;
};

}  // namespace nestling
