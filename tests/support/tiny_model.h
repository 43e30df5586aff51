// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/status.h"
#include "container/header_fields.h"
#include "container/reader.h"
#include "container/types.h"
#include "model/tensor_names.h"

namespace nestling::testing {

// A small model of Gemma 3n's structure: 4 sliding layers and 1 full, repeated; by default 10
// layers, the last 5 sharing keys and values, the first 2 sparse, two shells each.
struct TinyModelOptions {
  uint32_t num_layers = 10;
  uint32_t num_kv_shared_layers = 5;
  uint32_t num_sparse_layers = 2;
  float activation_sparsity = 0.95f;
  uint32_t hidden_size = 64;
  std::vector<uint32_t> shell_ends = {64, 128};  // of every layer
  uint32_t ple_dim = 32;
  uint32_t num_heads = 4;
  uint32_t num_kv_heads = 2;
  uint32_t head_dim = 16;
  uint32_t laurel_rank = 32;
  uint32_t vocab_size = 128;
  uint32_t ple_vocab_size = 96;
  uint32_t sliding_window = 8;
  uint32_t max_position_embeddings = 256;
  DType dtype = DType::kF32;        // matrices of the decoder
  DType embed_dtype = DType::kF32;  // embed_tokens
  DType ple_dtype = DType::kF32;    // the PLE table
  // q8c and q4b32 matrices lie in tiles where their sizes allow it, as pack writes them.
  bool tiles = false;
  // f32, q8c and q4b32 up and down projections of sparse layers lie by neuron, as pack writes them.
  bool neurons = false;
  // PLE values say where they stand instead of being random: PleIndexValue().
  bool ple_values_encode_index = false;
  std::vector<SliceConfig> slices;
  std::string tokenizer;  // bytes of the TOKENIZER section; empty: none
  uint64_t seed = 1;
  // Room for the header's fields, see ContainerWriter::Layout.
  uint64_t reserve_bytes = 16384;
};

TextConfig TinyTextConfig(const TinyModelOptions& options);
// Configuration, slices and special tokens (bos 2, eos 1, pad 0, unk 3).
HeaderFields TinyHeaderFields(const TinyModelOptions& options);

// Exact in f32 for layer < 64 and index < 128.
float PleIndexValue(uint64_t token, uint64_t layer, uint64_t index);

// The tensor before quantisation, in logical order ([out, in], [vocab, layers, ple_dim]). Matrices
// have variance 1 / in, norms are around 1: activations stay of order 1 through the layers.
std::vector<float> TinyTensorValues(const TensorSpec& spec, const TinyModelOptions& options);

// A tensor's bytes in the container.
struct EncodedTensor {
  std::vector<std::byte> elements;
  std::vector<std::byte> scales;
};

// Plain absolute-maximum quantisation: a test needs valid numbers, not the best ones. `values` in
// logical order; `shell_ends` for kTransposed.
EncodedTensor EncodeTensor(const std::vector<float>& values, DType dtype, Layout layout,
                           const std::vector<uint64_t>& shape,
                           const std::vector<uint32_t>& shell_ends = {});

Status WriteTinyModel(const std::string& path, const TinyModelOptions& options = {});

// A path below the temporary folder that nobody else uses; removed with the object.
class TemporaryPath {
 public:
  explicit TemporaryPath(const std::string& suffix = ".nest");
  ~TemporaryPath();
  TemporaryPath(const TemporaryPath&) = delete;
  TemporaryPath& operator=(const TemporaryPath&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string folder_;
  std::string path_;
};

// Writes a model, opens it, removes its name: nothing is left to clean up.
Result<std::unique_ptr<ContainerReader>> OpenTinyModel(const TinyModelOptions& options = {});

}  // namespace nestling::testing
