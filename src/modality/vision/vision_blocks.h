// SPDX-License-Identifier: Apache-2.0
// The blocks of MobileNet-V5 (gemma3n.md 4.2). Wide intermediate maps exist for a band of rows at a
// time: they stay in the cache, and the memory that the tower needs stays small.
#pragma once

#include <memory>

#include "base/status.h"
#include "graph/packed_weights.h"
#include "modality/vision/feature_map.h"
#include "modality/vision/vision_config.h"
#include "modality/vision/vision_weights.h"

namespace nestling {

class VisionBlock {
 public:
  virtual ~VisionBlock() = default;
  // `in` and `out` have the block's shapes; `in` has margins. Not thread-safe.
  virtual Status Run(const VisionRun& run, const FeatureMap& in, const FeatureMap& out) = 0;
  size_t scratch_bytes() const { return plan_.bytes(); }

 protected:
  ScratchPlan plan_;
};

// What blocks are made of. Borrowed for the call, but weights.packed(), which must outlive the
// block.
struct VisionBuild {
  const VisionWeights& weights;
  VisionPrecision precision;
  size_t num_threads;
  size_t band_bytes;  // of the widest map of a band of rows
};

Result<std::unique_ptr<VisionBlock>> MakeVisionBlock(const VisionBuild& build,
                                                     const VisionBlockConfig& config);

// conv_stem: pixels [3, height, width] -> channels, norm, GELU.
class VisionStem {
 public:
  virtual ~VisionStem() = default;
  virtual Status Run(const VisionRun& run, const float* pixels, const FeatureMap& out) = 0;
  size_t scratch_bytes() const { return plan_.bytes(); }

 protected:
  ScratchPlan plan_;
};

Result<std::unique_ptr<VisionStem>> MakeVisionStem(const VisionBuild& build,
                                                   const VisionConfig& config);

// The multi-scale fusion adapter and the embedder (gemma3n.md 4.4, 4.5).
class VisionHead {
 public:
  virtual ~VisionHead() = default;
  // The maps of the last two stages -> features [soft tokens, features] of the adapter and soft
  // tokens [soft tokens, hidden].
  virtual Status Run(const VisionRun& run, const FeatureMap& high, const FeatureMap& low,
                     float* features, float* soft_tokens) = 0;
  size_t scratch_bytes() const { return plan_.bytes(); }

 protected:
  ScratchPlan plan_;
};

Result<std::unique_ptr<VisionHead>> MakeVisionHead(const VisionBuild& build,
                                                   const VisionConfig& config);

// Rows of a band: the most that divide `height` and together have at most `band_bytes`, one if none
// does.
size_t BandRows(size_t height, size_t row_bytes, size_t band_bytes);

}  // namespace nestling
