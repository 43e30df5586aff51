// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "tests/support/edit_container.h"
#include "tests/support/tiny_model.h"

namespace nestling::testing {

// The smallest model that has everything a header can hold: about 100 KB.
inline TinyModelOptions SmallOptions(DType dtype = DType::kQ8C) {
  TinyModelOptions options;
  options.num_layers = 3;
  options.num_kv_shared_layers = 1;
  options.num_sparse_layers = 1;
  options.hidden_size = 32;
  options.shell_ends = {32, 64};
  options.ple_dim = 32;
  options.num_heads = 2;
  options.num_kv_heads = 1;
  options.laurel_rank = 4;
  options.vocab_size = 32;
  options.ple_vocab_size = 24;
  options.dtype = options.embed_dtype = options.ple_dtype = dtype;
  options.slices.push_back({.name = "half",
                            .description = "half of everything",
                            .skip_layers = {2},
                            .ffn = {32, 64},
                            .effective_parameters = 5,
                            .published_accuracy = 12.5f});
  options.tokenizer = std::string(1000, 'T');
  options.reserve_bytes = 2048;
  return options;
}

inline Bytes SmallContainer(DType dtype = DType::kQ8C, bool tiles = false) {
  const TemporaryPath temporary;
  TinyModelOptions options = SmallOptions(dtype);
  options.tiles = tiles;
  const Status status = WriteTinyModel(temporary.path(), options);
  return status.ok() ? ReadAllBytes(temporary.path()) : Bytes();
}

}  // namespace nestling::testing
