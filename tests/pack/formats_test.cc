// SPDX-License-Identifier: Apache-2.0
#include "pack/formats.h"

#include <gtest/gtest.h>

#include "tests/support/tiny_model.h"

namespace nestling {
namespace {

TensorSpec Spec(Layout layout, std::vector<uint64_t> shape, bool keep_f32 = false,
                bool sensitive = false, SectionKind section = SectionKind::kText) {
  return {.name = "x",
          .section = section,
          .layout = layout,
          .shape = std::move(shape),
          .keep_f32 = keep_f32,
          .sensitive = sensitive,
          .num_shells = 1};
}

DType Format(const TensorSpec& spec, DType quant, std::vector<uint32_t> shells = {}) {
  FormatOptions options;
  options.quant = quant;
  return FormatFor(spec, shells, options);
}

TEST(FormatsTest, MatricesGetTheWantedFormat) {
  const TensorSpec spec = Spec(Layout::kRowMajor, {8, 64});
  for (const DType dtype : {DType::kF32, DType::kQ8C, DType::kQ4C, DType::kQ4B32}) {
    EXPECT_EQ(Format(spec, dtype), dtype);
  }
}

TEST(FormatsTest, DelicateTensorsKeepTheirPrecision) {
  const TensorSpec norm = Spec(Layout::kRowMajor, {64}, /*keep_f32=*/true);
  const TensorSpec altup = Spec(Layout::kRowMajor, {64, 64}, false, /*sensitive=*/true);
  for (const DType dtype : {DType::kQ8C, DType::kQ4C, DType::kQ4B32}) {
    EXPECT_EQ(Format(norm, dtype), DType::kF32);
    EXPECT_EQ(Format(altup, dtype), DType::kQ8C);
  }
  EXPECT_EQ(Format(altup, DType::kF32), DType::kF32);
}

TEST(FormatsTest, WhatDoesNotFitIntoBlocksGetsEightBits) {
  EXPECT_EQ(Format(Spec(Layout::kRowMajor, {8, 80}), DType::kQ4B32), DType::kQ8C);
  EXPECT_EQ(Format(Spec(Layout::kRowMajor, {8, 80}), DType::kQ4C), DType::kQ4C);
  EXPECT_EQ(Format(Spec(Layout::kRowMajor, {8, 81}), DType::kQ4C), DType::kQ8C);
  EXPECT_EQ(Format(Spec(Layout::kPleRows, {8, 3, 16}), DType::kQ4B32), DType::kQ8C);
  EXPECT_EQ(Format(Spec(Layout::kPleRows, {8, 3, 32}), DType::kQ4B32), DType::kQ4B32);
  EXPECT_EQ(Format(Spec(Layout::kPleRows, {8, 3, 15}), DType::kQ4C), DType::kQ8C);
}

TEST(FormatsTest, BlocksOfADownProjectionDoNotCrossShells) {
  const TensorSpec down = Spec(Layout::kTransposed, {64, 192});
  EXPECT_EQ(Format(down, DType::kQ4B32, {96, 192}), DType::kQ4B32);
  EXPECT_EQ(Format(down, DType::kQ4B32, {96, 120, 192}), DType::kQ8C);
  EXPECT_EQ(Format(down, DType::kQ4C, {96, 120, 192}), DType::kQ4C);
  EXPECT_EQ(Format(Spec(Layout::kTransposed, {63, 64}), DType::kQ4C, {64}), DType::kQ8C);
}

TEST(FormatsTest, TableEmbeddingAndTowersHaveTheirOwn) {
  FormatOptions options;
  const TensorSpec ple = Spec(Layout::kPleRows, {8, 3, 32}, false, false, SectionKind::kPle);
  const TensorSpec embed = Spec(Layout::kRowMajor, {8, 64}, false, false, SectionKind::kEmbed);
  EXPECT_EQ(FormatFor(ple, {}, options), DType::kQ4B32);
  EXPECT_EQ(FormatFor(embed, {}, options), DType::kQ4B32);
  options.ple_quant = DType::kBF16;
  options.embed_quant = DType::kQ8C;
  EXPECT_EQ(FormatFor(ple, {}, options), DType::kBF16);
  EXPECT_EQ(FormatFor(embed, {}, options), DType::kQ8C);
  const std::vector<uint64_t> matrix = {8, 8};
  const std::vector<uint64_t> vector = {8};
  EXPECT_EQ(TowerFormatFor(SectionKind::kVision, "x", matrix, options), DType::kBF16);
  EXPECT_EQ(TowerFormatFor(SectionKind::kAudio, "x", vector, options), DType::kF32);
  EXPECT_EQ(DescribeFormats(options), "q4b32, ple bf16, embed q8c, towers bf16");
}

TEST(FormatsTest, IntegerVisionTowersKeepDepthwiseConvolutionsAndTheStemInF32) {
  FormatOptions options;
  options.tower_quant = DType::kQ8C;
  const auto format = [&](const std::string& name, const std::vector<uint64_t>& shape) {
    return TowerFormatFor(SectionKind::kVision, name, shape, options);
  };
  const std::string block = "vision_tower.timm_model.blocks.0.0.";
  EXPECT_EQ(format(block + "conv_exp", {256, 64, 3, 3}), DType::kQ8C);
  EXPECT_EQ(format(block + "conv_pwl", {128, 256, 1, 1}), DType::kQ8C);
  EXPECT_EQ(format(block + "dw_mid.conv", {768, 1, 5, 5}), DType::kF32);
  EXPECT_EQ(format(block + "bn1", {256}), DType::kF32);
  EXPECT_EQ(format("vision_tower.timm_model.conv_stem.conv", {64, 3, 3, 3}), DType::kF32);
  EXPECT_EQ(format("embed_vision.embedding_projection", {64, 2048}), DType::kQ8C);
  EXPECT_EQ(format("embed_vision.embedding", {128, 2048}), DType::kF32);
  EXPECT_EQ(TowerLayoutFor(SectionKind::kVision, DType::kQ8C, std::vector<uint64_t>{64, 64}),
            Layout::kRowMajor);
}

TEST(FormatsTest, ProjectionsAroundASparseGateLieByNeuron) {
  TextConfig text;
  text.hidden_size = 64;
  text.layers.resize(3);
  for (LayerConfig& layer : text.layers) layer.shell_ends = {40, 128};
  text.layers[0].activation_sparsity = 0.95f;
  text.layers[1].activation_sparsity = 0.5f;
  const auto layout = [&](const std::string& name, DType dtype) {
    TensorSpec spec = Spec(Layout::kRowMajor, {128, 64});
    if (name.ends_with("down_proj")) spec = Spec(Layout::kTransposed, {64, 128});
    spec.name = name;
    return LayoutFor(spec, dtype, text);
  };
  for (const DType dtype : {DType::kF32, DType::kQ8C, DType::kQ4B32}) {
    EXPECT_EQ(layout("layers.0.mlp.up_proj", dtype), Layout::kNeuronRows);
    EXPECT_EQ(layout("layers.0.mlp.down_proj", dtype), Layout::kNeuronColumns);
    EXPECT_EQ(layout("layers.0.mlp.gate_proj", dtype), Layout::kRowMajor);
    for (const char* layer : {"layers.1.", "layers.2."}) {  // too dense to pay
      EXPECT_EQ(layout(std::string(layer) + "mlp.up_proj", dtype), Layout::kRowMajor);
      EXPECT_EQ(layout(std::string(layer) + "mlp.down_proj", dtype), Layout::kTransposed);
    }
  }
  EXPECT_EQ(layout("layers.0.mlp.up_proj", DType::kQ4C), Layout::kRowMajor);
  text.hidden_size = 48;  // no whole blocks
  EXPECT_EQ(layout("layers.0.mlp.up_proj", DType::kQ8C), Layout::kRowMajor);
  EXPECT_EQ(layout("layers.0.mlp.up_proj", DType::kF32), Layout::kNeuronRows);
}

// A model of one sparse and one dense layer, and one of its feed-forward tensors.
StoredForm SparseForm(const char* name, SourceDType source, DType quant) {
  TextConfig text;
  text.hidden_size = 64;
  text.layers.resize(2);
  for (LayerConfig& layer : text.layers) layer.shell_ends = {64, 128};
  text.layers[0].activation_sparsity = 0.95f;
  const bool down = std::string(name).ends_with("down_proj");
  TensorSpec spec =
      down ? Spec(Layout::kTransposed, {64, 128}) : Spec(Layout::kRowMajor, {128, 64});
  spec.name = name;
  FormatOptions options;
  options.quant = quant;
  return FormFor(spec, source, text, options);
}

TEST(FormatsTest, BlocksAlongTheOtherAxisAreNotRoundedTo4BitsTwice) {
  using enum SourceDType;
  const auto down = [](SourceDType source, DType quant) {
    const StoredForm form = SparseForm("layers.0.mlp.down_proj", source, quant);
    EXPECT_EQ(form.layout, Layout::kNeuronColumns);
    return form.dtype;
  };
  EXPECT_EQ(down(kQ4_0, DType::kQ4B32), DType::kQ8C);
  EXPECT_EQ(down(kQ6_K, DType::kQ4B32), DType::kQ8C);
  EXPECT_EQ(down(kQ4_0, DType::kQ4C), DType::kQ8C);
  EXPECT_EQ(down(kBF16, DType::kQ4B32), DType::kQ4B32);
  EXPECT_EQ(down(kQ8_0, DType::kQ4B32), DType::kQ4B32);
  EXPECT_EQ(down(kQ4_0, DType::kF32), DType::kF32);
  EXPECT_EQ(SparseForm("layers.0.mlp.up_proj", kQ4_0, DType::kQ4B32).dtype, DType::kQ4B32);
  EXPECT_EQ(SparseForm("layers.1.mlp.down_proj", kQ4_0, DType::kQ4B32).dtype, DType::kQ4B32);
}

TEST(FormatsTest, ScalesPerChannelBecomeBlocksAroundASparseGateOnly) {
  for (const char* name : {"layers.0.mlp.up_proj", "layers.0.mlp.down_proj"}) {
    const StoredForm form = SparseForm(name, SourceDType::kBF16, DType::kQ4C);
    EXPECT_EQ(form.dtype, DType::kQ4B32) << name;
    EXPECT_TRUE(IsByNeuron(form.layout)) << name;
  }
  for (const char* name :
       {"layers.0.mlp.gate_proj", "layers.1.mlp.up_proj", "layers.1.mlp.down_proj"}) {
    EXPECT_EQ(SparseForm(name, SourceDType::kBF16, DType::kQ4C).dtype, DType::kQ4C) << name;
  }
}

TEST(FormatsTest, IntegerAudioTowersKeepConvolutionsAndTheTableInF32) {
  FormatOptions options;
  options.tower_quant = DType::kQ8C;
  constexpr SectionKind kAudio = SectionKind::kAudio;
  const std::vector<uint64_t> matrix = {16, 64}, odd = {16, 65}, conv = {8, 16, 3, 3};
  const std::string linear = "audio_tower.conformer.0.attention.post";
  EXPECT_EQ(TowerFormatFor(kAudio, linear, matrix, options), DType::kQ8C);
  EXPECT_EQ(TowerFormatFor(kAudio, "embed_audio.embedding", matrix, options), DType::kF32);
  EXPECT_EQ(TowerFormatFor(kAudio, "audio_tower.conv", conv, options), DType::kF32);
  EXPECT_EQ(TowerLayoutFor(kAudio, DType::kQ8C, matrix), Layout::kTiled);
  EXPECT_EQ(TowerLayoutFor(kAudio, DType::kQ8C, odd), Layout::kRowMajor);
  EXPECT_EQ(TowerLayoutFor(kAudio, DType::kF32, matrix), Layout::kRowMajor);
}

TEST(FormatsTest, RefusesFormatsThatNothingCanRun) {
  FormatOptions options;
  EXPECT_TRUE(CheckFormatOptions(options).ok());
  options.tower_quant = DType::kQ4C;
  EXPECT_EQ(CheckFormatOptions(options).code(), StatusCode::kUnsupported);
  options.tower_quant = DType::kQ8C;
  EXPECT_TRUE(CheckFormatOptions(options).ok());
  options.tower_quant = DType::kF16;
  EXPECT_TRUE(CheckFormatOptions(options).ok());
  options.quant = DType::kBF16;
  EXPECT_EQ(CheckFormatOptions(options).code(), StatusCode::kUnsupported);
}

TEST(FormatsTest, FindsTheLayerInAName) {
  EXPECT_EQ(LayerOfTensor("layers.12.mlp.down_proj"), 12u);
  EXPECT_EQ(LayerOfTensor("norm"), std::nullopt);
  EXPECT_EQ(LayerOfTensor("layers.x.norm"), std::nullopt);
  EXPECT_EQ(LayerOfTensor("layers.12"), std::nullopt);
  EXPECT_EQ(LayerOfTensor("layers.99999999999.norm"), std::nullopt);
}

// Whatever the sizes, the writer must be able to hold what was chosen.
TEST(FormatsTest, EveryChoiceCanBeStored) {
  testing::TinyModelOptions tiny;
  for (const uint32_t hidden : {63u, 64u, 66u}) {
    for (const uint32_t ple_dim : {15u, 16u, 32u}) {
      for (const auto& shells : {std::vector<uint32_t>{64, 128}, std::vector<uint32_t>{50, 77}}) {
        tiny.hidden_size = hidden;
        tiny.ple_dim = ple_dim;
        tiny.shell_ends = shells;
        const TextConfig text = testing::TinyTextConfig(tiny);
        for (const DType quant : {DType::kF32, DType::kQ8C, DType::kQ4C, DType::kQ4B32}) {
          FormatOptions options;
          options.quant = quant;
          for (const TensorSpec& spec : TextTensors(text)) {
            const StoredForm form = FormFor(spec, SourceDType::kF32, text, options);
            EXPECT_TRUE(
                ComputeStorageSize(form.dtype, form.layout, spec.shape, spec.num_shells).ok())
                << spec.name << ' ' << DTypeName(form.dtype);
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace nestling
