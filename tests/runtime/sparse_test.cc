// SPDX-License-Identifier: Apache-2.0
// Layers that read the active neurons only, against the same model with dense operators.
#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <span>
#include <vector>

#include "runtime/scratch.h"
#include "runtime/session.h"
#include "tests/runtime/replies.h"
#include "tests/support/tiny_model.h"

namespace nestling {
namespace {

using testing::AllLogits;
using testing::RelativeRms;
using testing::TemporaryPath;
using testing::TinyModelOptions;

TinyModelOptions Model(DType dtype, bool neurons, float sparsity = 0.95f) {
  TinyModelOptions options;
  options.hidden_size = 160;
  options.sliding_window = 100;  // no ring of keys that ends within a block
  options.shell_ends = {96, 288};
  options.num_sparse_layers = 10;
  options.activation_sparsity = sparsity;
  options.dtype = dtype;
  options.embed_dtype = dtype;
  options.neurons = neurons;
  options.tiles = true;
  return options;
}

std::unique_ptr<Engine> Open(const TinyModelOptions& model, size_t threads = 1) {
  const TemporaryPath file;
  EXPECT_TRUE(testing::WriteTinyModel(file.path(), model).ok());
  EngineOptions options;
  options.num_threads = threads;
  auto engine = Engine::Create(file.path(), options);
  EXPECT_TRUE(engine.ok()) << engine.status().message();
  return engine.ok() ? std::move(engine).value() : nullptr;
}

// Logits of all positions, [tokens, vocab].
std::vector<float> Logits(const Engine& engine, uint32_t chunk, uint32_t ffn = 0) {
  SessionOptions options;
  options.chunk_tokens = chunk;
  options.kv = KvChoice::kF32;
  auto session = Session::Create(engine, options);
  EXPECT_TRUE(session.ok()) << session.status().message();
  if (ffn != 0) {
    SliceConfig slice;
    slice.name = "narrow";
    slice.ffn.assign(engine.header().text.num_layers(), ffn);
    EXPECT_TRUE((*session)->SetSlice(slice).ok());
  }
  std::vector<int32_t> ids;
  for (int32_t i = 0; i < 70; ++i) ids.push_back((i * 37 + 5) % 96);
  return AllLogits(**session, ids);
}

// At every density, from a neuron or two to nearly all of them.
TEST(SparseTest, F32LogitsAreThoseOfTheDenseOperators) {
  for (const float sparsity : {0.99f, 0.95f, 0.5f, 0.001f}) {
    const auto sparse = Open(Model(DType::kF32, true, sparsity));
    const auto dense = Open(Model(DType::kF32, false, sparsity));
    ASSERT_TRUE(sparse != nullptr && dense != nullptr);
    for (const uint32_t ffn : {0u, 96u}) {
      const std::vector<float> want = Logits(*dense, 64, ffn);
      for (const uint32_t chunk : {1u, 16u, 17u, 64u}) {
        SCOPED_TRACE(::testing::Message()
                     << "sparsity " << sparsity << " ffn " << ffn << " chunk " << chunk);
        EXPECT_LT(RelativeRms(Logits(*sparse, chunk, ffn), want), 1e-5);
      }
    }
  }
}

// The same weights, dequantised by the two layouts' own operators: what differs is the rounding of
// the down projection's inputs, which the sparse one does not need, and down's blocks of scales.
TEST(SparseTest, QuantisedLogitsAreCloseToThoseOfTheDenseOperators) {
  for (const DType dtype : {DType::kQ8C, DType::kQ4B32}) {
    SCOPED_TRACE(DTypeName(dtype));
    const std::vector<float> exact = Logits(*Open(Model(DType::kF32, false)), 64);
    const double sparse = RelativeRms(Logits(*Open(Model(dtype, true)), 64), exact);
    const double dense = RelativeRms(Logits(*Open(Model(dtype, false)), 64), exact);
    EXPECT_LT(sparse, 1.2 * dense);
    EXPECT_GT(sparse, 0.0);
  }
}

TEST(SparseTest, ShortChunksGiveTheSameLogitsToTheBitHoweverTheyAreCut) {
  for (const DType dtype : {DType::kF32, DType::kQ8C, DType::kQ4B32}) {
    for (const float sparsity : {0.95f, 0.3f}) {
      SCOPED_TRACE(::testing::Message() << DTypeName(dtype) << " sparsity " << sparsity);
      const auto engine = Open(Model(dtype, true, sparsity));
      const std::vector<float> one = Logits(*engine, 1);
      for (const uint32_t chunk : {2u, 7u, uint32_t{kExactTokens}}) {
        EXPECT_EQ(Logits(*engine, chunk), one) << "chunk " << chunk;
      }
      // And whatever the threads.
      EXPECT_EQ(Logits(*Open(Model(dtype, true, sparsity), 2), 5), one);
      EXPECT_LT(RelativeRms(Logits(*engine, 64), one), 1e-2);
    }
  }
}

}  // namespace
}  // namespace nestling
