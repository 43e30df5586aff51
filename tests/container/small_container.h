// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>
#include <string>

#include "container/packed_file.h"
#include "container/reader.h"
#include "container/rewriter.h"
#include "container/xxh3.h"
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

// The same of f32, with two tensors that only its section of packed weights holds (or seems to).
inline Bytes PackedContainer() {
  const TemporaryPath plain, packed;
  if (!WriteTinyModel(plain.path(), SmallOptions(DType::kF32)).ok()) return {};
  const auto reader = ContainerReader::Open(plain.path());
  if (!reader.ok()) return {};
  auto rewriter = ContainerRewriter::Create(**reader, packed.path(), FileCalls::System());
  if (!rewriter.ok()) return {};
  PackedFileWriter writer((*rewriter)->file(), (*rewriter)->next_offset());
  const Bytes extent(kPackedExtentAlignment, std::byte{7});
  const auto offset = writer.AddExtent(extent);
  if (!offset.ok()) return {};
  const uint64_t half = extent.size() / 2;
  const uint64_t hash = Xxh3(std::span(extent).first(half));
  writer.AddEntry({"layers.0.mlp.gate_proj f32", *offset, half, hash});
  writer.AddEntry({"layers.0.self_attn.q_proj f32", *offset + half, half, hash});
  const auto bytes = writer.Finish({1, "text", "stored", "a library", "a CPU", 5});
  if (!bytes.ok()) return {};
  const Status status = (*rewriter)->AddPacked(
      kPackedParts[0], *bytes, {"layers.0.mlp.gate_proj", "layers.0.self_attn.q_proj"});
  if (!status.ok() || !(*rewriter)->Finish({}).ok() || !(*rewriter)->Commit().ok()) return {};
  return ReadAllBytes(packed.path());
}

}  // namespace nestling::testing
