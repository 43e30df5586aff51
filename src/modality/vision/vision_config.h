// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "base/status.h"
#include "container/reader.h"

namespace nestling {

// One block of the vision tower (gemma3n.md 4.2).
struct VisionBlockConfig {
  enum class Kind { kEdgeResidual, kInvertedBottleneck, kAttention };

  std::string prefix;  // of its tensors, "vision_tower.timm_model.blocks.2.9."
  Kind kind = Kind::kInvertedBottleneck;
  size_t in = 0;      // channels
  size_t middle = 0;  // expanded channels; attention: all heads together
  size_t out = 0;
  size_t in_height = 0, in_width = 0;
  size_t out_height = 0, out_width = 0;
  size_t stride = 1;
  bool residual = false;

  size_t kernel = 0;         // edge residual: of its expanding convolution
  size_t start_kernel = 0;   // inverted bottleneck: of its depthwise convolutions; 0: none
  size_t middle_kernel = 0;  // carries the stride if there is one

  size_t num_heads = 0;  // attention
  size_t head_dim = 0;
  size_t kv_kernel = 0;  // of the depthwise convolutions before keys and values; 0: none
  size_t kv_stride = 1;
};

// The vision tower and its embedder, as the container's tensors and configuration describe them:
// the full-size MobileNet-V5 300M encoder and any smaller one of the same kind.
struct VisionConfig {
  size_t image_height = 0, image_width = 0;
  size_t stem = 0;  // channels
  size_t stem_kernel = 0;
  size_t stem_height = 0, stem_width = 0;
  bool stem_bias = false;
  std::vector<std::vector<VisionBlockConfig>> stages;
  size_t fusion_middle = 0;  // expanded channels of the fusion adapter
  size_t features = 0;       // channels of its output
  size_t output_resolution = 0;  // soft tokens per side
  size_t hidden_size = 0;        // of the decoder
  float embedder_eps = 1e-6f;

  size_t num_soft_tokens() const { return output_resolution * output_resolution; }
};

// Epsilon of all norms of the tower.
inline constexpr float kVisionEps = 1e-6f;
inline constexpr const char kVisionPrefix[] = "vision_tower.timm_model.";

// kNotFound: the container has no vision tower. kBadModel names the tensor or field that is
// missing or contradicts the others; kUnsupported what this version does not run.
Result<VisionConfig> ReadVisionConfig(const ContainerReader& reader);

// "Same" padding as TensorFlow defines it: rows (columns) of zeros before and after n of them.
struct SamePadding {
  size_t low = 0;
  size_t high = 0;
};
SamePadding SamePaddingOf(size_t n, size_t kernel, size_t stride);

}  // namespace nestling
