// SPDX-License-Identifier: Apache-2.0
#include "pack/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <numeric>

#include "tests/support/hf_folder.h"

namespace nestling {
namespace {

using testing::HfTensor;
using testing::SafetensorsBytes;
using testing::TemporaryFolder;
using testing::WriteTextFile;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

Status OpenBytes(const std::string& bytes) {
  const TemporaryFolder folder;
  WriteTextFile(folder / "model.safetensors", bytes);
  return SafetensorsReader::Open(folder.path()).status();
}

// One header entry of a tensor "x".
std::string Entry(const std::string& dtype, const std::string& shape, const std::string& offsets) {
  return R"({"x": {"dtype": ")" + dtype + R"(", "shape": )" + shape + R"(, "data_offsets": )" +
         offsets + "}}";
}

void ExpectRefused(const std::string& header, const std::string& data, StatusCode code,
                   const std::string& message) {
  const Status status = OpenBytes(SafetensorsBytes(header, data));
  EXPECT_EQ(status.code(), code) << header;
  EXPECT_THAT(status.message(), HasSubstr(message)) << header;
}

TEST(SafetensorsTest, ReadsEveryDTypeAsFloats) {
  const TemporaryFolder folder;
  const std::vector<float> values = {1.0f, -2.5f, 0.0f, 65504.0f, 0.25f, -0.125f};
  std::vector<HfTensor> tensors;
  for (const char* dtype : {"F32", "F16", "BF16"}) {
    tensors.push_back({dtype, dtype, {2, 3}, values});
  }
  WriteTextFile(folder / "model.safetensors", SafetensorsBytes(tensors));
  const auto reader = SafetensorsReader::Open(folder / "model.safetensors");
  ASSERT_TRUE(reader.ok()) << reader.status().message();
  for (const char* dtype : {"F32", "F16", "BF16"}) {
    const SourceTensor* tensor = (*reader)->Find(dtype);
    ASSERT_NE(tensor, nullptr);
    EXPECT_THAT(tensor->shape, ElementsAre(2, 3));
    std::vector<float> read(4);
    ASSERT_TRUE((*reader)->Read(*tensor, 1, read).ok());
    // bf16 has 8 bits: 65504 is rounded up.
    const float large = std::string(dtype) == "BF16" ? 65536.0f : 65504.0f;
    EXPECT_THAT(read, ElementsAre(-2.5f, 0.0f, large, 0.25f)) << dtype;
  }
}

TEST(SafetensorsTest, ConvertsMoreThanItsBufferHolds) {
  const TemporaryFolder folder;
  std::vector<float> values(50000);
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i % 256);
  WriteTextFile(folder / "model.safetensors",
                SafetensorsBytes({{"x", "BF16", {values.size()}, values}}));
  const auto reader = SafetensorsReader::Open(folder.path());
  ASSERT_TRUE(reader.ok());
  std::vector<float> read(values.size());
  ASSERT_TRUE((*reader)->Read(*(*reader)->Find("x"), 0, read).ok());
  EXPECT_EQ(read, values);
}

TEST(SafetensorsTest, RefusesToReadBeyondATensor) {
  const TemporaryFolder folder;
  WriteTextFile(folder / "model.safetensors",
                SafetensorsBytes({{"x", "F32", {2}, {1, 2}}, {"y", "F32", {2}, {3, 4}}}));
  const auto reader = SafetensorsReader::Open(folder.path());
  ASSERT_TRUE(reader.ok());
  std::vector<float> read(2);
  EXPECT_EQ((*reader)->Read(*(*reader)->Find("x"), 1, read).code(), StatusCode::kInvalidArgument);
  EXPECT_EQ((*reader)->Read(*(*reader)->Find("x"), UINT64_MAX, read).code(),
            StatusCode::kInvalidArgument);
}

TEST(SafetensorsTest, ReadsShards) {
  const TemporaryFolder folder;
  WriteTextFile(folder / "a.safetensors", SafetensorsBytes({{"x", "F32", {2}, {1, 2}}}));
  WriteTextFile(folder / "b.safetensors", SafetensorsBytes({{"y", "F32", {1}, {3}}}));
  WriteTextFile(folder / "model.safetensors.index.json",
                R"({"weight_map": {"x": "a.safetensors", "y": "b.safetensors"}})");
  const auto reader = SafetensorsReader::Open(folder.path());
  ASSERT_TRUE(reader.ok()) << reader.status().message();
  std::vector<float> read(1);
  ASSERT_TRUE((*reader)->Read(*(*reader)->Find("y"), 0, read).ok());
  EXPECT_EQ(read[0], 3.0f);
  EXPECT_EQ((*reader)->Find("z"), nullptr);
}

TEST(SafetensorsTest, RefusesIndexesThatDoNotFitTheShards) {
  const std::pair<const char*, const char*> cases[] = {
      {R"({"weight_map": {"x": "../a.safetensors"}})", "want a file name"},
      {R"({"weight_map": {"x": "/etc/passwd"}})", "want a file name"},
      {R"({"weight_map": {"x": ""}})", "want a file name"},
      {R"({"weight_map": {"x": 3}})", "want a file name"},
      {R"({"weight_map": {"x": "missing.safetensors"}})", "missing.safetensors"},
      {R"({"weight_map": {"z": "a.safetensors"}})", "tensor \"z\" is not in"},
      {R"({"weight_map": {"x": "a.safetensors", "y": "a.safetensors", "x2": "b.safetensors"}})",
       "is not in"},
      {R"({"weight_map": {"x": "a.safetensors", "y": "c.safetensors"}})", "is both in"},
      {R"({"weight_map": []})", "weight_map"},
      {R"([])", "weight_map"},
      {R"({"weight_map": )", "not valid JSON"},
  };
  for (const auto& [index, message] : cases) {
    const TemporaryFolder folder;
    WriteTextFile(folder / "a.safetensors", SafetensorsBytes({{"x", "F32", {2}, {1, 2}}}));
    WriteTextFile(folder / "b.safetensors", SafetensorsBytes({{"y", "F32", {1}, {3}}}));
    WriteTextFile(folder / "c.safetensors", SafetensorsBytes({{"x", "F32", {1}, {3}}}));
    WriteTextFile(folder / "model.safetensors.index.json", index);
    const Status status = SafetensorsReader::Open(folder.path()).status();
    EXPECT_FALSE(status.ok()) << index;
    EXPECT_THAT(status.message(), HasSubstr(message)) << index;
  }
}

TEST(SafetensorsTest, SaysWhatAFolderLacks) {
  const TemporaryFolder folder;
  EXPECT_EQ(SafetensorsReader::Open(folder.path()).status().code(), StatusCode::kNotFound);
  EXPECT_EQ(SafetensorsReader::Open(folder / "nothing").status().code(), StatusCode::kNotFound);
}

TEST(SafetensorsTest, RefusesHeadersOfHostileSize) {
  std::string bytes = SafetensorsBytes({{"x", "F32", {1}, {1}}});
  for (const uint64_t length :
       {bytes.size() - 7, uint64_t{100'000'001}, uint64_t{1} << 40, uint64_t{1} << 63,
        UINT64_MAX, UINT64_MAX - 7}) {
    std::string hostile = bytes;
    hostile.replace(0, 8, std::string(reinterpret_cast<const char*>(&length), 8));
    const Status status = OpenBytes(hostile);
    EXPECT_EQ(status.code(), StatusCode::kBadModel) << length;
    EXPECT_THAT(status.message(), HasSubstr("header of")) << length;
  }
}

TEST(SafetensorsTest, RefusesHeadersThatAreNotObjects) {
  for (const char* header : {"", "[]", "3", "null", "{", "{\"x\"", "\xff\xfe", "{}trailing"}) {
    EXPECT_EQ(OpenBytes(SafetensorsBytes(header, "")).code(), StatusCode::kBadModel) << header;
  }
}

TEST(SafetensorsTest, RefusesDeepNesting) {
  const std::string deep(100000, '[');
  ExpectRefused("{\"x\": " + deep, "", StatusCode::kBadModel, "nested deeper");
  ExpectRefused(std::string(100000, '{'), "", StatusCode::kBadModel, "");
}

TEST(SafetensorsTest, RefusesDuplicateNames) {
  ExpectRefused(R"({"x": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
                    "x": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}})",
                "12345678", StatusCode::kBadModel, "appears twice");
}

