// SPDX-License-Identifier: Apache-2.0
#include "modality/audio/audio_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tests/modality/audio_golden.h"

namespace nestling {
namespace {

using testing::AudioGolden;
using testing::GetAudioGolden;
using ::testing::HasSubstr;
using testing::OpenAudioContainer;

Result<AudioConfig> ReadEdited(std::function<void(AudioGolden&)> edit) {
  ASSIGN_OR_RETURN(const auto reader, OpenAudioContainer({.edit = std::move(edit)}));
  return ReadAudioConfig(*reader);
}

// The status of a container whose configuration has `key` set to `value`.
Status WithField(const char* key, const nlohmann::json& value, bool preprocessor = false) {
  return ReadEdited([&](AudioGolden& golden) {
           TowerConfig& tower = golden.fields.audio;
           std::string& text = preprocessor ? tower.preprocessor_json : tower.config_json;
           nlohmann::json json = nlohmann::json::parse(text);
           json[key] = value;
           text = json.dump();
         })
      .status();
}

TEST(AudioConfigTest, ReadsSizesFromTensorsAndParametersFromTheConfiguration) {
  const auto config = ReadEdited({});
  ASSERT_TRUE(config.ok()) << config.status().message();
  EXPECT_EQ(config->size, 32u);
  EXPECT_EQ(config->ffn_size, 128u);
  EXPECT_EQ(config->num_layers, 3u);
  EXPECT_EQ(config->head_dim, 16u);
  EXPECT_EQ(config->attention_window, 13u);
  EXPECT_EQ(config->conv_kernel, 5u);
  EXPECT_EQ(config->reduction, 4u);
  EXPECT_EQ(config->conv_channels[0], 16u);
  EXPECT_EQ(config->conv_frequencies[0], 64u);
  EXPECT_EQ(config->subsampled_size(), 32u * 8);
  EXPECT_EQ(config->hidden_size, 64u);
  EXPECT_EQ(config->hard_embeddings, 4u);
  EXPECT_FLOAT_EQ(config->logit_cap, 50.0f);
}

// The table of gemma3n.md 5.6.
TEST(AudioConfigTest, LengthsAreThoseOfTheReference) {
  AudioConfig config;
  config.reduction = 4;
  config.num_positions = 188;
  const struct {
    size_t samples, frames, steps, tokens;
  } rows[] = {{512, 0, 0, 0},     {513, 1, 1, 1},       {4000, 23, 6, 2},
              {16000, 97, 25, 7}, {47999, 297, 75, 19}, {480000, 2997, 750, 188}};
  for (const auto& row : rows) {
    EXPECT_EQ(config.NumFrames(row.samples), row.frames) << row.samples;
    EXPECT_EQ(config.NumSteps(row.frames), row.steps) << row.samples;
    EXPECT_EQ(config.NumSoftTokens(row.samples), row.tokens) << row.samples;
  }
  EXPECT_EQ(config.min_samples(), 513u);
  EXPECT_EQ(config.max_samples(), 480000u);
}

TEST(AudioConfigTest, FewPositionsLimitTheLengthOfAClipExactly) {
  AudioConfig config;
  config.reduction = 4;
  for (const size_t positions : {1u, 12u, 24u, 187u}) {
    config.num_positions = positions;
    EXPECT_EQ(config.NumSoftTokens(config.max_samples()), positions);
    EXPECT_EQ(config.NumSoftTokens(config.max_samples() + 1), positions + 1);
  }
}

TEST(AudioConfigTest, DefaultsStandForAMissingConfiguration) {
  const auto config = ReadEdited([](AudioGolden& golden) {
    golden.fields.audio.preprocessor_json.clear();
    golden.fields.audio.config_json =
        R"({"hidden_size": 32, "conf_num_attention_heads": 2, "conf_num_hidden_layers": 3})";
  });
  ASSERT_TRUE(config.ok()) << config.status().message();
  EXPECT_EQ(config->mel.frame_length, 512u);
  EXPECT_EQ(config->mel.fft_length, 1024u);
  EXPECT_EQ(config->attention_window, 13u);
}

TEST(AudioConfigTest, EveryMissingTensorIsNamed) {
  for (const auto& [name, tensor] : GetAudioGolden().tensors) {
    const Status status =
        ReadEdited([&](AudioGolden& golden) { golden.tensors.erase(name); }).status();
    EXPECT_EQ(status.code(), StatusCode::kBadModel) << name;
    EXPECT_THAT(status.message(), HasSubstr("\"" + name + "\"")) << name;
  }
}

TEST(AudioConfigTest, EveryTensorOfAnotherShapeIsNamed) {
  for (const auto& [name, tensor] : GetAudioGolden().tensors) {
    // One more of the last dimension; the tensor that a size is taken from blames others.
    const Status status = ReadEdited([&](AudioGolden& golden) {
                            testing::GoldenTensor& edited = golden.tensors[name];
                            ++edited.shape.back();
                            size_t count = 1;
                            for (const uint64_t size : edited.shape) count *= size;
                            edited.values.resize(count);
                          }).status();
    EXPECT_EQ(status.code(), StatusCode::kBadModel) << name;
    EXPECT_THAT(status.message(), HasSubstr("\"" + name + "\"")) << name;
  }
}

TEST(AudioConfigTest, WrongFieldsAreNamed) {
  const std::pair<const char*, nlohmann::json> fields[] = {{"conf_num_hidden_layers", 0},
                                                           {"conf_num_hidden_layers", "12"},
                                                           {"conf_num_hidden_layers", 4},
                                                           {"conf_num_attention_heads", 3},
                                                           {"conf_attention_context_left", 0},
                                                           {"conf_attention_context_left", 100},
                                                           {"conf_attention_logit_cap", 0},
                                                           {"conf_reduction_factor", -1},
                                                           {"hidden_size", 48},
                                                           {"rms_norm_eps", "small"},
                                                           {"gradient_clipping", 1.0}};
  for (const auto& [key, value] : fields) {
    EXPECT_EQ(WithField(key, value).code(), StatusCode::kBadModel) << key << ' ' << value;
  }
  const std::pair<const char*, nlohmann::json> front_end[] = {
      {"frame_length", 0}, {"frame_length", 1e9},    {"hop_length", 0},
      {"hop_length", 513}, {"fft_length", 511},      {"max_frequency", 9000},
      {"mel_floor", 0},    {"max_frequency", 100.0}, {"feature_size", {1, 2}}};
  for (const auto& [key, value] : front_end) {
    EXPECT_EQ(WithField(key, value, true).code(), StatusCode::kBadModel) << key << ' ' << value;
  }
}

TEST(AudioConfigTest, VariantsThatCannotRunAreUnsupported) {
  EXPECT_EQ(WithField("conf_attention_context_right", 1).code(), StatusCode::kUnsupported);
  EXPECT_EQ(WithField("sscp_conv_stride_size", {{2, 2}, {1, 1}}).code(), StatusCode::kUnsupported);
  EXPECT_EQ(WithField("sampling_rate", 8000, true).code(), StatusCode::kUnsupported);
  EXPECT_EQ(WithField("dither", 0.1, true).code(), StatusCode::kUnsupported);
  EXPECT_EQ(WithField("preemphasis_htk_flavor", false, true).code(), StatusCode::kUnsupported);
  EXPECT_EQ(WithField("per_bin_mean", {0.0}, true).code(), StatusCode::kUnsupported);
}

TEST(AudioConfigTest, TextThatIsNotAnObjectIsRefused) {
  for (const char* text : {"[]", "{", "3", "{\"a\": }"}) {
    EXPECT_EQ(ReadEdited([&](AudioGolden& golden) { golden.fields.audio.config_json = text; })
                  .status()
                  .code(),
              StatusCode::kBadModel)
        << text;
  }
}

TEST(AudioConfigTest, AContainerWithoutATowerIsNotFound) {
  EXPECT_EQ(
      ReadEdited([](AudioGolden& golden) { golden.fields.audio = TowerConfig(); }).status().code(),
      StatusCode::kNotFound);
}

}  // namespace
}  // namespace nestling
