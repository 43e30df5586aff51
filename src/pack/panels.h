// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "base/status.h"
#include "container/writer.h"
#include "pack/tensor_source.h"

namespace nestling {

// One tensor of the container and where its values come from.
struct PackedTensor {
  TensorPlan plan;
  const SourceTensor* source = nullptr;
  // kTransposed: the shells of the layer, up to the width that is kept.
  std::vector<uint32_t> shell_ends;
  // A sub-model that skips layers keeps these groups of `group_size` rows (the PLE projection) or
  // columns (the PLE table) of the source; empty: all of them.
  std::vector<uint32_t> kept_groups;
  uint64_t group_size = 0;
};

// Converts the tensors on `jobs` threads, each a panel of rows at a time, and writes them to
// `writer`, which has them declared and placed. `written` is told the bytes of every finished
// panel, from one thread at a time; it may be empty.
Status WritePanels(const TensorSource& source, const std::vector<PackedTensor>& tensors,
                   size_t jobs, const std::function<void(uint64_t bytes)>& written,
                   ContainerWriter* writer);

}  // namespace nestling
