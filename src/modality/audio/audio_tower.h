// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "base/aligned_buffer.h"
#include "base/status.h"
#include "base/thread_pool.h"
#include "container/reader.h"
#include "graph/graph_context.h"
#include "modality/audio/audio_config.h"
#include "modality/audio/audio_weights.h"
#include "modality/audio/conformer_block.h"
#include "modality/audio/mel.h"
#include "modality/audio/subsample.h"
#include "modality/soft_tokens.h"

namespace nestling {

struct AudioOptions {
  AudioCompute compute = AudioCompute::kAuto;
  // Where the packed weights are kept between runs.
  PackedCacheOptions cache = {};
};

// Sees what a stage made, a few rows [num_rows, width] at a time, in order: "mel", "conv_0",
// "conv_1" (rows of [frequency, channel]), "subsample", "conformer<N>.ffw_start", ".attention",
// ".lconv", ".ffw_end", "conformer<N>", "encodings", "soft_tokens". For tests; may be empty.
using AudioObserver =
    std::function<void(std::string_view stage, const float* rows, size_t num_rows, size_t width)>;

// The audio tower with its embedder: mono PCM at 16 kHz to soft tokens. Immutable and thread-safe:
// several clips may be encoded at a time. All memory is given back when it is destroyed.
class AudioTower {
 public:
  // Maps the AUDIO section and packs what does not lie in tiles. `reader` is not kept, but its file
  // stays mapped; `pool` is borrowed and must outlive the tower. kNotFound: no such tower;
  // kBadModel names the tensor or field that is missing or wrong; kUnsupported; kOutOfMemory.
  static Result<std::unique_ptr<AudioTower>> Create(const ContainerReader& reader,
                                                    const ThreadPool& pool,
                                                    const AudioOptions& options = {});
  ~AudioTower();
  AudioTower(const AudioTower&) = delete;
  AudioTower& operator=(const AudioTower&) = delete;

  const AudioConfig& config() const { return config_; }
  // Positions that a prompt holds for a clip, of which Encode fills the first ones: 188.
  size_t num_positions() const { return config_.num_positions; }
  size_t hidden_size() const { return config_.hidden_size; }
  // pcm: mono, 16 kHz, full scale -1 .. 1. kInvalidArgument: length (AudioConfig::CheckLength), a
  // sample that is not a finite number, or one beyond 1e9. One soft token for each 160 ms.
  Result<SoftTokens> Encode(std::span<const float> pcm, const AudioObserver& observer = {}) const;

  // Bytes of weights, resident while the tower exists (int8 weights in tiles: once used).
  uint64_t weight_bytes() const;
  // How those that do not lie in the container's tiles are held.
  PackedCacheInfo packed_info() const { return context_->packed_weights().info(); }

 private:
  friend class AudioStream;

  AudioTower(const ThreadPool& pool, AudioConfig config)
      : pool_(pool), config_(std::move(config)) {}
  Status Load(const ContainerReader& reader, const AudioOptions& options);
  // norm, projection, norm: encodings [count, size] -> [count, hidden_size]. `normed` is working
  // memory like encodings; both and `tokens` have slack after their end.
  Status Embed(size_t count, const float* encodings, float* normed, float* tokens,
               const LinearWorkspace& workspace) const;

  const ThreadPool& pool_;
  const AudioConfig config_;
  std::unique_ptr<GraphContext> context_;  // outlives the blocks
  std::optional<AudioWeights> weights_;    // likewise
  std::unique_ptr<MelFrontEnd> mel_;
  std::unique_ptr<SubsampleBlock> subsample_[2];
  std::unique_ptr<LinearBlock> input_projection_;
  std::vector<std::unique_ptr<ConformerBlock>> blocks_;
  AlignedBuffer<float> soft_norm_;  // [size]
  std::unique_ptr<LinearBlock> projection_;
};

}  // namespace nestling
