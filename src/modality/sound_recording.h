// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <vector>

#include "base/status.h"
#include "modality/audio/audio_stream.h"
#include "modality/media.h"
#include "modality/towers.h"

namespace nestling {

// A sound of any length that is encoded while it is recorded. The result is that of
// Towers::EncodeSound on the whole of it: a recording that is longer than a clip goes on in the
// next one, cut by the rule of AudioTower::Split. One thread at a time.
class SoundRecording {
 public:
  // Loads the audio tower, which stays while the recording lives. `towers` is borrowed.
  static Result<std::unique_ptr<SoundRecording>> Create(Towers& towers);

  // The next samples, any number, as for Towers::EncodeSound; works on what is complete.
  // kInvalidArgument (a sample that is not a finite number, or beyond 1e9) leaves the recording as
  // it was. After any other error, or Finish, it is kFailedPrecondition.
  Status Push(std::span<const float> pcm);

  // Ends the recording. kInvalidArgument: it is shorter than MediaShape.min_samples.
  Result<Media> Finish();

  size_t num_samples() const { return num_samples_; }

 private:
  SoundRecording(Towers& towers, std::shared_ptr<AudioTower> tower)
      : towers_(towers), tower_(std::move(tower)) {}
  // Takes `count` of the waiting samples into the clip, and ends the clip if told.
  Status Advance(size_t count, bool end_clip);

  Towers& towers_;
  const std::shared_ptr<AudioTower> tower_;
  bool usable_ = true;
  size_t num_samples_ = 0;
  // Where a clip ends depends on how much follows, so the last two seconds wait here.
  std::vector<float> waiting_;
  std::unique_ptr<AudioStream> clip_;  // null before its first sample
  std::vector<SharedSoftTokens> pieces_;
};

}  // namespace nestling
