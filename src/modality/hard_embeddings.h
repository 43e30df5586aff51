// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "container/reader.h"
#include "modality/media.h"

namespace nestling {

// The input embeddings of ids that belong to a tower's own small vocabulary, such as
// <end_of_image> (gemma3n.md 4.6). They need only the tower's embedder, so that a history with an
// image in it goes on without the tower. Thread-safe.
class HardEmbeddings {
 public:
  // `reader` is borrowed.
  explicit HardEmbeddings(const ContainerReader& reader) : reader_(reader) {}

  // The tower whose vocabulary `id` is in; none for ids of the text and without such a tower.
  std::optional<TowerKind> TowerOf(int32_t id) const;

  // Whether a tensor of a tower's section is read here, so that it cannot be in packed form only.
  static bool Reads(std::string_view tensor);

  using Vector = std::shared_ptr<const std::vector<float>>;
  // [hidden_size] of an id with a tower. The first call for an id maps the tower's section and
  // reads its embedder, about 10 MB, for the time of the call; later ones find the vector here.
  // kBadModel, kUnsupported: a damaged tower.
  Result<Vector> Get(int32_t id);

 private:
  const ContainerReader& reader_;
  std::mutex mutex_;
  std::map<int32_t, Vector> vectors_;  // at most one for each id of the towers: a few hundred
};

}  // namespace nestling
