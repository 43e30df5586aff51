// SPDX-License-Identifier: Apache-2.0
#include "pack/slicing.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/hf_folder.h"

namespace nestling {
namespace {

using testing::TemporaryFolder;
using testing::TinyHeaderFields;
using testing::WriteTextFile;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

// 10 layers of 128, the last five without keys and values of their own.
HeaderFields Fields() {
  testing::TinyModelOptions options;
  options.shell_ends = {128};
  return TinyHeaderFields(options);
}

std::string SliceJson(const std::string& name, const std::string& skip, uint32_t width,
                      size_t layers) {
  std::string json = R"({"name": ")" + name + R"(", "skip_layers": )" + skip + R"(, "ffn": [)";
  for (size_t i = 0; i < layers; ++i) json += (i == 0 ? "" : ", ") + std::to_string(width);
  return json + "]}";
}

TEST(SlicingTest, EveryWidthBecomesAShellBoundary) {
  const TemporaryFolder folder;
  WriteTextFile(folder / "a.json", SliceJson("a", "[]", 64, 10));
  WriteTextFile(folder / "b.json", SliceJson("b", "[5]", 96, 9));
  HeaderFields fields = Fields();
  const auto chosen = ResolveSlices({folder / "a.json", folder / "b.json"}, "b", &fields);
  ASSERT_TRUE(chosen.ok()) << chosen.status().message();
  EXPECT_EQ((*chosen)->name, "b");
  EXPECT_THAT(fields.slices, SizeIs(2));
  EXPECT_THAT(fields.text.layers[0].shell_ends, ElementsAre(64, 96, 128));
  EXPECT_THAT(fields.text.layers[5].shell_ends, ElementsAre(64, 128));
  EXPECT_TRUE(ValidateHeaderFields(fields).ok());
}

TEST(SlicingTest, AFileMayBeChosenWithoutBeingAdded) {
  const TemporaryFolder folder;
  WriteTextFile(folder / "mine.json", SliceJson("mine", "[6, 7]", 32, 8));
  HeaderFields fields = Fields();
  const auto chosen = ResolveSlices({}, folder / "mine.json", &fields);
  ASSERT_TRUE(chosen.ok()) << chosen.status().message();
  EXPECT_EQ((*chosen)->name, "mine");
  EXPECT_THAT(fields.text.layers[9].shell_ends, ElementsAre(32, 128));
}

TEST(SlicingTest, ChoosesNothingUnlessAsked) {
  HeaderFields fields = Fields();
  const auto chosen = ResolveSlices({}, "", &fields);
  ASSERT_TRUE(chosen.ok());
  EXPECT_FALSE(chosen->has_value());
  EXPECT_THAT(fields.text.layers[0].shell_ends, ElementsAre(128));
}

TEST(SlicingTest, RefusesFilesThatAreNoSlicesOfThisModel) {
  const std::pair<std::string, const char*> cases[] = {
      {SliceJson("a", "[]", 64, 9), "9 FFN widths"},
      {SliceJson("a", "[3]", 64, 9), "owns keys and values"},
      {SliceJson("a", "[]", 256, 10), "256"},
      {SliceJson("a", "[]", 0, 10), "width 0"},
      {SliceJson("whole", "[]", 128, 10), "already has a slice"},
      {R"({"name": "a"})", "ffn"},
      {R"({"name": "a", "ffn": [-1]})", "ffn"},
      {R"(nonsense)", "a.json"},
  };
  for (const auto& [json, message] : cases) {
    const TemporaryFolder folder;
    WriteTextFile(folder / "a.json", json);
    HeaderFields fields = Fields();
    const auto chosen = ResolveSlices({folder / "a.json"}, "", &fields);
    EXPECT_EQ(chosen.status().code(), StatusCode::kInvalidArgument) << json;
    EXPECT_THAT(chosen.status().message(), HasSubstr(message)) << json;
    EXPECT_THAT(fields.text.layers[0].shell_ends, ElementsAre(128)) << json;
  }
  HeaderFields fields = Fields();
  EXPECT_EQ(ResolveSlices({}, "E2B", &fields).status().code(), StatusCode::kNotFound);
  EXPECT_EQ(ResolveSlices({"missing.json"}, "", &fields).status().code(), StatusCode::kNotFound);
}

TEST(SlicingTest, ASlicedModelHasItsLayersRenumbered) {
  const TemporaryFolder folder;
  WriteTextFile(folder / "a.json", SliceJson("a", "[5, 9]", 64, 8));
  HeaderFields fields = Fields();
  const auto slice = ResolveSlices({folder / "a.json"}, "a", &fields);
  ASSERT_TRUE(slice.ok());
  EXPECT_THAT(KeptLayers(fields.text, **slice), ElementsAre(0, 1, 2, 3, 4, 6, 7, 8));
  const TextConfig text = SliceText(fields.text, **slice);
  EXPECT_THAT(text.layers, SizeIs(8));
  EXPECT_EQ(text.num_kv_shared_layers, 3u);
  EXPECT_EQ(text.first_kv_shared_layer(), 5u);
  EXPECT_THAT(text.layers[7].shell_ends, ElementsAre(64));
  EXPECT_EQ(text.layers[4].type, LayerType::kFull);
}

TEST(SlicingTest, SmallerSlicesSurviveInsideALargerOne) {
  const TemporaryFolder folder;
  WriteTextFile(folder / "a.json", SliceJson("large", "[5]", 96, 9));
  WriteTextFile(folder / "b.json", SliceJson("small", "[5, 7]", 64, 8));
  WriteTextFile(folder / "c.json", SliceJson("wider", "[5]", 128, 9));
  WriteTextFile(folder / "d.json", SliceJson("deeper", "[]", 64, 10));
  HeaderFields fields = Fields();
  const auto slice = ResolveSlices(
      {folder / "a.json", folder / "b.json", folder / "c.json", folder / "d.json"}, "large", &fields);
  ASSERT_TRUE(slice.ok()) << slice.status().message();
  const auto inside = SlicesInside(fields.text, **slice, fields.slices);
  ASSERT_THAT(inside, SizeIs(2));
  EXPECT_EQ(inside[0].name, "large");
  EXPECT_THAT(inside[0].skip_layers, IsEmpty());
  EXPECT_EQ(inside[1].name, "small");
  EXPECT_THAT(inside[1].skip_layers, ElementsAre(6));  // it was 7 when 5 was there
  const TextConfig text = SliceText(fields.text, **slice);
  for (const SliceConfig& candidate : inside) EXPECT_TRUE(ValidateSlice(text, candidate).ok());
}

}  // namespace
}  // namespace nestling
