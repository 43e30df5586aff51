// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/status.h"

namespace nestling {

enum class LayerType : uint8_t { kSliding = 0, kFull = 1 };

struct LayerConfig {
  LayerType type = LayerType::kSliding;
  float activation_sparsity = 0.0f;  // share of neurons that the Gaussian top-k zeroes; 0: dense
  std::vector<uint32_t> shell_ends;  // ascending; back() is the FFN width
  uint32_t ffn_width() const { return shell_ends.back(); }
};

// The text decoder, as stored in the header. Shapes follow gemma3n.md section 1.
struct TextConfig {
  uint32_t vocab_size = 0;
  uint32_t ple_vocab_size = 0;
  uint32_t hidden_size = 0;
  uint32_t ple_dim = 0;
  uint32_t num_heads = 0;
  uint32_t num_kv_heads = 0;
  uint32_t head_dim = 0;
  uint32_t num_kv_shared_layers = 0;
  uint32_t sliding_window = 0;
  uint32_t max_position_embeddings = 0;
  float rope_theta_full = 1e6f;
  float rope_theta_sliding = 1e4f;
  float rms_norm_eps = 1e-6f;
  float final_logit_softcap = 30.0f;
  uint32_t altup_num_inputs = 4;
  uint32_t altup_active_idx = 0;
  bool altup_correct_scale = true;
  uint32_t laurel_rank = 0;
  std::vector<LayerConfig> layers;

  uint32_t num_layers() const { return static_cast<uint32_t>(layers.size()); }
  // F: layers at and after it own no keys and values.
  uint32_t first_kv_shared_layer() const { return num_layers() - num_kv_shared_layers; }
};

struct SliceConfig {
  std::string name;
  std::string description;
  std::vector<uint32_t> skip_layers;  // ascending
  std::vector<uint32_t> ffn;          // of the kept layers
  uint64_t effective_parameters = 0;
  float published_accuracy = 0.0f;  // percent; 0: not published
};

struct GenerationConfig {
  bool do_sample = false;
  float temperature = 1.0f;
  uint32_t top_k = 0;  // 0: off
  float top_p = 1.0f;  // 1: off
  std::vector<int32_t> stop_tokens;
};

struct SpecialTokens {
  int32_t bos = -1;
  int32_t eos = -1;
  int32_t pad = -1;
  int32_t unk = -1;
  int32_t start_of_image = -1;
  int32_t end_of_image = -1;
  int32_t image_soft = -1;
  int32_t start_of_audio = -1;
  int32_t end_of_audio = -1;
  int32_t audio_soft = -1;
};

struct TowerConfig {
  bool present = false;
  uint32_t vocab_offset = 0;
  uint32_t vocab_size = 0;
  uint32_t soft_tokens = 0;
  std::string config_json;
  std::string preprocessor_json;
};

struct Provenance {
  std::string source;
  std::string tool;
  std::string quantisation;
};

// The header without sections and tensor directory.
struct HeaderFields {
  TextConfig text;
  std::vector<SliceConfig> slices;
  GenerationConfig generation;
  SpecialTokens special_tokens;
  std::string chat_template;
  TowerConfig vision;
  TowerConfig audio;
  Provenance provenance;
};

// Checks ranges and relations that every user of the configuration relies on (no zero sizes, heads
// divisible by kv heads, even head_dim, a kv-owning layer of every type that a shared layer has,
// ascending shells, slices on shell ends, ...): kBadModel with field, found and wanted otherwise.
Status ValidateHeaderFields(const HeaderFields& fields);

// The slice's own rules: ascending skipped layers, none of them an owner of keys and values, one
// width per kept layer, each a shell end of its layer.
Status ValidateSlice(const TextConfig& text, const SliceConfig& slice);

}  // namespace nestling
