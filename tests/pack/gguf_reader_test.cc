// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <random>

#include "pack/gguf.h"
#include "tests/support/gguf_builder.h"
#include "tests/support/hf_folder.h"

namespace nestling {
namespace {

using testing::Bytes;
using ::testing::ElementsAre;
using testing::GgufBuilder;
using ::testing::HasSubstr;
using testing::TemporaryFolder;
using testing::WriteTextFile;

constexpr const char* kBlocks = NESTLING_SOURCE_DIR "/tests/golden/gguf/blocks.gguf";

Result<std::unique_ptr<GgufReader>> OpenBytes(const std::string& bytes) {
  const TemporaryFolder folder;
  WriteTextFile(folder / "model.gguf", bytes);
  return GgufReader::Open(folder / "model.gguf");  // which keeps the file open
}

void ExpectRefused(const std::string& bytes, const std::string& message,
                   StatusCode code = StatusCode::kBadModel) {
  const Status status = OpenBytes(bytes).status();
  EXPECT_EQ(status.code(), code) << status.message();
  EXPECT_THAT(status.message(), HasSubstr(message));
}

// Two tensors and two keys.
GgufBuilder Small() {
  GgufBuilder gguf;
  gguf.SetUint("general.alignment", 32);
  gguf.SetString("general.architecture", "gemma3n");
  gguf.AddFloats("a", {2, 3}, {1, 2, 3, 4, 5, 6});
  gguf.AddFloats("b", {5}, {7, 8, 9, 10, 11});
  return gguf;
}

// The bytes with `from`, which is there once, replaced.
std::string Replace(std::string bytes, const std::string& from, const std::string& to) {
  const size_t at = bytes.find(from);
  EXPECT_NE(at, std::string::npos);
  EXPECT_EQ(bytes.find(from, at + 1), std::string::npos);
  return bytes.replace(at, from.size(), to);
}

// What a tensor's entry looks like.
std::string Entry(const std::string& name, const std::vector<uint64_t>& ne, uint32_t type,
                  uint64_t offset) {
  std::string bytes = GgufBuilder::Text(name) + Bytes<uint32_t>(static_cast<uint32_t>(ne.size()));
  for (const uint64_t size : ne) bytes += Bytes(size);
  return bytes + Bytes(type) + Bytes(offset);
}

TEST(GgufReaderTest, ReadsEveryElementTypeAsTheReferenceDoes) {
  const auto reader = GgufReader::Open(kBlocks);
  ASSERT_TRUE(reader.ok()) << reader.status().message();
  for (const char* type :
       {"f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "q5_0", "q5_1", "q4_k", "q5_k", "q6_k"}) {
    SCOPED_TRACE(type);
    const SourceTensor* tensor = (*reader)->Find(type);
    const SourceTensor* reference = (*reader)->Find(std::string(type) + ".f32");
    ASSERT_TRUE(tensor != nullptr && reference != nullptr);
    EXPECT_EQ(tensor->shape, reference->shape);
    std::vector<float> got(tensor->num_elements), want(tensor->num_elements);
    ASSERT_TRUE((*reader)->Read(*tensor, 0, got).ok());
    ASSERT_TRUE((*reader)->Read(*reference, 0, want).ok());
    float largest = 0.0f;
    for (const float value : want) largest = std::max(largest, std::abs(value));
    EXPECT_GT(largest, 0.0f);
    for (size_t i = 0; i < want.size(); ++i) {
      // Two products and a sum, perhaps in another order: a few roundings of the largest part.
      ASSERT_NEAR(got[i], want[i], 4 * std::numeric_limits<float>::epsilon() * largest) << i;
    }
  }
}

TEST(GgufReaderTest, ReadsAnySpanOfATensor) {
  const auto reader = GgufReader::Open(kBlocks);
  ASSERT_TRUE(reader.ok());
  for (const char* type : {"bf16", "q4_0", "q6_k"}) {
    const SourceTensor& tensor = *(*reader)->Find(type);
    std::vector<float> all(tensor.num_elements);
    ASSERT_TRUE((*reader)->Read(tensor, 0, all).ok());
    for (const size_t first : {0u, 1u, 31u, 32u, 250u, 255u, 256u, 500u}) {
      for (const size_t n : {0u, 1u, 31u, 32u, 33u, 256u, 300u, 513u}) {
        std::vector<float> part(n);
        ASSERT_TRUE((*reader)->Read(tensor, first, part).ok());
        EXPECT_TRUE(std::equal(part.begin(), part.end(), all.begin() + static_cast<long>(first)))
            << type << ' ' << first << ' ' << n;
      }
    }
    std::vector<float> part(2);
    EXPECT_EQ((*reader)->Read(tensor, tensor.num_elements - 1, part).code(),
              StatusCode::kInvalidArgument);
    EXPECT_EQ((*reader)->Read(tensor, UINT64_MAX, part).code(), StatusCode::kInvalidArgument);
  }
}

TEST(GgufReaderTest, ConvertsMoreThanItsBufferHolds) {
  GgufBuilder gguf;
  GgufBuilder::Tensor tensor{.name = "x", .shape = {50000}, .type = 1, .data = {}};
  for (uint16_t i = 0; i < 50000; ++i) tensor.data += Bytes<uint16_t>(i % 0x7c00);
  gguf.Add(tensor);
  const auto reader = OpenBytes(gguf.Build());
  ASSERT_TRUE(reader.ok()) << reader.status().message();
  std::vector<float> values(50000);
  ASSERT_TRUE((*reader)->Read(*(*reader)->Find("x"), 0, values).ok());
  EXPECT_EQ(values[0x3c00], 1.0f);
  EXPECT_EQ(values[0x7c00 + 0x3c00], 1.0f);
}

TEST(GgufReaderTest, TurnsDimensionsAround) {
  const auto reader = OpenBytes(Small().Build());
  ASSERT_TRUE(reader.ok()) << reader.status().message();
  EXPECT_THAT((*reader)->Find("a")->shape, ElementsAre(2, 3));
  std::vector<float> row(3);
  ASSERT_TRUE((*reader)->Read(*(*reader)->Find("a"), 3, row).ok());
  EXPECT_THAT(row, ElementsAre(4, 5, 6));
  EXPECT_EQ((*reader)->Find("c"), nullptr);
}

TEST(GgufReaderTest, ReadsMetadataOfEveryType) {
  GgufBuilder gguf;
  gguf.Set("u8", 0, Bytes<uint8_t>(200));
  gguf.Set("i8", 1, Bytes<int8_t>(-3));
  gguf.Set("u16", 2, Bytes<uint16_t>(60000));
  gguf.Set("i16", 3, Bytes<int16_t>(1000));
  gguf.SetUint("u32", 4000000000u);
  gguf.Set("i32", 5, Bytes<int32_t>(-1));
  gguf.SetFloat("f32", 0.5f);
  gguf.SetBool("bool", true);
  gguf.SetString("string", "text");
  gguf.Set("u64", 10, Bytes<uint64_t>(1ull << 40));
  gguf.Set("i64", 11, Bytes<int64_t>(7));
  gguf.Set("f64", 12, Bytes<double>(0.25));
  gguf.SetStrings("strings", {"x", "", "yz"});
  gguf.SetArray<int32_t>("ints", GgufBuilder::kInt32, {1, -2, 3});
  const auto opened = OpenBytes(gguf.Build());
  ASSERT_TRUE(opened.ok()) << opened.status().message();
  const auto& value = [&](const char* key) -> const GgufValue& {
    return *(*opened)->FindValue(key);
  };
  EXPECT_EQ(value("u8").Unsigned(0), 200u);
  EXPECT_EQ(value("i8").Unsigned(0), std::nullopt);
  EXPECT_EQ(value("u16").Unsigned(0), 60000u);
  EXPECT_EQ(value("i16").Unsigned(0), 1000u);
  EXPECT_EQ(value("u32").Unsigned(0), 4000000000u);
  EXPECT_EQ(value("i32").Unsigned(0), std::nullopt);
  EXPECT_EQ(value("f32").Float(0), 0.5);
  EXPECT_EQ(value("bool").Bool(0), true);
  EXPECT_EQ(*value("string").String(0), "text");
  EXPECT_EQ(value("u64").Unsigned(0), 1ull << 40);
  EXPECT_EQ(value("i64").Unsigned(0), 7u);
  EXPECT_EQ(value("f64").Float(0), 0.25);
  EXPECT_EQ(*value("strings").String(2), "yz");
  EXPECT_EQ(value("ints").Unsigned(2), 3u);
  EXPECT_EQ(value("ints").Describe(), "an array of 3 i32");
  // Types do not turn into each other.
  EXPECT_EQ(value("f32").Unsigned(0), std::nullopt);
  EXPECT_EQ(value("u32").Float(0), std::nullopt);
  EXPECT_EQ(value("u8").Bool(0), std::nullopt);
  EXPECT_EQ(value("u8").String(0), nullptr);
  EXPECT_EQ((*opened)->FindValue("none"), nullptr);
}

TEST(GgufReaderTest, RefusesOtherFiles) {
  ExpectRefused("", "magic of 4 bytes");
  ExpectRefused("GGML....", "begins with \"GGML\"");
  GgufBuilder gguf = Small();
  for (const uint32_t version : {0u, 1u, 4u}) {
    gguf.version = version;
    ExpectRefused(gguf.Build(), "want 2 or 3", StatusCode::kUnsupported);
  }
  gguf.version = 3u << 24;
  ExpectRefused(gguf.Build(), "big endian", StatusCode::kUnsupported);
  gguf = Small();
  gguf.Set("split.count", 2, Bytes<uint16_t>(3));
  ExpectRefused(gguf.Build(), "one part of a model in 3 files", StatusCode::kUnsupported);
  EXPECT_EQ(GgufReader::Open("/nonexistent/model.gguf").status().code(), StatusCode::kNotFound);
}

TEST(GgufReaderTest, RefusesCountsThatTheFileCannotHold) {
  const std::string good = Small().Build();
  for (const uint64_t count : {uint64_t{1} << 63, UINT64_MAX, uint64_t{70000}, uint64_t{1000}}) {
    std::string bytes = good;
    bytes.replace(8, 8, Bytes(count));
    ExpectRefused(bytes, " tensors in ");
    bytes = good;
    bytes.replace(16, 8, Bytes(count));
    ExpectRefused(bytes, " keys in ");
  }
  for (const uint64_t length : {UINT64_MAX, uint64_t{1} << 40, uint64_t{60000}}) {
    ExpectRefused(
        Replace(good, GgufBuilder::Text("general.alignment"), Bytes(length) + "general.alignment"),
        "key of ");
    ExpectRefused(Replace(good, GgufBuilder::Text("gemma3n"), Bytes(length) + "gemma3n"),
                  "string of ");
    ExpectRefused(Replace(good, GgufBuilder::Text("a") + Bytes<uint32_t>(2),
                          Bytes(length) + "a" + Bytes<uint32_t>(2)),
                  "tensor name of ");
    GgufBuilder gguf = Small();
    for (const uint32_t type : {0u, 4u, 8u, 12u}) {
      gguf.Set("list", GgufBuilder::kArray, Bytes(type) + Bytes(length));
      ExpectRefused(gguf.Build(), "key \"list\": array of ");
    }
  }
}

TEST(GgufReaderTest, RefusesValuesThatAreNone) {
  GgufBuilder gguf = Small();
  gguf.Set("x", 13, Bytes<uint32_t>(0));
  ExpectRefused(gguf.Build(), "value type 13, want less than 13");
  gguf.Set("x", UINT32_MAX, Bytes<uint32_t>(0));
  ExpectRefused(gguf.Build(), "value type 4294967295");
  gguf.Set("x", GgufBuilder::kArray, Bytes<uint32_t>(77) + Bytes<uint64_t>(1));
  ExpectRefused(gguf.Build(), "element type 77");
  gguf.Set("x", GgufBuilder::kArray, Bytes<uint32_t>(GgufBuilder::kArray) + Bytes<uint64_t>(1));
  ExpectRefused(gguf.Build(), "array of arrays");
  gguf.Set("x", GgufBuilder::kBool, std::string(1, '\2'));
  ExpectRefused(gguf.Build(), "bool 2");
}

TEST(GgufReaderTest, RefusesRepeatedNames) {
  std::string bytes = Small().Build();
  const std::string pair =
      GgufBuilder::Text("general.alignment") + Bytes<uint32_t>(4) + Bytes<uint32_t>(32);
  bytes = Replace(bytes, pair, pair + pair);
  bytes.replace(16, 8, Bytes<uint64_t>(3));
  ExpectRefused(bytes, "key \"general.alignment\" is there twice");
  GgufBuilder gguf = Small();
  gguf.AddFloats("a", {1}, {1});
  ExpectRefused(gguf.Build(), "tensor \"a\": is there twice");
}

TEST(GgufReaderTest, RefusesAlignmentsThatAreNoPowersOfTwo) {
  GgufBuilder gguf = Small();
  for (const uint32_t alignment : {0u, 3u, 48u, 1u << 31}) {
    gguf.SetUint("general.alignment", alignment);
    ExpectRefused(gguf.Build(), "general.alignment is ");
  }
  gguf.SetFloat("general.alignment", 32.0f);
  ExpectRefused(gguf.Build(), "general.alignment is 0");
  gguf.SetUint("general.alignment", 64);
  gguf.alignment = 64;
  const auto reader = OpenBytes(gguf.Build());
  ASSERT_TRUE(reader.ok()) << reader.status().message();
  std::vector<float> values(5);
  ASSERT_TRUE((*reader)->Read(*(*reader)->Find("b"), 0, values).ok());
  EXPECT_THAT(values, ElementsAre(7, 8, 9, 10, 11));
}

TEST(GgufReaderTest, RefusesTensorsThatCannotBeInTheFile) {
  const std::string good = Small().Build();
  const std::string entry = Entry("b", {5}, 0, 32);
  const auto with = [&](const std::string& other) { return Replace(good, entry, other); };
  // Dimensions whose product, or whose bytes, do not fit into 64 bits.
  ExpectRefused(with(Entry("b", {1ull << 32, 1ull << 32}, 0, 32)), "dimension 1");
  ExpectRefused(with(Entry("b", {1ull << 62}, 0, 32)), "bytes at offset 32");
  ExpectRefused(with(Entry("b", {UINT64_MAX}, 0, 32)), "bytes at offset 32");
  ExpectRefused(with(Entry("b", {0}, 0, 32)), "dimension 0 is 0");
  ExpectRefused(with(Entry("b", {6}, 0, 32)), "is the file complete?");
  ExpectRefused(with(Entry("b", {5}, 0, UINT64_MAX - 31)), "bytes at offset 18446744073709551584");
  ExpectRefused(with(Entry("b", {5}, 0, UINT64_MAX - 63)), "bytes at offset");
  ExpectRefused(with(Entry("b", {4}, 0, 33)), "want a multiple of 32");
  ExpectRefused(with(Entry("b", {5}, 0, 0)), "overlaps tensor");
  // "b" inside "a", both to the end of the data.
  ExpectRefused(
      Replace(with(Entry("b", {5}, 0, 32)), Entry("a", {3, 2}, 0, 0), Entry("a", {1, 13}, 0, 0)),
      "overlaps tensor");
  ExpectRefused(with(Entry("b", {}, 0, 32)), "0 dimensions");
  ExpectRefused(with(Entry("b", {1, 1, 1, 1, 5}, 0, 32)), "5 dimensions");
  ExpectRefused(with(Entry("b", {5}, 2, 32)), "rows of 5 elements, want a multiple of 32");
  for (const uint32_t type : {4u, 5u, 9u, 10u, 16u, 31u, 99u, UINT32_MAX}) {
    ExpectRefused(with(Entry("b", {5}, type, 32)), "element type", StatusCode::kUnsupported);
  }
  ExpectRefused(with(Entry("b\n", {5}, 0, 32)), "not printable");
  ExpectRefused(with(Entry(std::string(65, 'b'), {5}, 0, 32)), "tensor name of 65 bytes");
}

TEST(GgufReaderTest, RefusesAFileThatEndsAnywhere) {
  const std::string good = Small().Build();
  ASSERT_TRUE(OpenBytes(good).ok());
  for (size_t size = 0; size < good.size(); ++size) {
    EXPECT_FALSE(OpenBytes(good.substr(0, size)).ok()) << size;
  }
}

TEST(GgufReaderTest, SurvivesDamagedBytes) {
  GgufBuilder gguf = Small();
  gguf.SetStrings("strings", {"one", "two"});
  gguf.SetArray<uint32_t>("numbers", GgufBuilder::kUint32, {1, 2, 3});
  const std::string good = gguf.Build();
  std::mt19937 random(1);
  const TemporaryFolder folder;
  size_t opened = 0;
  for (int round = 0; round < 3000; ++round) {
    std::string bytes = good;
    for (uint32_t changes = 1 + random() % 3; changes > 0; --changes) {
      const size_t at = random() % bytes.size();
      // Small and large numbers, and single bits.
      constexpr char kBytes[] = {0, 1, 8, 9, 12, 32, 0x7f, static_cast<char>(0xff)};
      bytes[at] = random() % 2 == 0 ? kBytes[random() % sizeof kBytes]
                                    : static_cast<char>(bytes[at] ^ (1 << random() % 8));
    }
    WriteTextFile(folder / "x.gguf", bytes);
    const auto reader = GgufReader::Open(folder / "x.gguf");
    if (!reader.ok()) continue;
    ++opened;
    for (const SourceTensor& tensor : (*reader)->tensors()) {
      ASSERT_LE(tensor.num_elements, bytes.size());
      std::vector<float> values(tensor.num_elements);
      EXPECT_TRUE((*reader)->Read(tensor, 0, values).ok());
    }
  }
  EXPECT_GT(opened, 0u);  // damage of weights goes unnoticed
}

}  // namespace
}  // namespace nestling
