// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string_view>
#include <vector>

#include "base/function_ref.h"
#include "base/lazy_memory.h"
#include "base/status.h"
#include "base/thread_pool.h"
#include "container/reader.h"
#include "graph/packed_weights.h"
#include "modality/vision/feature_map.h"
#include "modality/vision/vision_blocks.h"
#include "modality/vision/vision_config.h"

namespace nestling {

struct VisionOptions {
  enum class Compute {
    kAuto,  // int8 if the container holds int8 weights, else f32
    kF32,   // whatever the container holds; int8 weights are dequantised
    kInt8,  // likewise; other weights are quantised per output channel
  };
  Compute compute = Compute::kAuto;
  // Bytes of the widest map of the rows that a block works on at a time: the cache that the cores
  // share should hold it.
  size_t band_bytes = 6 << 20;
  // Where the packed weights are kept between runs.
  PackedCacheOptions cache = {};
};

// The vision tower with its embedder: an image to soft tokens. Everything that it needs of the
// container is packed when it is created, or mapped from the file of packed weights; all memory is
// given back when it is destroyed.
// Thread-safe: calls of Encode run one at a time.
class VisionTower {
 public:
  // Maps the VISION section for the time of the call. `reader` is not kept; `pool` is borrowed and
  // must outlive the tower. kNotFound: no such tower; kBadModel names the tensor that is missing
  // or of a wrong shape; kOutOfMemory.
  static Result<std::unique_ptr<VisionTower>> Create(const ContainerReader& reader,
                                                     const ThreadPool& pool,
                                                     const VisionOptions& options = {});
  VisionTower(const VisionTower&) = delete;
  VisionTower& operator=(const VisionTower&) = delete;

  size_t image_height() const { return config_.image_height; }
  size_t image_width() const { return config_.image_width; }
  size_t num_soft_tokens() const { return config_.num_soft_tokens(); }
  size_t hidden_size() const { return config_.hidden_size; }
  bool int8() const { return precision_ == VisionPrecision::kInt8; }

  // Bytes of weights, resident while the tower exists.
  uint64_t weight_bytes() const { return packed_->bytes(); }
  // How they are held.
  PackedCacheInfo packed_info() const { return packed_->info(); }
  // Bytes of activations, resident at most, and only during Encode.
  uint64_t activation_bytes() const { return memory_.size(); }

  // Sees what a stage made: "stem", "block.0.0", ..., "stage0", ..., "msfa". The map is
  // [height, width, channels] and valid during the call.
  using Observer = FunctionRef<void(std::string_view stage, const FeatureMap& map)>;

  // pixels [3, height, width] in 0 .. 1 (PrepareImage makes them) -> [soft tokens, hidden], ready
  // for the decoder. kInvalidArgument: wrong number of pixels. `observer` may be empty.
  Result<std::vector<float>> Encode(std::span<const float> pixels, Observer observer = {});

 private:
  VisionTower(const ThreadPool& pool, VisionConfig config, VisionPrecision precision)
      : pool_(pool), config_(std::move(config)), precision_(precision) {}
  Status Load(const ContainerReader& reader, const VisionOptions& options);
  Status PlanMemory();
  FeatureMap MapAt(size_t offset, size_t height, size_t width, size_t channels) const;
  Status Run(std::span<const float> pixels, Observer observer, std::span<float> soft_tokens);

  const ThreadPool& pool_;
  const VisionConfig config_;
  const VisionPrecision precision_;
  std::unique_ptr<PackedWeights> packed_;  // outlives the operators that use it
  std::unique_ptr<VisionStem> stem_;
  std::vector<std::vector<std::unique_ptr<VisionBlock>>> stages_;
  std::unique_ptr<VisionHead> head_;

  // Offsets into memory_: two maps that blocks read and write in turn, the last but one stage's
  // output, the adapter's features, and the scratch of whatever runs.
  size_t margin_ = 0;
  size_t maps_[2] = {}, high_ = 0, features_ = 0, scratch_ = 0;
  LazyMemory memory_;
  std::mutex mutex_;
};

}  // namespace nestling
