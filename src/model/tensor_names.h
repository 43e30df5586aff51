// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "container/reader.h"

namespace nestling {

// Names in a container: those of the Hugging Face checkpoint after its prefix, without ".weight".
// Text tensors:  "layers.3.mlp.gate_proj", "embed_tokens", "norm", "altup_projections.0", ...
// Towers:        "vision_tower....", "audio_tower....", "embed_vision....", "embed_audio....".
namespace names {

inline constexpr const char* kEmbedTokens = "embed_tokens";         // [vocab, hidden]
inline constexpr const char* kPleTable = "embed_tokens_per_layer";  // [ple_vocab, layers, P]
inline constexpr const char* kPleProjection = "per_layer_model_projection";  // [layers * P, hidden]
inline constexpr const char* kPleProjectionNorm = "per_layer_projection_norm";  // [P]
inline constexpr const char* kNorm = "norm";                                    // [hidden]
std::string AltupProjection(uint32_t k);         // [hidden, hidden], feeds stream k + 1
std::string AltupUnembedProjection(uint32_t k);  // [hidden, hidden], reads stream k + 1
// Layer(3, "mlp.gate_proj") = "layers.3.mlp.gate_proj".
std::string Layer(uint32_t layer, const char* tensor);

}  // namespace names

// What a text tensor must look like.
struct TensorSpec {
  std::string name;
  SectionKind section;
  Layout layout;
  std::vector<uint64_t> shape;  // logical: [out, in] for matrices
  // Small tensors whose precision matters (norms, routers, AltUp coefficients): always f32.
  bool keep_f32;
  // AltUp, LAuReL and PLE projections: at least 8 bit, because they are small and 4 bit hurts.
  bool sensitive;
  uint32_t num_shells;  // of the layer, for `down_proj`; else 1
};

// Every tensor that the text decoder of `config` uses, in file order. Shared layers have no
// k_proj, v_proj and k_norm.
std::vector<TensorSpec> TextTensors(const TextConfig& config);

// The ends of the shells that cut a tensor: those of its layer for gate_proj, up_proj (outputs) and
// down_proj (inputs), none for other tensors.
std::span<const uint32_t> CutsOf(std::string_view name, const TextConfig& text);

// All of TextTensors() are in the container with the wanted section, layout, shape and a usable
// dtype; kBadModel names the first that is not.
Status CheckTextTensors(const ContainerReader& reader);

// "Effective" parameters of a sub-model as Gemma 3n counts them (gemma3n.md 1.4): all of the text
// decoder but the token embedding and the PLE table, with the unused k/v weights of shared layers.
uint64_t EffectiveParameters(const TextConfig& config, const SliceConfig& slice);

}  // namespace nestling