TEST(SafetensorsTest, RefusesOtherDTypesByName) {
  for (const char* dtype : {"F64", "I64", "I8", "U8", "BOOL", "F8_E4M3", "f32", ""}) {
    ExpectRefused(Entry(dtype, "[1]", "[0, 4]"), "1234", StatusCode::kUnsupported,
                  std::string("dtype \"") + dtype + "\"");
  }
}

TEST(SafetensorsTest, RefusesIncompleteEntries) {
  for (const char* entry :
       {"3", "{}", R"({"dtype": "F32", "shape": [1]})", R"({"shape": [1], "data_offsets": [0, 4]})",
        R"({"dtype": "F32", "data_offsets": [0, 4]})"}) {
    ExpectRefused(std::string("{\"x\": ") + entry + "}", "1234", StatusCode::kBadModel,
                  "want an object");
  }
}

TEST(SafetensorsTest, RefusesHostileShapes) {
  for (const char* shape :
       {"[-1]", "[1.0]", "[\"1\"]", "[null]", "3", "{}", "[1, 1, 1, 1, 1, 1, 1, 1, 1]",
        "[4294967296, 4294967296]", "[9223372036854775808, 2]", "[18446744073709551615, 2]"}) {
    ExpectRefused(Entry("F32", shape, "[0, 4]"), "1234", StatusCode::kBadModel, "shape");
  }
  // 2^62 elements of 4 bytes are 2^64 bytes, which is 0 again.
  ExpectRefused(Entry("F32", "[4611686018427387904]", "[0, 0]"), "", StatusCode::kBadModel, "span");
}

