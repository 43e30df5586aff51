// SPDX-License-Identifier: Apache-2.0
#include "pack/synth.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <numeric>
#include <sstream>

#include "container/reader.h"
#include "model/slices.h"
#include "model/weights.h"
#include "pack/inspect.h"
#include "pack/tower_tensors.h"
#include "tests/support/hf_folder.h"

namespace nestling {
namespace {

using testing::TemporaryFolder;
using ::testing::HasSubstr;

uint64_t CountParameters(const std::vector<TowerTensor>& tensors, const std::string& prefix) {
  uint64_t total = 0;
  for (const TowerTensor& tensor : tensors) {
    if (!tensor.name.starts_with(prefix)) continue;
    uint64_t count = 1;
    for (const uint64_t size : tensor.shape) count *= size;
    total += count;
  }
  return total;
}

std::unique_ptr<ContainerReader> MakeTiny(const std::string& path, DType quant, uint64_t seed,
                                          size_t jobs) {
  SynthOptions options;
  options.output = path;
  options.formats.quant = quant;
  options.seed = seed;
  options.jobs = jobs;
  const Status status = Synthesize(options, {});
  EXPECT_TRUE(status.ok()) << status.message();
  auto reader = ContainerReader::Open(path);
  EXPECT_TRUE(reader.ok()) << reader.status().message();
  return reader.ok() ? std::move(reader).value() : nullptr;
}

TEST(TowerTensorsTest, AreTheRealSize) {
  EXPECT_EQ(CountParameters(VisionTensors(2048), "vision_tower."), 294126912u);
  EXPECT_EQ(CountParameters(VisionTensors(2048), "vision_tower.timm_model.blocks.2."), 63407744u);
  EXPECT_EQ(CountParameters(VisionTensors(2048), "vision_tower.timm_model.msfa."), 15245056u);
  EXPECT_EQ(CountParameters(VisionTensors(2048), "embed_vision."), 4460544u);
  EXPECT_EQ(CountParameters(AudioTensors(2048), "audio_tower."), 681348640u);
  EXPECT_EQ(CountParameters(AudioTensors(2048), "embed_audio."), 3345408u);
}

TEST(PresetTest, FullSizesHaveTheirEffectiveParameters) {
  const auto e2b = PresetFields("e2b");
  ASSERT_TRUE(e2b.ok());
  EXPECT_EQ(WholeModelSlice(e2b->text).effective_parameters, 1905495648u);
  EXPECT_TRUE(e2b->slices.empty());
  EXPECT_TRUE(ValidateHeaderFields(*e2b).ok());
  const auto e4b = PresetFields("e4b");
  ASSERT_TRUE(e4b.ok());
  EXPECT_EQ(WholeModelSlice(e4b->text).effective_parameters, 3980491248u);
  EXPECT_EQ(FindSlice(*e4b, "E2B")->effective_parameters, 1905495648u);
  EXPECT_THAT(e4b->text.layers[0].shell_ends, ::testing::ElementsAre(8192, 16384));
  EXPECT_TRUE(ValidateHeaderFields(*e4b).ok());
  EXPECT_EQ(PresetFields("e8b").status().code(), StatusCode::kInvalidArgument);
}

TEST(SynthTest, TheTinyModelIsCompleteInEveryFormat) {
  const TemporaryFolder folder;
  for (const DType quant : {DType::kF32, DType::kQ8C, DType::kQ4C, DType::kQ4B32}) {
    const auto reader = MakeTiny(folder / "tiny.nest", quant, 1, 2);
    ASSERT_NE(reader, nullptr);
    EXPECT_TRUE(CheckTextTensors(*reader).ok());
    EXPECT_TRUE(VerifyContainer(*reader, [](uint64_t, uint64_t) {}).ok());
    EXPECT_TRUE(ModelWeights::Create(*reader).ok());
  }
}

TEST(SynthTest, SeedsMakeTheBytesAndThreadsDoNot) {
  const TemporaryFolder folder;
  const uint64_t one = MakeTiny(folder / "a", DType::kQ4B32, 1, 1)->content_hash();
  EXPECT_EQ(MakeTiny(folder / "b", DType::kQ4B32, 1, 4)->content_hash(), one);
  EXPECT_NE(MakeTiny(folder / "c", DType::kQ4B32, 2, 1)->content_hash(), one);
}

TEST(SynthTest, WeightsHaveTheWantedSpread) {
  const TemporaryFolder folder;
  for (const DType quant : {DType::kF32, DType::kQ8C, DType::kQ4C, DType::kQ4B32}) {
    const auto reader = MakeTiny(folder / "tiny.nest", quant, 3, 2);
    ASSERT_NE(reader, nullptr);
    const auto weights = ModelWeights::Create(*reader);
    ASSERT_TRUE(weights.ok());
    const std::pair<const char*, double> cases[] = {{"embed_tokens", 2.0 / 8.0},
                                                    {"layers.4.mlp.up_proj", 1.0 / 8.0},
                                                    {"layers.4.mlp.down_proj", std::sqrt(1.0 / 128)}};
    for (const auto& [name, deviation] : cases) {
      const std::vector<float> values = DequantizeAll((*weights)->GetMatrix(name).value());
      const double n = static_cast<double>(values.size());
      const double mean = std::accumulate(values.begin(), values.end(), 0.0) / n;
      const double square =
          std::inner_product(values.begin(), values.end(), values.begin(), 0.0) / n;
      // At least 8192 draws: the deviation is within 3 %, the mean within 5 standard errors.
      EXPECT_NEAR(std::sqrt(square) / deviation, 1.0, 0.03) << name << ' ' << DTypeName(quant);
      EXPECT_LT(std::abs(mean), 5.0 * deviation / std::sqrt(n)) << name << ' ' << DTypeName(quant);
    }
    const auto norm = (*weights)->GetVector("layers.0.post_feedforward_layernorm");
    ASSERT_TRUE(norm.ok());
    for (const float value : *norm) {
      EXPECT_GE(value, 0.2f);
      EXPECT_LE(value, 0.6f);
    }
  }
}

TEST(SynthTest, LeavesNothingBehindWhenItFails) {
  const TemporaryFolder folder;
  SynthOptions options;
  options.output = folder / "tiny.nest";
  options.preset = "huge";
  EXPECT_EQ(Synthesize(options, {}).code(), StatusCode::kInvalidArgument);
  options.preset = "tiny";
  options.formats.tower_quant = DType::kQ4C;
  EXPECT_EQ(Synthesize(options, {}).code(), StatusCode::kUnsupported);
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

TEST(InspectTest, DescribesTheWholeContainer) {
  const TemporaryFolder folder;
  const auto reader = MakeTiny(folder / "tiny.nest", DType::kQ4B32, 1, 2);
  ASSERT_NE(reader, nullptr);
  const auto json = nlohmann::json::parse(InspectJson(*reader));
  EXPECT_EQ(json["container"]["format_version"], "1.0");
  EXPECT_EQ(json["container"]["bytes"], reader->file().size());
  EXPECT_THAT(json["provenance"]["source"].get<std::string>(), HasSubstr("tiny, seed 1"));
  EXPECT_EQ(json["text"]["hidden_size"], 64);
  EXPECT_EQ(json["layers"].size(), 10u);
  EXPECT_EQ(json["layers"][4]["type"], "full_attention");
  EXPECT_EQ(json["layers"][0]["activation_sparsity"], 0.95);
  EXPECT_EQ(json["sections"][0]["name"], "TEXT");
  EXPECT_EQ(json["slices"][0]["name"], "whole");
  EXPECT_EQ(json["slices"][1]["name"], "half");
  EXPECT_EQ(json["slices"][2]["skip_layers"], nlohmann::json::array({5, 6}));
  EXPECT_EQ(json["parameters"]["effective"],
            WholeModelSlice(reader->header().text).effective_parameters);
  EXPECT_EQ(json["parameters"]["embedding"]["parameters"], 512 * 64);
  EXPECT_EQ(json["parameters"]["ple"]["parameters"], 480 * 10 * 32);
  EXPECT_EQ(json["special_tokens"]["bos"], 2);
  EXPECT_FALSE(json["special_tokens"].contains("image_soft"));
  EXPECT_EQ(json["generation"]["stop_tokens"][0], 1);
  uint64_t tensors = 0;
  for (const auto& [dtype, sum] : json["tensors"].items()) tensors += sum["tensors"].get<uint64_t>();
  EXPECT_EQ(tensors, reader->tensors().size());
}

}  // namespace
}  // namespace nestling
