// SPDX-License-Identifier: Apache-2.0
#include "modality/sound_recording.h"

#include <algorithm>
#include <utility>

namespace nestling {

Result<std::unique_ptr<SoundRecording>> SoundRecording::Create(Towers& towers) {
  ASSIGN_OR_RETURN(std::shared_ptr<AudioTower> tower, towers.AcquireAudio());
  return std::unique_ptr<SoundRecording>(new SoundRecording(towers, std::move(tower)));
}

Status SoundRecording::Advance(size_t count, bool end_clip) {
  if (clip_ == nullptr) {
    ASSIGN_OR_RETURN(clip_, AudioStream::Create(*tower_));
  }
  RETURN_IF_ERROR(clip_->Push(std::span<const float>(waiting_).first(count)));
  waiting_.erase(waiting_.begin(), waiting_.begin() + static_cast<ptrdiff_t>(count));
  if (!end_clip) return OkStatus();
  ASSIGN_OR_RETURN(SoftTokens tokens, clip_->Finish());
  pieces_.push_back(std::make_shared<const SoftTokens>(std::move(tokens)));
  clip_ = nullptr;
  return OkStatus();
}

Status SoundRecording::Push(std::span<const float> pcm) {
  if (!usable_) return FailedPrecondition("the recording has ended or failed");
  RETURN_IF_ERROR(CheckSamples(pcm, num_samples_));
  usable_ = false;  // until this succeeds
  waiting_.insert(waiting_.end(), pcm.begin(), pcm.end());
  num_samples_ += pcm.size();
  const size_t longest = tower_->config().max_samples(),
               shortest = tower_->config().shortest_piece();
  for (;;) {
    const size_t taken = clip_ == nullptr ? 0 : clip_->num_samples();
    const size_t left = taken + waiting_.size();  // of the sound, from this clip's beginning on
    if (left >= longest + shortest) {
      RETURN_IF_ERROR(Advance(longest - taken, /*end_clip=*/true));
      continue;
    }
    // However it goes on, the clip has these.
    const size_t certain = std::min(left, longest - shortest);
    if (certain > taken) RETURN_IF_ERROR(Advance(certain - taken, /*end_clip=*/false));
    break;
  }
  usable_ = true;
  return OkStatus();
}

Result<Media> SoundRecording::Finish() {
  if (!usable_) return FailedPrecondition("the recording has ended or failed");
  if (num_samples_ < tower_->config().min_samples()) {
    return tower_->config().CheckLength(num_samples_);
  };
  usable_ = false;
  while (clip_ != nullptr || !waiting_.empty()) {
    const size_t taken = clip_ == nullptr ? 0 : clip_->num_samples();
    ASSIGN_OR_RETURN(const std::vector<SoundPiece> cuts,
                     tower_->config().Split(taken + waiting_.size()));
    RETURN_IF_ERROR(Advance(cuts[0].end - taken, /*end_clip=*/true));
  }
  return towers_.SoundOf(std::move(pieces_));
}

}  // namespace nestling
