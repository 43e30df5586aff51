// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/function_ref.h"
#include "base/status.h"
#include "container/header_fields.h"
#include "modality/media.h"

namespace nestling {

// Rows that take the places of token embeddings at some positions of a sequence: the soft tokens of
// images and sounds at their placeholders. Shares the values with their Media.
class SoftRows {
 public:
  // Gives the placeholders among `tokens` the rows of `media`, images to images and sounds to
  // sounds, each kind in order. kInvalidArgument unless both have the same number, or for media of
  // another model than `content_hash`.
  static Result<SoftRows> Assign(std::span<const int32_t> tokens, const SpecialTokens& ids,
                                 std::span<const Media> media, uint64_t content_hash,
                                 size_t hidden_size);

  bool empty() const { return spans_.empty(); }
  // Of the values that it shares with others.
  uint64_t bytes() const;
  // [hidden_size], or null: the position holds an ordinary token.
  const float* Find(size_t position) const;

  // Appends those of a sequence that begins at `offset`, behind all positions here.
  void Append(const SoftRows& other, size_t offset);
  // Keeps the positions before `size`.
  void Truncate(size_t size);
  // Lets go of whole spans, from the front on, as long as `done` says so of their last position.
  void Forget(FunctionRef<bool(size_t last)> done);
  // Takes `count` positions off the front; those that stay move to the left.
  void DropFront(size_t count);

 private:
  // Consecutive positions that take consecutive rows of a piece, then its padding.
  struct Span {
    size_t begin;  // position
    size_t count;
    size_t first_row;
    SharedSoftTokens rows;
    std::shared_ptr<const std::vector<float>> padding;
  };

  size_t hidden_size_ = 0;
  std::vector<Span> spans_;  // ascending
};

}  // namespace nestling
