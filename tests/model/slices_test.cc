// SPDX-License-Identifier: Apache-2.0
#include "model/slices.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <iterator>
#include <string>

#include "tests/model/gemma3n_configs.h"
#include "tests/support/tiny_model.h"

namespace nestling {
namespace {

using ::testing::AllOf;
using testing::E2B;
using testing::E4B;
using ::testing::HasSubstr;

HeaderFields HeaderOfE4B() {
  HeaderFields header;
  header.text = E4B();
  header.slices = PublishedSlices(header.text);
  return header;
}

// gemma3n.md 3.2, column "Computed (B)".
TEST(PublishedSlicesTest, AreTheSixteenOfTheTable) {
  const struct {
    const char* name;
    double computed_billions;
    size_t layers;
    size_t wide;
    float accuracy;
  } table[] = {
      {"E4B", 3.980, 35, 35, 62.3f},          {"E2B", 1.905, 30, 0, 50.9f},
      {"E1.96B", 1.956, 30, 1, 53.4f},        {"E2.54B", 2.521, 35, 6, 55.4f},
      {"E2.69B", 2.672, 35, 9, 57.7f},        {"E2.98B", 2.974, 35, 15, 59.5f},
      {"E3.18B", 3.175, 35, 19, 61.8f},       {"E3.39B", 3.377, 35, 23, 63.0f},
      {"E3.59B", 3.578, 35, 27, 63.4f},       {"E3.79B", 3.779, 35, 31, 63.4f},
      {"E2.49B-block", 2.471, 35, 5, 54.5f},  {"E2.73B-block", 2.722, 35, 10, 57.1f},
      {"E2.98B-block", 2.974, 35, 15, 59.5f}, {"E3.24B-block", 3.226, 35, 20, 60.7f},
      {"E3.49B-block", 3.477, 35, 25, 61.4f}, {"E3.79B-block", 3.729, 35, 30, 62.0f},
  };
  const std::vector<SliceConfig> slices = PublishedSlices(E4B());
  ASSERT_EQ(slices.size(), std::size(table));
  for (size_t i = 0; i < slices.size(); ++i) {
    SCOPED_TRACE(table[i].name);
    EXPECT_EQ(slices[i].name, table[i].name);
    EXPECT_NEAR(static_cast<double>(slices[i].effective_parameters) / 1e9,
                table[i].computed_billions, 0.0006);
    EXPECT_EQ(slices[i].ffn.size(), table[i].layers);
    EXPECT_EQ(static_cast<size_t>(std::count(slices[i].ffn.begin(), slices[i].ffn.end(), 16384)),
              table[i].wide);
    EXPECT_EQ(slices[i].published_accuracy, table[i].accuracy);
    const Status status = ValidateSlice(E4B(), slices[i]);
    EXPECT_TRUE(status.ok()) << status.message();
  }
}

TEST(PublishedSlicesTest, E2BHasExactlyTheParametersOfTheE2BCheckpoint) {
  const auto slice = FindSlice(HeaderOfE4B(), "E2B");
  ASSERT_TRUE(slice.ok());
  EXPECT_EQ(slice->effective_parameters, WholeModelSlice(E2B()).effective_parameters);
  EXPECT_EQ(slice->skip_layers, std::vector<uint32_t>({20, 21, 22, 23, 24}));
}

TEST(PublishedSlicesTest, TheTwoOf298DifferInTheirWideLayers) {
  const auto layer = FindSlice(HeaderOfE4B(), "E2.98B");
  const auto block = FindSlice(HeaderOfE4B(), "E2.98B-block");
  ASSERT_TRUE(layer.ok() && block.ok());
  for (uint32_t i = 0; i < 35; ++i) {
    EXPECT_EQ(layer->ffn[i] == 16384, (i >= 15 && i <= 24) || i >= 30) << i;
    EXPECT_EQ(block->ffn[i] == 16384, i >= 10 && i <= 24) << i;
  }
}

TEST(PublishedSlicesTest, ScaleWithTheWidthOfTheModel) {
  const TextConfig small = testing::Gemma3nConfig(35, 15, {192});
  const std::vector<SliceConfig> slices = PublishedSlices(small);
  ASSERT_EQ(slices.size(), 16u);
  EXPECT_EQ(slices[2].ffn[3], 96u);
  EXPECT_EQ(slices[2].ffn[4], 192u);
}

TEST(PublishedSlicesTest, AreOnlyForTheLayersOfE4B) {
  EXPECT_TRUE(PublishedSlices(E2B()).empty());
  EXPECT_TRUE(PublishedSlices(testing::Gemma3nConfig(35, 10, {16384})).empty());
  EXPECT_TRUE(PublishedSlices(testing::Gemma3nConfig(35, 15, {16383})).empty()) << "odd";
  TextConfig uneven = E4B();
  uneven.layers[7].shell_ends = {8192};
  EXPECT_TRUE(PublishedSlices(uneven).empty());
}

TEST(FindSliceTest, KnowsAliasesAndTheWholeModel) {
  const HeaderFields header = HeaderOfE4B();
  const auto alias = FindSlice(header, "E2.98B-layer");
  ASSERT_TRUE(alias.ok());
  EXPECT_EQ(alias->name, "E2.98B");
  for (const char* name : {"", "whole"}) {
    const auto whole = FindSlice(header, name);
    ASSERT_TRUE(whole.ok());
    EXPECT_EQ(whole->effective_parameters, 3980491248u);
    EXPECT_TRUE(whole->skip_layers.empty());
    EXPECT_EQ(whole->ffn, std::vector<uint32_t>(35, 16384));
  }
}

TEST(FindSliceTest, ListsTheNamesWhenThereIsNoSuchSlice) {
  for (const char* name : {"E5B", "E4B-layer", "E2.98B-block-layer", "-layer", "e2b"}) {
    const auto slice = FindSlice(HeaderOfE4B(), name);
    ASSERT_FALSE(slice.ok()) << name;
    EXPECT_EQ(slice.status().code(), StatusCode::kNotFound);
    EXPECT_THAT(slice.status().message(),
                AllOf(HasSubstr(name), HasSubstr("whole, E4B, E2B, "), HasSubstr("E3.79B-block")));
  }
}

// 10 layers, 5..9 shared, shells 64 and 128.
TextConfig Tiny() { return testing::TinyTextConfig({}); }

TEST(ParseSliceJsonTest, ReadsACustomSlice) {
  const auto slice = ParseSliceJson(
      R"({"name": "mine", "skip_layers": [5, 8], "ffn": [64, 64, 64, 64, 64, 128, 128, 64]})",
      Tiny());
  ASSERT_TRUE(slice.ok()) << slice.status().message();
  EXPECT_EQ(slice->name, "mine");
  EXPECT_EQ(slice->skip_layers, std::vector<uint32_t>({5, 8}));
  EXPECT_EQ(slice->ffn, std::vector<uint32_t>({64, 64, 64, 64, 64, 128, 128, 64}));
  EXPECT_LT(slice->effective_parameters, WholeModelSlice(Tiny()).effective_parameters);
  EXPECT_GT(slice->effective_parameters, 0u);
}

TEST(ParseSliceJsonTest, NeedsNoListOfSkippedLayers) {
  const auto slice = ParseSliceJson(
      R"({"ffn": [128, 128, 128, 128, 128, 128, 128, 128, 128, 128], "name": "all"})", Tiny());
  ASSERT_TRUE(slice.ok()) << slice.status().message();
  EXPECT_EQ(slice->effective_parameters, WholeModelSlice(Tiny()).effective_parameters);
}

TEST(ParseSliceJsonTest, RefusesWhatItDoesNotUnderstand) {
  const std::string ffn = R"("ffn": [64, 64, 64, 64, 64, 64, 64, 64, 64, 64])";
  const struct {
    const char* said;
    std::string json;
  } cases[] = {
      {"not a JSON object", ""},
      {"not a JSON object", "{"},
      {"not a JSON object", "[1, 2]"},
      {"not a JSON object", "{\"name\": \"a\xff\"," + ffn + "}"},
      {"not a JSON object", "{\"name\": \"a\"," + ffn + "} trailing"},
      {"not a JSON object", std::string(100000, '[')},
      {"bytes, at most", std::string((1 << 20) + 1, ' ')},
      {"\"name\" is missing", "{" + ffn + "}"},
      {"\"ffn\" is missing", R"({"name": "a"})"},
      {"\"name\" is not a string", "{\"name\": 3, " + ffn + "}"},
      {"\"ffn\" is not an array", R"({"name": "a", "ffn": 64})"},
      {"\"ffn\" is not an array", R"({"name": "a", "ffn": [64.5]})"},
      {"\"ffn\" is not an array", R"({"name": "a", "ffn": [-64]})"},
      {"\"ffn\" is not an array", R"({"name": "a", "ffn": [4294967296]})"},
      {"not a JSON object", R"({"name": "a", "ffn": [1e400]})"},
      {"\"ffn\" is not an array", R"({"name": "a", "ffn": ["64"]})"},
      {"\"skip_layers\" is not an array", "{\"name\": \"a\", \"skip_layers\": null, " + ffn + "}"},
      {"unknown key \"skip\"", "{\"name\": \"a\", \"skip\": [], " + ffn + "}"},
      {"\"ffn\" appears twice", "{\"name\": \"a\", " + ffn + ", " + ffn + "}"},
      {"10 FFN widths", "{\"name\": \"a\", \"skip_layers\": [5], " + ffn + "}"},
      {"owns keys and values", R"({"name": "a", "skip_layers": [0],)" + ffn + "}"},
      {"slice name", "{\"name\": \"\", " + ffn + "}"},
      {"not on a shell boundary",
       R"({"name": "a", "ffn": [64, 64, 64, 64, 64, 64, 64, 64, 64, 65]})"},
  };
  for (const auto& c : cases) {
    const auto slice = ParseSliceJson(c.json, Tiny());
    ASSERT_FALSE(slice.ok()) << c.json.substr(0, 200);
    EXPECT_EQ(slice.status().code(), StatusCode::kInvalidArgument);
    EXPECT_THAT(slice.status().message(), HasSubstr(c.said));
  }
}

}  // namespace
}  // namespace nestling
