// SPDX-License-Identifier: Apache-2.0
#include "ple/ple_table.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "tests/support/tiny_model.h"

namespace nestling {
namespace {

std::vector<uint32_t> Layers(uint32_t count, std::vector<uint32_t> without) {
  std::vector<uint32_t> layers;
  for (uint32_t layer = 0; layer < count; ++layer) {
    if (std::find(without.begin(), without.end(), layer) == without.end()) layers.push_back(layer);
  }
  return layers;
}

TEST(PleTableTest, EveryIdHasItsRowAndOthersTakeRowZero) {
  const auto model = testing::OpenTinyModel();
  ASSERT_TRUE(model.ok());
  const auto table = PleTable::Create(**model);
  ASSERT_TRUE(table.ok());
  EXPECT_EQ((*table)->num_rows(), 96u);
  EXPECT_EQ((*table)->RowOf(95), 95u);
  for (const int32_t id : {96, 127, -1, INT32_MAX, INT32_MIN}) EXPECT_EQ((*table)->RowOf(id), 0u);
}

TEST(PleTableTest, SmallGapsOfASliceAreReadThrough) {
  const auto model = testing::OpenTinyModel();
  ASSERT_TRUE(model.ok());
  const auto table = PleTable::Create(**model);
  ASSERT_TRUE(table.ok());
  const size_t span = (*table)->row_bytes() / 10;
  const PleSelection middle = (*table)->Select(Layers(10, {4, 5}));
  ASSERT_EQ(middle.parts.size(), 1u);
  EXPECT_EQ(middle.bytes, (*table)->row_bytes());
  EXPECT_EQ(middle.layers, ~uint64_t{0});
  // What lies before the first and behind the last layer is not read.
  const PleSelection ends = (*table)->Select(Layers(10, {0, 1, 9}));
  ASSERT_EQ(ends.parts.size(), 1u);
  EXPECT_EQ(ends.parts[0].begin, 2 * span);
  EXPECT_EQ(ends.parts[0].end, 9 * span);
  EXPECT_EQ(ends.bytes, 7 * span);
  EXPECT_EQ(ends.layers, 0b0111111100u);
}

TEST(PleTableTest, LargeGapsOfASliceAreNotRead) {
  testing::TinyModelOptions options;
  options.ple_dim = 2048;  // spans of 8 KB
  options.ple_vocab_size = 4;
  const auto model = testing::OpenTinyModel(options);
  ASSERT_TRUE(model.ok());
  const auto table = PleTable::Create(**model);
  ASSERT_TRUE(table.ok());
  const PleSelection selection = (*table)->Select(Layers(10, {3, 4}));
  ASSERT_EQ(selection.parts.size(), 2u);
  EXPECT_EQ(selection.parts[0].end, 3u * 8192);
  EXPECT_EQ(selection.parts[1].begin, 5u * 8192);
  EXPECT_EQ(selection.bytes, 8u * 8192);
  EXPECT_EQ(selection.layers, 0b1111100111u);
}

TEST(PleTableTest, RowsOfManyLayersAreReadWhole) {
  testing::TinyModelOptions options;
  options.num_layers = 70;
  options.num_kv_shared_layers = 5;
  const auto model = testing::OpenTinyModel(options);
  ASSERT_TRUE(model.ok()) << model.status().message();
  const auto table = PleTable::Create(**model);
  ASSERT_TRUE(table.ok());
  const PleSelection selection = (*table)->Select(Layers(70, {0, 69}));
  EXPECT_EQ(selection.bytes, (*table)->row_bytes());
  EXPECT_EQ(selection.layers, ~uint64_t{0});
}

}  // namespace
}  // namespace nestling
