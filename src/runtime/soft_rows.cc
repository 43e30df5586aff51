// SPDX-License-Identifier: Apache-2.0
#include "runtime/soft_rows.h"

#include <algorithm>

namespace nestling {
namespace {

// The rows of one kind of media, to be taken one by one.
class Supply {
 public:
  Supply(std::span<const Media> media, TowerKind kind) {
    for (const Media& one : media) {
      if (one.kind != kind) continue;
      for (const SharedSoftTokens& piece : one.pieces) {
        pieces_.push_back({&one, piece});
        total_ += one.positions;
      }
    }
  }

  struct Piece {
    const Media* media;
    SharedSoftTokens rows;
  };
  size_t total() const { return total_; }
  // The piece and the row of it that come next; there is one.
  const Piece& piece() const { return pieces_[piece_]; }
  size_t row() const { return row_; }
  void Take() {
    if (++row_ < piece().media->positions) return;
    row_ = 0;
    ++piece_;
  }

 private:
  std::vector<Piece> pieces_;
  size_t total_ = 0;
  size_t piece_ = 0, row_ = 0;
};

Status CheckCount(std::span<const int32_t> tokens, int32_t id, const Supply& supply,
                  const char* what) {
  const size_t wanted =
      id < 0 ? 0 : static_cast<size_t>(std::count(tokens.begin(), tokens.end(), id));
  if (wanted == supply.total()) return OkStatus();
  return InvalidArgument("the tokens have ", wanted, " placeholders of ", what,
                         "s, those that were given take ", supply.total());
}

}  // namespace

Result<SoftRows> SoftRows::Assign(std::span<const int32_t> tokens, const SpecialTokens& ids,
                                  std::span<const Media> media, uint64_t content_hash,
                                  size_t hidden_size) {
  for (const Media& one : media) {
    if (one.model != content_hash) {
      return InvalidArgument("an image or a sound was encoded by another model than this");
    }
    for (const SharedSoftTokens& piece : one.pieces) {
      if (piece->count <= one.positions && piece->values.size() == piece->count * hidden_size &&
          (piece->count == one.positions ||
           (one.padding != nullptr && one.padding->size() == hidden_size))) {
        continue;
      }
      return InvalidArgument("media of ", piece->count, " soft tokens for ", one.positions,
                             " positions");
    }
  }
  Supply images(media, TowerKind::kVision), sounds(media, TowerKind::kAudio);
  RETURN_IF_ERROR(CheckCount(tokens, ids.image_soft, images, "image"));
  RETURN_IF_ERROR(CheckCount(tokens, ids.audio_soft, sounds, "sound"));
  SoftRows result;
  result.hidden_size_ = hidden_size;
  if (images.total() + sounds.total() == 0) return result;
  for (size_t i = 0; i < tokens.size(); ++i) {
    const bool image = tokens[i] == ids.image_soft;
    if (!image && tokens[i] != ids.audio_soft) continue;
    Supply& supply = image ? images : sounds;
    const Supply::Piece& piece = supply.piece();
    Span* last = result.spans_.empty() ? nullptr : &result.spans_.back();
    if (last != nullptr && last->rows == piece.rows && last->begin + last->count == i &&
        last->first_row + last->count == supply.row()) {
      ++last->count;
    } else {
      result.spans_.push_back({i, 1, supply.row(), piece.rows, piece.media->padding});
    }
    supply.Take();
  }
  return result;
}

uint64_t SoftRows::bytes() const {
  uint64_t bytes = 0;
  for (size_t i = 0; i < spans_.size(); ++i) {
    if (i > 0 && spans_[i].rows == spans_[i - 1].rows) continue;
    bytes += spans_[i].rows->values.size() * sizeof(float);
  }
  return bytes;
}

const float* SoftRows::Find(size_t position) const {
  auto after = std::upper_bound(spans_.begin(), spans_.end(), position,
                                [](size_t p, const Span& span) { return p < span.begin; });
  if (after == spans_.begin()) return nullptr;
  const Span& span = *--after;
  if (position - span.begin >= span.count) return nullptr;
  const size_t row = span.first_row + position - span.begin;
  return row < span.rows->count ? span.rows->values.data() + row * hidden_size_
                                : span.padding->data();
}

void SoftRows::Append(const SoftRows& other, size_t offset) {
  if (other.empty()) return;
  hidden_size_ = other.hidden_size_;
  for (Span span : other.spans_) {
    span.begin += offset;
    spans_.push_back(std::move(span));
  }
}

void SoftRows::Truncate(size_t size) {
  while (!spans_.empty() && spans_.back().begin >= size) spans_.pop_back();
  if (!spans_.empty())
    spans_.back().count = std::min(spans_.back().count, size - spans_.back().begin);
}

void SoftRows::Forget(FunctionRef<bool(size_t last)> done) {
  const auto kept = std::find_if(spans_.begin(), spans_.end(), [&](const Span& span) {
    return !done(span.begin + span.count - 1);
  });
  spans_.erase(spans_.begin(), kept);
}

void SoftRows::DropFront(size_t count) {
  std::erase_if(spans_, [&](const Span& span) { return span.begin + span.count <= count; });
  for (Span& span : spans_) {
    const size_t cut = span.begin < count ? count - span.begin : 0;
    span.begin = span.begin + cut - count;
    span.first_row += cut;
    span.count -= cut;
  }
}

}  // namespace nestling
