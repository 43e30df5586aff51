// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "container/reader.h"

namespace nestling {

// Weights, and what they are multiplied with.
struct WeightWork {
  uint64_t bytes = 0;     // of matrices and their scales, norms included
  uint64_t products = 0;  // multiply-accumulates per token: elements of the matrices
};

// What the layers of a slice do, dense but for the neurons that the gates of sparse layers cut off
// (of a chunk, which reads the rows that any of its tokens needs: as if it were one token). A step
// that needs logits of its last token only runs `every_token` for all of its tokens and
// `last_token` for one (gemma3n.md 2.11), and the output head when the logits are asked for.
struct SliceWork {
  WeightWork every_token;
  WeightWork last_token;
  WeightWork head;
};

// Reads the header only. `slice` must be valid for the container's model.
SliceWork WorkOfSlice(const ContainerReader& container, const SliceConfig& slice);

}  // namespace nestling