TEST(SafetensorsTest, RefusesHostileOffsets) {
  for (const char* offsets : {"[0, 5]", "[4, 0]", "[0, 18446744073709551615]",
                              "[18446744073709551612, 18446744073709551615]", "[-4, 0]", "[0]",
                              "[0, 4, 8]", "0", "[0.0, 4.0]"}) {
    ExpectRefused(Entry("F32", "[1]", offsets), "1234", StatusCode::kBadModel, "data_offsets");
  }
}

TEST(SafetensorsTest, RefusesSizesThatAreNotTheShapes) {
  ExpectRefused(Entry("F32", "[2]", "[0, 4]"), "1234", StatusCode::kBadModel, "span 4 bytes");
  ExpectRefused(Entry("BF16", "[1]", "[0, 4]"), "1234", StatusCode::kBadModel, "span 4 bytes");
}

TEST(SafetensorsTest, RefusesOverlapsAndHoles) {
  const auto two = [](const char* second) {
    return std::string(R"({"x": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
                           "y": {"dtype": "F32", "shape": [1], "data_offsets": )") +
           second + "}}";
  };
  ExpectRefused(two("[0, 4]"), "1234", StatusCode::kBadModel, "inside the one before");
  ExpectRefused(two("[2, 6]"), "123456", StatusCode::kBadModel, "inside the one before");
  ExpectRefused(two("[6, 10]"), "1234567890", StatusCode::kBadModel, "ends at 4");
  ExpectRefused(Entry("F32", "[1]", "[2, 6]"), "123456", StatusCode::kBadModel, "begins at");
  ExpectRefused(Entry("F32", "[1]", "[0, 4]"), "12345678", StatusCode::kBadModel, "cover 4 of 8");
}

TEST(SafetensorsTest, RefusesAFileThatIsTruncatedAnywhere) {
  const std::string bytes =
      SafetensorsBytes({{"x", "F32", {3}, {1, 2, 3}}, {"y", "BF16", {2, 2}, {1, 2, 3, 4}}});
  ASSERT_TRUE(OpenBytes(bytes).ok());
  for (size_t size = 0; size < bytes.size(); ++size) {
    EXPECT_EQ(OpenBytes(bytes.substr(0, size)).code(), StatusCode::kBadModel) << size;
  }
}

TEST(SafetensorsTest, SurvivesEveryFlippedBitOfTheHeader) {
  const std::string bytes =
      SafetensorsBytes({{"x", "F32", {3}, {1, 2, 3}}, {"y", "BF16", {2, 2}, {1, 2, 3, 4}}});
  const TemporaryFolder folder;
  const std::string path = folder / "model.safetensors";
  size_t refused = 0;
  for (size_t i = 0; i + 20 < bytes.size(); ++i) {
    for (int bit = 0; bit < 8; ++bit) {
      std::string flipped = bytes;
      flipped[i] = static_cast<char>(flipped[i] ^ (1 << bit));
      WriteTextFile(path, flipped);
      const auto reader = SafetensorsReader::Open(path);
      if (!reader.ok()) {
        ++refused;
        continue;
      }
      // A changed name or metadata is a different, valid file: everything in it can be read.
      for (const SourceTensor& tensor : (*reader)->tensors()) {
        std::vector<float> values(tensor.num_elements);
        EXPECT_TRUE((*reader)->Read(tensor, 0, values).ok());
      }
    }
  }
  EXPECT_GT(refused, bytes.size());
}

}  // namespace
}  // namespace nestling
