// SPDX-License-Identifier: Apache-2.0
#include "runtime/slice_work.h"

#include <gtest/gtest.h>

#include <vector>

#include "model/slices.h"
#include "runtime/memory_estimate.h"
#include "runtime/session.h"
#include "tests/support/tiny_model.h"

namespace nestling {
namespace {

using testing::TemporaryPath;
using testing::TinyModelOptions;
using testing::WriteTinyModel;

std::unique_ptr<Engine> OpenEngine(DType dtype) {
  TinyModelOptions model;
  model.dtype = model.embed_dtype = model.ple_dtype = dtype;
  const TemporaryPath file;
  EXPECT_TRUE(WriteTinyModel(file.path(), model).ok());
  EngineOptions options;
  options.num_threads = 1;
  auto engine = Engine::Create(file.path(), options);
  EXPECT_TRUE(engine.ok()) << engine.status().message();
  return std::move(engine).value();
}

TEST(SliceWorkTest, APassReadsTheWeightsOfTheMemoryEstimate) {
  for (const DType dtype : {DType::kF32, DType::kQ8C}) {
    const auto engine = OpenEngine(dtype);
    SliceConfig whole = engine->default_slice();
    SliceConfig narrow = whole;
    for (size_t i = 0; i < narrow.ffn.size(); ++i) {
      narrow.ffn[i] = engine->text_config().layers[i].shell_ends[0];
    }
    for (const SliceConfig& slice : {whole, narrow}) {
      const SliceWork work = WorkOfSlice(engine->container(), slice);
      EXPECT_EQ(work.every_token.bytes + work.last_token.bytes + work.head.bytes,
                WeightBytesPerToken(engine->container(), slice));
    }
    EXPECT_LT(WorkOfSlice(engine->container(), narrow).every_token.products,
              WorkOfSlice(engine->container(), whole).every_token.products);
  }
}

TEST(SliceWorkTest, AnF32MatrixHasFourBytesAProduct) {
  const auto engine = OpenEngine(DType::kF32);
  const auto [every, last, head] = WorkOfSlice(engine->container(), engine->default_slice());
  EXPECT_GT(every.bytes, 4 * every.products);  // norms multiply nothing
  EXPECT_LT(every.bytes, 5 * every.products);
  EXPECT_GT(last.bytes, 4 * last.products);
  EXPECT_LT(last.bytes, 5 * last.products);
  EXPECT_EQ(head.bytes, 4 * head.products);
}

TEST(SliceWorkTest, SessionsCountWhatTheirStepsRead) {
  const auto engine = OpenEngine(DType::kQ8C);
  SessionOptions options;
  options.chunk_tokens = 4;
  const auto session = Session::Create(*engine, options);
  ASSERT_TRUE(session.ok());
  const auto [every, last, head] = WorkOfSlice(engine->container(), engine->default_slice());
  const std::vector<int32_t> tokens = {1, 2, 3, 4, 5, 6};
  // Two chunks, only the second of which needs logits.
  ASSERT_TRUE((*session)->Prefill(tokens).ok());
  EXPECT_EQ((*session)->counters().weight_bytes_read, 2 * every.bytes + last.bytes);
  EXPECT_EQ((*session)->counters().weight_products, 6 * every.products + last.products);
  // The output head runs when somebody asks for its logits, and once.
  ASSERT_TRUE((*session)->Logits().ok());
  ASSERT_TRUE((*session)->Logits().ok());
  EXPECT_EQ((*session)->counters().weight_bytes_read, 2 * every.bytes + last.bytes + head.bytes);
  EXPECT_EQ((*session)->counters().weight_products,
            6 * every.products + last.products + head.products);
  const auto no_sink = [](size_t, std::span<const float>) { return OkStatus(); };
  ASSERT_TRUE((*session)->PrefillWithLogits(std::span(tokens).first(3), no_sink).ok());
  EXPECT_EQ((*session)->counters().weight_bytes_read,
            3 * every.bytes + 2 * last.bytes + 2 * head.bytes);
  EXPECT_EQ((*session)->counters().weight_products,
            9 * every.products + 4 * last.products + 4 * head.products);
}

}  // namespace
}  // namespace nestling
