// SPDX-License-Identifier: Apache-2.0
#include "modality/vision/vision_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>

#include "modality/vision/vision_tower.h"
#include "tests/modality/vision_golden.h"
#include "tests/support/tiny_model.h"

namespace nestling {
namespace {

using testing::GetVisionGolden;
using testing::OpenVisionContainer;
using testing::VisionGolden;
using ::testing::HasSubstr;
using Kind = VisionBlockConfig::Kind;

Result<VisionConfig> Read(const std::function<void(VisionGolden&)>& edit = {}) {
  ASSIGN_OR_RETURN(const auto reader, OpenVisionContainer({.edit = edit}));
  return ReadVisionConfig(*reader);
}

Status StatusOf(const std::function<void(VisionGolden&)>& edit) { return Read(edit).status(); }

// Edits a field of a JSON text.
void EditJson(std::string* text, const std::function<void(nlohmann::json&)>& edit) {
  nlohmann::json json = nlohmann::json::parse(*text);
  edit(json);
  *text = json.dump();
}

TEST(VisionConfigTest, StructureFollowsFromTheTensors) {
  const auto config = Read();
  ASSERT_TRUE(config.ok()) << config.status().message();
  EXPECT_EQ(config->image_height, 192u);
  EXPECT_EQ(config->stem, 16u);
  EXPECT_EQ(config->stem_height, 96u);
  EXPECT_TRUE(config->stem_bias);
  ASSERT_EQ(config->stages.size(), 4u);
  EXPECT_EQ(config->output_resolution, 4u);
  EXPECT_EQ(config->features, 2048u);
  EXPECT_EQ(config->hidden_size, 64u);
  for (const auto& stage : config->stages) {
    for (size_t b = 0; b < stage.size(); ++b) {
      EXPECT_EQ(stage[b].stride, b == 0 ? 2u : 1u) << stage[b].prefix;
      EXPECT_EQ(stage[b].residual, b > 0) << stage[b].prefix;
    }
  }
  EXPECT_EQ(config->stages[0][0].kind, Kind::kEdgeResidual);
  EXPECT_EQ(config->stages[1][0].kind, Kind::kInvertedBottleneck);
  EXPECT_EQ(config->stages[1][0].start_kernel, 3u);
  EXPECT_EQ(config->stages[1][0].middle_kernel, 5u);
  size_t attentions = 0;
  for (size_t s = 2; s < 4; ++s) {
    for (const VisionBlockConfig& block : config->stages[s]) {
      if (block.kind != Kind::kAttention) continue;
      ++attentions;
      EXPECT_EQ(block.num_heads, s == 2 ? 2u : 3u);
      EXPECT_EQ(block.head_dim, s == 2 ? 12u : 8u);
      EXPECT_EQ(block.kv_stride, s == 2 ? 2u : 1u);
    }
  }
  EXPECT_GE(attentions, 2u);
}

TEST(VisionConfigTest, StructureNeedsNoModelArguments) {
  // Published checkpoints say null; the resolution is then that of the architecture.
  const Status status = StatusOf([](VisionGolden& golden) {
    EditJson(&golden.fields.vision.config_json,
             [](nlohmann::json& json) { json["model_args"] = nullptr; });
  });
  EXPECT_EQ(status.code(), StatusCode::kUnsupported);  // 12 x 12 cannot be pooled to 16 x 16
  EXPECT_THAT(status.message(), HasSubstr("16"));
  const auto config = Read([](VisionGolden& golden) {
    EditJson(&golden.fields.vision.config_json, [](nlohmann::json& json) {
      json["model_args"] = {{"msfa_output_resolution", 4}};
    });
  });
  EXPECT_TRUE(config.ok()) << config.status().message();
}

TEST(VisionConfigTest, EveryMissingTensorIsAnErrorThatNamesATensor) {
  for (const auto& [missing, unused] : GetVisionGolden().tensors) {
    SCOPED_TRACE(missing);
    const Status status = StatusOf([&](VisionGolden& golden) { golden.tensors.erase(missing); });
    if (missing.ends_with("conv_stem.conv.bias")) {  // the public converter writes none
      EXPECT_TRUE(status.ok()) << status.message();
      continue;
    }
    EXPECT_TRUE(status.code() == StatusCode::kBadModel ||
                status.code() == StatusCode::kUnsupported);
    EXPECT_THAT(status.message(), ::testing::AnyOf(HasSubstr("tensor \""),
                                                   HasSubstr("\"block_args\"")));
  }
}

TEST(VisionConfigTest, EveryWrongShapeIsAnErrorThatNamesATensor) {
  for (const auto& [wrong, tensor] : GetVisionGolden().tensors) {
    for (size_t axis = 0; axis < tensor.shape.size(); ++axis) {
      SCOPED_TRACE(::testing::Message() << wrong << " axis " << axis);
      const Status status = StatusOf([&wrong = wrong, axis](VisionGolden& golden) {
        testing::GoldenTensor& edited = golden.tensors[wrong];
        ++edited.shape[axis];
        uint64_t count = 1;
        for (const uint64_t size : edited.shape) count *= size;
        edited.values.resize(count);
      });
      EXPECT_EQ(status.code(), StatusCode::kBadModel) << status.message();
      EXPECT_THAT(status.message(), HasSubstr("tensor \""));
    }
  }
}

TEST(VisionConfigTest, UnknownTensorMeansAnotherKindOfTower) {
  const Status status = StatusOf([](VisionGolden& golden) {
    golden.tensors["vision_tower.timm_model.blocks.1.1.se.conv_reduce"] = {{4}, {1, 2, 3, 4}};
  });
  EXPECT_EQ(status.code(), StatusCode::kUnsupported);
  EXPECT_THAT(status.message(), HasSubstr("blocks.1.1.se.conv_reduce"));
}

TEST(VisionConfigTest, ConfigurationThatContradictsTheTensorsIsRefused) {
  const auto edit_config = [](const std::function<void(nlohmann::json&)>& edit) {
    return StatusOf(
        [&](VisionGolden& golden) { EditJson(&golden.fields.vision.config_json, edit); });
  };
  EXPECT_EQ(edit_config([](nlohmann::json& json) {
              json["model_args"]["block_args"][0][1]["stride"] = 2;
            }).code(),
            StatusCode::kBadModel);
  EXPECT_EQ(edit_config([](nlohmann::json& json) {
              json["model_args"]["block_args"].erase(3);
            }).code(),
            StatusCode::kBadModel);
  EXPECT_EQ(edit_config([](nlohmann::json& json) {
              json["model_args"]["block_args"][1] = "all of them";
            }).code(),
            StatusCode::kBadModel);
  for (const nlohmann::json& resolution :
       {nlohmann::json(0), nlohmann::json(-4), nlohmann::json(1e9), nlohmann::json("4"),
        nlohmann::json(4.5)}) {
    EXPECT_EQ(edit_config([&](nlohmann::json& json) {
                json["model_args"]["msfa_output_resolution"] = resolution;
              }).code(),
              StatusCode::kBadModel)
        << resolution;
  }
}

TEST(VisionConfigTest, PreprocessingThatIsNotOursIsRefused) {
  const auto edit = [](const char* name, const nlohmann::json& value) {
    return StatusOf([&](VisionGolden& golden) {
             EditJson(&golden.fields.vision.preprocessor_json,
                      [&](nlohmann::json& json) { json[name] = value; });
           })
        .code();
  };
  EXPECT_EQ(edit("do_normalize", true), StatusCode::kUnsupported);
  EXPECT_EQ(edit("resample", 3), StatusCode::kUnsupported);
  EXPECT_EQ(edit("rescale_factor", 0.5), StatusCode::kUnsupported);
  EXPECT_EQ(edit("size", {{"height", 0}, {"width", 192}}), StatusCode::kBadModel);
  EXPECT_EQ(edit("size", {{"height", 1 << 20}, {"width", 192}}), StatusCode::kBadModel);
}

TEST(VisionConfigTest, TextThatIsNoJsonIsRefused) {
  for (const std::string& text : {std::string("{"), std::string("[1]"), std::string("null"),
                                  std::string(100'000, '[')}) {
    EXPECT_EQ(StatusOf([&](VisionGolden& golden) { golden.fields.vision.config_json = text; })
                  .code(),
              StatusCode::kBadModel);
    EXPECT_EQ(
        StatusOf([&](VisionGolden& golden) { golden.fields.vision.preprocessor_json = text; })
            .code(),
        StatusCode::kBadModel);
  }
}

TEST(VisionConfigTest, NumberOfSoftTokensMustBeThatOfTheHeader) {
  const Status status =
      StatusOf([](VisionGolden& golden) { golden.fields.vision.soft_tokens = 15; });
  EXPECT_EQ(status.code(), StatusCode::kBadModel);
  EXPECT_THAT(status.message(), HasSubstr("15"));
}

TEST(VisionConfigTest, ContainerWithoutTheTowerSaysSo) {
  const auto reader = testing::OpenTinyModel();
  ASSERT_TRUE(reader.ok()) << reader.status().message();
  EXPECT_EQ(ReadVisionConfig(**reader).status().code(), StatusCode::kNotFound);
  const auto pool = ThreadPool::Create(1);
  ASSERT_TRUE(pool.ok());
  EXPECT_EQ(VisionTower::Create(**reader, **pool).status().code(), StatusCode::kNotFound);
}

TEST(SamePaddingTest, IsThatOfTheSpecification) {
  const auto of = [](size_t n, size_t kernel, size_t stride) {
    const SamePadding padding = SamePaddingOf(n, kernel, stride);
    return std::pair(padding.low, padding.high);
  };
  EXPECT_EQ(of(768, 3, 2), std::pair(size_t{0}, size_t{1}));
  EXPECT_EQ(of(192, 5, 2), std::pair(size_t{1}, size_t{2}));
  EXPECT_EQ(of(48, 3, 1), std::pair(size_t{1}, size_t{1}));
  EXPECT_EQ(of(48, 5, 1), std::pair(size_t{2}, size_t{2}));
  EXPECT_EQ(of(7, 3, 2), std::pair(size_t{1}, size_t{1}));  // odd sizes are symmetric
  EXPECT_EQ(of(4, 1, 2), std::pair(size_t{0}, size_t{0}));
}

}  // namespace
}  // namespace nestling
