// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "container/header_fields.h"

namespace nestling::testing {

// The real text configurations; E4B has the shell boundaries of its published slices.
inline TextConfig Gemma3nConfig(uint32_t num_layers, uint32_t num_kv_shared_layers,
                                std::vector<uint32_t> shell_ends) {
  TextConfig text;
  text.vocab_size = 262400;
  text.ple_vocab_size = 262144;
  text.hidden_size = 2048;
  text.ple_dim = 256;
  text.num_heads = 8;
  text.num_kv_heads = 2;
  text.head_dim = 256;
  text.num_kv_shared_layers = num_kv_shared_layers;
  text.sliding_window = 512;
  text.max_position_embeddings = 32768;
  text.laurel_rank = 64;
  for (uint32_t i = 0; i < num_layers; ++i) {
    text.layers.push_back({.type = (i + 1) % 5 == 0 ? LayerType::kFull : LayerType::kSliding,
                           .activation_sparsity = i < 10 ? 0.95f : 0.0f,
                           .shell_ends = shell_ends});
  }
  return text;
}
inline TextConfig E2B() { return Gemma3nConfig(30, 10, {8192}); }
inline TextConfig E4B() { return Gemma3nConfig(35, 15, {8192, 16384}); }

}  // namespace nestling::testing
