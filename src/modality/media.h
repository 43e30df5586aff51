// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "modality/soft_tokens.h"

namespace nestling {

enum class TowerKind { kVision, kAudio };

// An image or a sound after its tower: what takes the places of placeholders in a prompt.
// Immutable; copies share the values.
struct Media {
  TowerKind kind = TowerKind::kVision;
  uint64_t model = 0;  // ContainerReader::content_hash() of whose tower it was
  // One for an image; for a sound one for each clip of at most 30 s.
  std::vector<SharedSoftTokens> pieces;
  // Placeholders of each piece: its soft tokens take the first ones, `padding` [hidden_size] the
  // others (sounds only).
  size_t positions = 0;
  std::shared_ptr<const std::vector<float>> padding;

  size_t num_soft_tokens() const {
    size_t count = 0;
    for (const SharedSoftTokens& piece : pieces) count += piece->count;
    return count;
  }
};

}  // namespace nestling
