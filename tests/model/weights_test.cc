// SPDX-License-Identifier: Apache-2.0
#include "model/weights.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/math.h"
#include "base/memory_info.h"
#include "model/tensor_names.h"
#include "tests/support/tiny_model.h"

namespace nestling {
namespace {

using ::testing::HasSubstr;
using testing::OpenTinyModel;
using testing::TinyModelOptions;
using testing::TinyTensorValues;

// Largest difference between a value of magnitude up to `most` and what is stored of it.
float Tolerance(DType dtype, float most) {
  switch (dtype) {
    case DType::kF32:
      return 0.0f;
    case DType::kF16:
      return most * 0x1p-11f;
    case DType::kBF16:
      return most * 0x1p-8f;
    case DType::kQ8C:
      return most / 127.0f * 0.501f;
    case DType::kQ4C:
      return most / 7.0f * 0.501f;
    case DType::kQ4B32:  // half a step, and at the ends what bf16 takes from the scale
      return most / 7.0f * 0.501f + most * 0x1p-8f;
  }
  return 0.0f;
}

class WeightsTest : public ::testing::TestWithParam<DType> {};

void ExpectStoredValues(TinyModelOptions options, DType dtype) {
  options.num_layers = 5;
  options.num_kv_shared_layers = 0;
  options.shell_ends = {32, 96, 128};  // of unequal size
  options.dtype = options.embed_dtype = dtype;
  auto reader = OpenTinyModel(options);
  ASSERT_TRUE(reader.ok()) << reader.status().message();
  auto weights = ModelWeights::Create(**reader);
  ASSERT_TRUE(weights.ok()) << weights.status().message();
  for (const TensorSpec& spec : TextTensors((*reader)->header().text)) {
    SCOPED_TRACE(spec.name);
    if (spec.shape.size() != 2 || spec.section == SectionKind::kPle) continue;
    const std::vector<float> want = TinyTensorValues(spec, options);
    const auto matrix = (*weights)->GetMatrix(spec.name);
    ASSERT_TRUE(matrix.ok()) << matrix.status().message();
    ASSERT_EQ(matrix->out, spec.shape[0]);
    ASSERT_EQ(matrix->in, spec.shape[1]);
    const std::vector<float> got = DequantizeAll(*matrix);
    ASSERT_EQ(got.size(), want.size());
    float most = 0.0f;
    for (const float value : want) most = std::max(most, std::abs(value));
    const float tolerance = Tolerance(matrix->dtype, most);
    for (size_t i = 0; i < want.size(); ++i) ASSERT_NEAR(got[i], want[i], tolerance) << i;
    if (matrix->layout == Layout::kTransposed || matrix->layout == Layout::kNeuronColumns) continue;
    std::vector<float> row(matrix->in);
    DequantizeRow(*matrix, matrix->out - 1, row.data());
    EXPECT_EQ(row, std::vector<float>(got.end() - static_cast<ptrdiff_t>(row.size()), got.end()));
  }
}

TEST_P(WeightsTest, EveryMatrixIsWhatWasStored) { ExpectStoredValues({}, GetParam()); }

TEST_P(WeightsTest, EveryMatrixIsWhatWasStoredInTiles) {
  TinyModelOptions options;
  options.tiles = true;  // of the types that have tiles; the others stay as they are
  ExpectStoredValues(options, GetParam());
}

TEST_P(WeightsTest, EveryMatrixIsWhatWasStoredByNeuron) {
  if (GetParam() == DType::kF16 || GetParam() == DType::kBF16) GTEST_SKIP() << "no such layout";
  TinyModelOptions options;
  options.neurons = true;
  ExpectStoredValues(options, GetParam());
}

// The shells of a down projection have scales of their own: with one scale for all, the small
// shell of this matrix would come back as zeros.
TEST_P(WeightsTest, AShellKeepsItsPrecisionBesideLargerOnes) {
  const std::vector<uint64_t> shape = {4, 96};
  const std::vector<uint32_t> shell_ends = {32, 96};
  std::vector<float> values(4 * 96);
  for (size_t i = 0; i < values.size(); ++i) {
    values[i] = i % 96 < 32 ? 0.001f * static_cast<float>(i % 7) : 100.0f;
  }
  const testing::EncodedTensor encoded =
      testing::EncodeTensor(values, GetParam(), Layout::kTransposed, shape, shell_ends);
  Matrix matrix;
  matrix.dtype = GetParam();
  matrix.layout = Layout::kTransposed;
  matrix.out = 4;
  matrix.in = 96;
  matrix.data = encoded.elements.data();
  matrix.scales = encoded.scales.data();
  matrix.shell_ends = shell_ends;
  const std::vector<float> got = DequantizeAll(matrix);
  for (size_t i = 0; i < values.size(); ++i) {
    const bool small = i % 96 < 32;
    ASSERT_NEAR(got[i], values[i], Tolerance(GetParam(), small ? 0.006f : 100.0f)) << i;
  }
}

INSTANTIATE_TEST_SUITE_P(DTypes, WeightsTest,
                         ::testing::Values(DType::kF32, DType::kF16, DType::kBF16, DType::kQ8C,
                                           DType::kQ4C, DType::kQ4B32),
                         [](const auto& test) { return std::string(DTypeName(test.param)); });

// The byte order of FORMAT.md, written out by hand.
TEST(DequantizeTest, FollowsTheDocumentedByteOrder) {
  const auto bytes = [](std::initializer_list<int> values) {
    std::vector<std::byte> out;
    for (const int value : values) out.push_back(static_cast<std::byte>(value));
    return out;
  };
  const float scales[] = {1.0f, 10.0f, 100.0f, 1000.0f};
  Matrix matrix;
  matrix.scales = reinterpret_cast<const std::byte*>(scales);
  matrix.out = 2;
  matrix.in = 4;

  // Low half first; 8 is zero. [[-8, -7, 7, 0], [1, 2, 3, 4]] by rows.
  const auto q4_rows = bytes({0x10, 0x8f, 0xa9, 0xcb});
  matrix.dtype = DType::kQ4C;
  matrix.data = q4_rows.data();
  EXPECT_EQ(DequantizeAll(matrix), std::vector<float>({-8, -7, 7, 0, 10, 20, 30, 40}));

  // The same by columns, in shells of 1 and 3 inputs: scales [shell][out].
  const auto q4_columns = bytes({0x90, 0xa1, 0xbf, 0xc8});
  const uint32_t shell_ends[] = {1, 4};
  matrix.layout = Layout::kTransposed;
  matrix.data = q4_columns.data();
  matrix.shell_ends = shell_ends;
  EXPECT_EQ(DequantizeAll(matrix), std::vector<float>({-8, -700, 700, 0, 10, 2000, 3000, 4000}));

  const auto q8_columns = bytes({0x80, 1, 0xff, 2, 127, 3, 0, 4});
  matrix.dtype = DType::kQ8C;
  matrix.data = q8_columns.data();
  EXPECT_EQ(DequantizeAll(matrix),
            std::vector<float>({-128, -100, 12700, 0, 10, 2000, 3000, 4000}));
}

TEST(DequantizeTest, FollowsTheDocumentedByteOrderOfNeurons) {
  // Two neurons of 32 elements: byte i holds the elements i and i + 16.
  std::vector<std::byte> codes(32);
  for (size_t i = 0; i < 32; ++i) {
    const size_t neuron = i / 16;
    codes[i] = static_cast<std::byte>(i % 16 | ((i + neuron) % 16) << 4);
  }
  const uint16_t scales[] = {FloatToBf16(1.0f), FloatToBf16(-2.0f)};
  Matrix matrix;
  matrix.dtype = DType::kQ4B32;
  matrix.layout = Layout::kNeuronRows;
  matrix.out = 2;
  matrix.in = 32;
  matrix.data = codes.data();
  matrix.scales = reinterpret_cast<const std::byte*>(scales);
  const std::vector<float> rows = DequantizeAll(matrix);
  EXPECT_EQ(rows[3], 3.0f - 8.0f);
  EXPECT_EQ(rows[16 + 3], 3.0f - 8.0f);
  EXPECT_EQ(rows[32 + 3], -2.0f * (3.0f - 8.0f));
  EXPECT_EQ(rows[32 + 16 + 3], -2.0f * (4.0f - 8.0f));
  matrix.layout = Layout::kNeuronColumns;
  matrix.out = 32;
  matrix.in = 2;
  const std::vector<float> columns = DequantizeAll(matrix);
  for (size_t o = 0; o < 32; ++o) {
    for (size_t i = 0; i < 2; ++i) EXPECT_EQ(columns[o * 2 + i], rows[i * 32 + o]);
  }
}

TEST(ModelWeightsTest, VectorsAreViewsOfTheFile) {
  TinyModelOptions options;
  auto reader = OpenTinyModel(options);
  ASSERT_TRUE(reader.ok());
  auto weights = ModelWeights::Create(**reader);
  ASSERT_TRUE(weights.ok()) << weights.status().message();
  for (const TensorSpec& spec : TextTensors((*reader)->header().text)) {
    if (!spec.keep_f32) continue;
    const auto vector = (*weights)->GetVector(spec.name);
    ASSERT_TRUE(vector.ok()) << vector.status().message();
    EXPECT_EQ(reinterpret_cast<uintptr_t>(vector->data()) % 64, 0u) << spec.name;
    EXPECT_EQ(std::vector<float>(vector->begin(), vector->end()), TinyTensorValues(spec, options));
  }
}

TEST(ModelWeightsTest, SaysWhyThereIsNoSuchView) {
  TinyModelOptions options;
  options.dtype = DType::kQ8C;
  auto reader = OpenTinyModel(options);
  ASSERT_TRUE(reader.ok());
  auto weights = ModelWeights::Create(**reader);
  ASSERT_TRUE(weights.ok());
  EXPECT_EQ((*weights)->GetMatrix("nothing").status().code(), StatusCode::kNotFound);
  EXPECT_EQ((*weights)->GetVector("nothing").status().code(), StatusCode::kNotFound);
  // The table stays on storage.
  EXPECT_EQ((*weights)->GetMatrix(names::kPleTable).status().code(), StatusCode::kNotFound);
  EXPECT_EQ((*weights)->GetMatrix("norm").status().code(), StatusCode::kInvalidArgument);
  const auto quantised = (*weights)->GetVector("layers.0.mlp.gate_proj");
  EXPECT_EQ(quantised.status().code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(quantised.status().message(), HasSubstr("q8c"));
}

TEST(MatrixViewTest, ChecksTheShellsOfScales) {
  TinyModelOptions options;
  options.dtype = DType::kQ8C;
  auto reader = OpenTinyModel(options);
  ASSERT_TRUE(reader.ok());
  auto section = (*reader)->MapSection(SectionKind::kText);
  ASSERT_TRUE(section.ok());
  const TensorInfo* down = (*reader)->FindTensor("layers.0.mlp.down_proj");
  ASSERT_NE(down, nullptr);
  const uint32_t right[] = {64, 128}, three[] = {32, 64, 128}, short_of_it[] = {64, 127};
  EXPECT_TRUE(MatrixView(*down, section->bytes(), right).ok());
  EXPECT_EQ(MatrixView(*down, section->bytes(), three).status().code(), StatusCode::kBadModel);
  EXPECT_EQ(MatrixView(*down, section->bytes(), short_of_it).status().code(),
            StatusCode::kBadModel);
  EXPECT_EQ(MatrixView(*down, section->bytes()).status().code(), StatusCode::kBadModel);
  EXPECT_EQ(MatrixView(*down, section->bytes().first(100), right).status().code(),
            StatusCode::kInvalidArgument);
}

TEST(ModelWeightsTest, ReleasedPagesAreNotResidentAndCanBeReadAgain) {
  TinyModelOptions options;
  options.vocab_size = 1 << 16;  // 16 MiB of embeddings
  auto reader = OpenTinyModel(options);
  ASSERT_TRUE(reader.ok());
  auto weights = ModelWeights::Create(**reader);
  ASSERT_TRUE(weights.ok());
  const auto embed = (*weights)->GetMatrix(names::kEmbedTokens);
  ASSERT_TRUE(embed.ok());
  const auto sum = [&] {
    uint64_t total = 0;
    for (size_t i = 0; i < embed->data_bytes; i += 512) {
      total += std::to_integer<uint64_t>(embed->data[i]);
    }
    return total;
  };
  const uint64_t first = sum();
  const uint64_t touched = ReadProcessMemory().resident;
  (*weights)->ReleasePages(*embed);
  const uint64_t released = ReadProcessMemory().resident;
  EXPECT_LE(released + (12 << 20), touched);
  EXPECT_EQ(sum(), first);
}

TEST(TinyModelTest, PleValuesCanSayWhereTheyStand) {
  TinyModelOptions options;
  options.ple_values_encode_index = true;
  auto reader = OpenTinyModel(options);
  ASSERT_TRUE(reader.ok());
  const TensorInfo* table = (*reader)->FindTensor(names::kPleTable);
  ASSERT_NE(table, nullptr);
  auto section = (*reader)->MapSection(SectionKind::kPle);
  ASSERT_TRUE(section.ok());
  const auto span_bytes = PleSpanBytes(DType::kF32, options.ple_dim);
  ASSERT_TRUE(span_bytes.ok());
  float value = 0.0f;
  // Token 7, layer 3, index 5.
  const size_t at = table->offset + (7 * options.num_layers + 3) * *span_bytes + 5 * 4;
  std::memcpy(&value, section->bytes().data() + at, sizeof value);
  EXPECT_EQ(value, testing::PleIndexValue(7, 3, 5));
}

}  // namespace
}  // namespace nestling
