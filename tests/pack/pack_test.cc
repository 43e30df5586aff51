// SPDX-License-Identifier: Apache-2.0
#include "pack/pack.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "container/reader.h"
#include "model/tensor_names.h"
#include "model/weights.h"
#include "tests/support/hf_folder.h"

namespace nestling {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;
using testing::HfTensor;
using ::testing::IsEmpty;
using testing::TemporaryFolder;
using testing::TinyCheckpoint;
using testing::TinyConfigJson;
using testing::TinyModelOptions;
using testing::TinyTensorValues;
using testing::WriteHfFolder;
using testing::WriteTextFile;

std::string ReadBytes(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream bytes;
  bytes << file.rdbuf();
  return bytes.str();
}

// A checkpoint in a folder and what packing it gives.
class PackTest : public ::testing::Test {
 protected:
  PackTest() {
    options_.source = folder_.path();
    options_.output = output_folder_ / "model.nest";
    options_.formats.quant = DType::kF32;
    options_.jobs = 2;
    tiny_.shell_ends = {128};
  }

  void WriteCheckpoint() {
    config_ = TinyConfigJson(tiny_);
    tensors_ = TinyCheckpoint(tiny_);
    WriteHfFolder(folder_.path(), config_, tensors_);
  }
  void RewriteCheckpoint() { WriteHfFolder(folder_.path(), config_, tensors_); }

  HfTensor& Tensor(const std::string& name) {
    const auto it = std::find_if(tensors_.begin(), tensors_.end(),
                                 [&](const HfTensor& tensor) { return tensor.name == name; });
    EXPECT_NE(it, tensors_.end()) << name;
    return *it;
  }

  Status Run() {
    warnings_.clear();
    return Pack(options_, {}, [this](const std::string& text) { warnings_.push_back(text); });
  }

  std::unique_ptr<ContainerReader> Open() {
    auto reader = ContainerReader::Open(options_.output);
    EXPECT_TRUE(reader.ok()) << reader.status().message();
    return reader.ok() ? std::move(reader).value() : nullptr;
  }

  std::unique_ptr<ContainerReader> RunAndOpen() {
    const Status status = Run();
    EXPECT_TRUE(status.ok()) << status.message();
    return status.ok() ? Open() : nullptr;
  }

  // Nothing was written, not even under a temporary name.
  void ExpectFails(StatusCode code, const std::string& message) {
    const Status status = Run();
    EXPECT_EQ(status.code(), code) << status.message();
    EXPECT_THAT(status.message(), HasSubstr(message));
    EXPECT_TRUE(std::filesystem::is_empty(output_folder_.path()));
  }

  TemporaryFolder folder_;
  TemporaryFolder output_folder_;
  TinyModelOptions tiny_;
  nlohmann::json config_;
  std::vector<HfTensor> tensors_;
  PackOptions options_;
  std::vector<std::string> warnings_;
};

// Bytes of a tensor's elements and scales.
std::pair<std::string, std::string> TensorBytes(const ContainerReader& reader,
                                                const std::string& name) {
  const TensorInfo* tensor = reader.FindTensor(name);
  if (tensor == nullptr) return {"missing", name};
  const auto region = reader.MapSection(tensor->section);
  const auto text = [&](uint64_t offset, uint64_t bytes) {
    const auto part = region->bytes().subspan(offset, bytes);
    return std::string(reinterpret_cast<const char*>(part.data()), part.size());
  };
  return {text(tensor->offset, tensor->bytes),
          tensor->scales_bytes == 0 ? "" : text(tensor->scales_offset, tensor->scales_bytes)};
}

TEST_F(PackTest, AnF32ContainerHoldsTheCheckpointExactly) {
  WriteCheckpoint();
  const auto reader = RunAndOpen();
  ASSERT_NE(reader, nullptr);
  ASSERT_TRUE(CheckTextTensors(*reader).ok());
  const auto weights = ModelWeights::Create(*reader);
  ASSERT_TRUE(weights.ok()) << weights.status().message();
  for (const TensorSpec& spec : TextTensors(reader->header().text)) {
    const std::vector<float> want = TinyTensorValues(spec, tiny_);
    if (spec.layout == Layout::kPleRows) {
      const auto [bytes, scales] = TensorBytes(*reader, spec.name);
      ASSERT_EQ(bytes.size(), want.size() * 4);
      EXPECT_EQ(std::memcmp(bytes.data(), want.data(), bytes.size()), 0);
    } else if (spec.shape.size() == 1) {
      const auto vector = (*weights)->GetVector(spec.name);
      ASSERT_TRUE(vector.ok());
      EXPECT_TRUE(std::equal(want.begin(), want.end(), vector->begin(), vector->end()));
    } else {
      const auto matrix = (*weights)->GetMatrix(spec.name);
      ASSERT_TRUE(matrix.ok());
      EXPECT_EQ(DequantizeAll(*matrix), want) << spec.name;
    }
  }
}

TEST_F(PackTest, WritesWhereItComesFromAndWhatItHas) {
  WriteCheckpoint();
  WriteTextFile(folder_ / "tokenizer.model", "pieces");
  WriteTextFile(folder_ / "generation_config.json",
                R"({"do_sample": true, "top_k": 64, "eos_token_id": [1, 106]})");
  WriteTextFile(folder_ / "chat_template.jinja", "{{ messages }}");
  const auto reader = RunAndOpen();
  ASSERT_NE(reader, nullptr);
  const HeaderFields& header = reader->header();
  EXPECT_EQ(header.provenance.source, std::filesystem::path(folder_.path()).filename().string());
  EXPECT_THAT(header.provenance.tool, HasSubstr("nestling pack"));
  EXPECT_EQ(header.provenance.quantisation, "f32, ple f32, embed f32, towers f32");
  EXPECT_EQ(header.generation.top_k, 64u);
  EXPECT_EQ(header.chat_template, "{{ messages }}");
  const auto tokenizer = reader->MapSection(SectionKind::kTokenizer);
  ASSERT_TRUE(tokenizer.ok());
  EXPECT_EQ(tokenizer->bytes().size(), 6u);
  EXPECT_THAT(warnings_, IsEmpty());
}

TEST_F(PackTest, WarnsAboutAMissingTokenizer) {
  WriteCheckpoint();
  const auto reader = RunAndOpen();
  ASSERT_NE(reader, nullptr);
  EXPECT_EQ(reader->FindSection(SectionKind::kTokenizer), nullptr);
  EXPECT_THAT(warnings_, Contains(HasSubstr("tokenizer.model")));
  WriteTextFile(folder_ / "tokenizer.model", "");
  EXPECT_EQ(Run().code(), StatusCode::kBadModel);
}

TEST_F(PackTest, EveryFormatGivesAContainerThatTheDecoderAccepts) {
  WriteCheckpoint();
  for (const DType quant : {DType::kQ8C, DType::kQ4C, DType::kQ4B32}) {
    for (const DType ple :
         {DType::kF32, DType::kF16, DType::kBF16, DType::kQ8C, DType::kQ4C, DType::kQ4B32}) {
      options_.formats.quant = quant;
      options_.formats.ple_quant = ple;
      const auto reader = RunAndOpen();
      ASSERT_NE(reader, nullptr);
      EXPECT_TRUE(CheckTextTensors(*reader).ok());
      EXPECT_EQ(reader->FindTensor("layers.0.mlp.gate_proj")->dtype, quant);
      // Layer 0 has a sparse gate, layer 5 has not.
      EXPECT_EQ(reader->FindTensor("layers.0.mlp.down_proj")->dtype,
                quant == DType::kQ4C ? DType::kQ4B32 : quant);
      EXPECT_EQ(reader->FindTensor("layers.5.mlp.down_proj")->dtype, quant);
      EXPECT_EQ(reader->FindTensor("embed_tokens_per_layer")->dtype, ple);
      EXPECT_EQ(reader->FindTensor("layers.0.laurel.linear_left")->dtype, DType::kQ8C);
      EXPECT_EQ(reader->FindTensor("norm")->dtype, DType::kF32);
      EXPECT_TRUE(VerifyContainer(*reader, [](uint64_t, uint64_t) {}).ok());
    }
  }
}

TEST_F(PackTest, QuantisedWeightsAreCloseToTheCheckpoint) {
  WriteCheckpoint();
  // Relative root mean square error of the formats for noise; uniform noise is kind to 4 bits.
  for (const auto& [quant, at_most] : {std::pair(DType::kQ8C, 0.006), std::pair(DType::kQ4C, 0.10),
                                       std::pair(DType::kQ4B32, 0.09)}) {
    options_.formats.quant = quant;
    const auto reader = RunAndOpen();
    ASSERT_NE(reader, nullptr);
    const auto weights = ModelWeights::Create(*reader);
    ASSERT_TRUE(weights.ok());
    for (const TensorSpec& spec : TextTensors(reader->header().text)) {
      if (spec.keep_f32 || spec.layout == Layout::kPleRows) continue;
      const std::vector<float> want = TinyTensorValues(spec, tiny_);
      const std::vector<float> got = DequantizeAll((*weights)->GetMatrix(spec.name).value());
      double error = 0.0;
      double power = 0.0;
      for (size_t i = 0; i < want.size(); ++i) {
        error += std::pow(static_cast<double>(got[i] - want[i]), 2.0);
        power += std::pow(static_cast<double>(want[i]), 2.0);
      }
      EXPECT_LT(std::sqrt(error / power), at_most) << spec.name << ' ' << DTypeName(quant);
    }
  }
}

TEST_F(PackTest, TheBytesDoNotDependOnTheThreads) {
  WriteCheckpoint();
  options_.formats.quant = DType::kQ4B32;
  options_.jobs = 1;
  ASSERT_TRUE(Run().ok());
  const std::string one = ReadBytes(options_.output);
  options_.jobs = 5;
  ASSERT_TRUE(Run().ok());
  EXPECT_TRUE(ReadBytes(options_.output) == one);
}

TEST_F(PackTest, PrefixesAndDTypesOfTheCheckpointDoNotMatter) {
  WriteCheckpoint();
  ASSERT_TRUE(Run().ok());
  const auto plain = Open();
  for (const char* prefix : {"model.language_model.", "language_model.model."}) {
    tensors_ = TinyCheckpoint(tiny_, prefix);
    RewriteCheckpoint();
    const auto reader = RunAndOpen();
    ASSERT_NE(reader, nullptr);
    EXPECT_EQ(reader->content_hash(), plain->content_hash()) << prefix;
  }
  tensors_ = TinyCheckpoint(tiny_, "model.", "BF16");
  RewriteCheckpoint();
  EXPECT_NE(RunAndOpen(), nullptr);
}

TEST_F(PackTest, KeysAndValuesOfSharedLayersAreIgnored) {
  WriteCheckpoint();
  ASSERT_TRUE(Run().ok());
  const auto without = Open();
  for (int layer = 5; layer < 10; ++layer) {
    const std::string attention = "model.layers." + std::to_string(layer) + ".self_attn.";
    tensors_.push_back({attention + "k_proj.weight", "F32", {32, 64}, std::vector<float>(2048)});
    tensors_.push_back({attention + "v_proj.weight", "F32", {32, 64}, std::vector<float>(2048)});
    tensors_.push_back({attention + "k_norm.weight", "F32", {16}, std::vector<float>(16)});
  }
  tensors_.push_back({"lm_head.weight", "F32", {1}, {0.0f}});
  RewriteCheckpoint();
  const auto with = RunAndOpen();
  ASSERT_NE(with, nullptr);
  EXPECT_EQ(with->content_hash(), without->content_hash());
}

TEST_F(PackTest, RefusesTensorsThatGemma3nDoesNotHave) {
  WriteCheckpoint();
  tensors_.push_back({"model.layers.0.self_attn.q_proj.bias", "F32", {64}, std::vector<float>(64)});
  RewriteCheckpoint();
  ExpectFails(StatusCode::kUnsupported, "q_proj.bias");
  options_.allow_unknown_config = true;
  EXPECT_TRUE(Run().ok());
  EXPECT_THAT(warnings_, Contains(HasSubstr("q_proj.bias")));
}

TEST_F(PackTest, SaysWhichTensorIsMissing) {
  WriteCheckpoint();
  std::erase_if(tensors_, [](const HfTensor& tensor) {
    return tensor.name == "model.layers.3.mlp.up_proj.weight";
  });
  RewriteCheckpoint();
  ExpectFails(StatusCode::kBadModel, "\"layers.3.mlp.up_proj\" is missing, want shape [128, 64]");
  tensors_.clear();
  RewriteCheckpoint();
  ExpectFails(StatusCode::kBadModel, "embed_tokens");
}

TEST_F(PackTest, SaysWhichShapeIsWrong) {
  WriteCheckpoint();
  Tensor("model.layers.3.mlp.down_proj.weight").shape = {128, 64};
  RewriteCheckpoint();
  ExpectFails(StatusCode::kBadModel, "down_proj.weight\": shape [128, 64], want [64, 128]");
}

TEST_F(PackTest, RefusesWeightsThatAreNotNumbers) {
  for (const char* name :
       {"model.layers.2.mlp.gate_proj.weight", "model.layers.2.mlp.down_proj.weight",
        "model.norm.weight", "model.embed_tokens_per_layer.weight"}) {
    for (const DType quant : {DType::kF32, DType::kQ8C, DType::kQ4B32}) {
      WriteCheckpoint();
      Tensor(name).values[5] = std::nanf("");
      RewriteCheckpoint();
      options_.formats.quant = quant;
      ExpectFails(StatusCode::kBadModel, name);
    }
  }
}

TEST_F(PackTest, RefusesUnknownKeysUntilToldOtherwise) {
  WriteCheckpoint();
  config_["attn_logit_softcapping"] = 50.0;
  RewriteCheckpoint();
  ExpectFails(StatusCode::kUnsupported, "attn_logit_softcapping");
  options_.allow_unknown_config = true;
  EXPECT_TRUE(Run().ok());
}

TEST_F(PackTest, RefusesConfigurationsThatCannotRun) {
  WriteCheckpoint();
  config_["num_attention_heads"] = 3;
  RewriteCheckpoint();
  ExpectFails(StatusCode::kBadModel, "num_heads");
}

TEST_F(PackTest, RefusesSourcesThatAreNeitherFoldersNorGgufFiles) {
  options_.source = folder_ / "model.gguf";
  ExpectFails(StatusCode::kNotFound, "model.gguf");
  WriteTextFile(options_.source, "something else");
  ExpectFails(StatusCode::kBadModel, "begins with \"some\", want \"GGUF\"");
  options_.source = folder_.path();
  ExpectFails(StatusCode::kNotFound, "config.json");
}

TEST_F(PackTest, LeavesAnOlderFileAloneWhenItFails) {
  WriteCheckpoint();
  WriteTextFile(options_.output, "precious");
  Tensor("model.norm.weight").values[0] = std::nanf("");
  RewriteCheckpoint();
  EXPECT_FALSE(Run().ok());
  EXPECT_EQ(ReadBytes(options_.output), "precious");
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(output_folder_.path()), {}), 1);
}

TEST_F(PackTest, AcceptsAnEmbeddingOfTheTextVocabularyOnly) {
  WriteCheckpoint();
  config_["vocab_size"] = 160;  // the checkpoint has 128 rows
  config_["vocab_size_per_layer_input"] = 128;
  Tensor("model.embed_tokens_per_layer.weight").shape[0] = 128;
  Tensor("model.embed_tokens_per_layer.weight").values.resize(128 * 320);
  RewriteCheckpoint();
  const auto reader = RunAndOpen();
  ASSERT_NE(reader, nullptr);
  EXPECT_EQ(reader->header().text.vocab_size, 128u);
}

TEST_F(PackTest, ReportsProgressUpToTheEnd) {
  WriteCheckpoint();
  uint64_t last = 0;
  uint64_t total = 0;
  ASSERT_TRUE(Pack(options_,
                   [&](uint64_t done, uint64_t all) {
                     EXPECT_GE(done, last);
                     last = done;
                     total = all;
                   },
                   {})
                  .ok());
  EXPECT_GT(total, 0u);
  EXPECT_EQ(last, total);
}

// ---- Slices ----

constexpr const char* kSlice =
    R"({"name": "mine", "skip_layers": [6, 8], "ffn": [64, 128, 64, 96, 128, 64, 64, 32]})";

// The named tensor of the slice, and what it was called in the whole model.
struct Pair {
  std::string sliced;
  std::string whole;
};

TEST_F(PackTest, ASubModelHasTheBytesOfTheSliceOfTheWhole) {
  WriteCheckpoint();
  WriteTextFile(folder_ / "slice.json", kSlice);
  for (const DType quant : {DType::kF32, DType::kQ8C, DType::kQ4C, DType::kQ4B32}) {
    SCOPED_TRACE(DTypeName(quant));
    options_.formats.quant = quant;
    options_.add_slices = {folder_ / "slice.json"};
    options_.slice = "";
    const auto whole = RunAndOpen();
    ASSERT_NE(whole, nullptr);
    ASSERT_EQ(whole->header().slices.size(), 1u);
    options_.slice = "mine";
    const auto sliced = RunAndOpen();
    ASSERT_NE(sliced, nullptr);
    ASSERT_TRUE(CheckTextTensors(*sliced).ok());
    const TextConfig& text = sliced->header().text;
    EXPECT_EQ(text.num_layers(), 8u);
    EXPECT_EQ(text.num_kv_shared_layers, 3u);
    EXPECT_EQ(text.layers[3].ffn_width(), 96u);
    const uint32_t kept[] = {0, 1, 2, 3, 4, 5, 7, 9};
    for (const TensorInfo& tensor : sliced->tensors()) {
      std::string whole_name = tensor.name;
      if (tensor.name.starts_with("layers.")) {
        const size_t layer = static_cast<size_t>(tensor.name[7] - '0');
        whole_name.replace(7, 1, std::to_string(kept[layer]));
      }
      const TensorInfo* other = whole->FindTensor(whole_name);
      ASSERT_NE(other, nullptr) << whole_name;
      EXPECT_EQ(tensor.dtype, other->dtype) << tensor.name;
      const auto [elements, scales] = TensorBytes(*sliced, tensor.name);
      const auto [whole_elements, whole_scales] = TensorBytes(*whole, whole_name);
      if (tensor.name == "embed_tokens_per_layer" || tensor.name == "per_layer_model_projection") {
        // Spans of the kept layers, in order; the PLE table has a record per token.
        const size_t records = tensor.name == "embed_tokens_per_layer" ? tensor.shape[0] : 1;
        const size_t span = elements.size() / records / 8;
        for (size_t r = 0; r < records; ++r) {
          for (size_t l = 0; l < 8; ++l) {
            EXPECT_TRUE(elements.compare((r * 8 + l) * span, span, whole_elements,
                                         (r * 10 + kept[l]) * span, span) == 0);
          }
        }
        continue;
      }
      EXPECT_TRUE(whole_elements.starts_with(elements)) << tensor.name;
      EXPECT_TRUE(whole_scales.starts_with(scales)) << tensor.name;
    }
  }
}

TEST_F(PackTest, ASubModelKeepsItsOwnNameAndTheShellsInside) {
  WriteCheckpoint();
  WriteTextFile(folder_ / "slice.json", kSlice);
  WriteTextFile(
      folder_ / "thin.json",
      R"({"name": "thin", "skip_layers": [6, 8], "ffn": [64, 32, 64, 32, 32, 32, 32, 32]})");
  options_.add_slices = {folder_ / "thin.json"};
  options_.slice = folder_ / "slice.json";
  const auto reader = RunAndOpen();
  ASSERT_NE(reader, nullptr);
  const HeaderFields& header = reader->header();
  ASSERT_EQ(header.slices.size(), 2u);
  EXPECT_EQ(header.slices[0].name, "thin");
  EXPECT_EQ(header.slices[1].name, "mine");
  EXPECT_THAT(header.text.layers[1].shell_ends, ::testing::ElementsAre(32, 128));
  EXPECT_THAT(header.provenance.quantisation, HasSubstr("slice mine"));
}

TEST_F(PackTest, RefusesSlicesBeforeAnythingIsWritten) {
  WriteCheckpoint();
  options_.slice = "E2B";
  ExpectFails(StatusCode::kNotFound, "E2B");
  WriteTextFile(folder_ / "bad.json", R"({"name": "bad", "ffn": [64]})");
  options_.slice = "";
  options_.add_slices = {folder_ / "bad.json"};
  ExpectFails(StatusCode::kInvalidArgument, "bad.json");
}

// ---- Towers ----

class PackTowersTest : public PackTest {
 protected:
  PackTowersTest() {
    tiny_.vocab_size = 160;
    tiny_.ple_vocab_size = 128;
    WriteCheckpoint();
    tensors_ = TinyCheckpoint(tiny_, "model.language_model.");
    config_ = {{"model_type", "gemma3n"},
               {"text_config", TinyConfigJson(tiny_)},
               {"vision_config", {{"vocab_offset", 128}, {"vocab_size", 16}}},
               {"audio_config", {{"vocab_offset", 144}, {"vocab_size", 16}}},
               {"boi_token_id", 120},
               {"eoi_token_id", 128},
               {"image_token_id", 129},
               {"boa_token_id", 121},
               {"eoa_token_id", 144},
               {"audio_token_id", 145}};
    tensors_.push_back({"model.vision_tower.timm_model.conv_stem.conv.weight",
                        "F32",
                        {2, 3, 1, 1},
                        {1, 2, 3, 4, 5, 6}});
    tensors_.push_back(
        {"model.vision_tower.timm_model.conv_stem.conv.bias", "F32", {2}, {0.1f, 2}});
    tensors_.push_back({"model.embed_vision.embedding.weight", "F32", {1, 2}, {7, 8}});
    tensors_.push_back(
        {"model.audio_tower.conformer.0.attention.attn.per_dim_scale", "F32", {1}, {9}});
    tensors_.push_back({"model.embed_audio.embedding.weight", "F32", {1, 2}, {1.00390625f, 11}});
    RewriteCheckpoint();
  }
};

TEST_F(PackTowersTest, StoresTheTowersUnderTheirNames) {
  options_.formats.quant = DType::kQ4B32;
  const auto reader = RunAndOpen();
  ASSERT_NE(reader, nullptr);
  const TensorInfo* conv = reader->FindTensor("vision_tower.timm_model.conv_stem.conv");
  ASSERT_NE(conv, nullptr);
  EXPECT_EQ(conv->section, SectionKind::kVision);
  EXPECT_EQ(conv->dtype, DType::kBF16);
  EXPECT_THAT(conv->shape, ::testing::ElementsAre(2, 3, 1, 1));
  EXPECT_EQ(reader->FindTensor("vision_tower.timm_model.conv_stem.conv.bias")->dtype, DType::kF32);
  EXPECT_EQ(reader->FindTensor("embed_vision.embedding")->section, SectionKind::kVision);
  EXPECT_EQ(reader->FindTensor("embed_audio.embedding")->section, SectionKind::kAudio);
  EXPECT_NE(reader->FindTensor("audio_tower.conformer.0.attention.attn.per_dim_scale"), nullptr);
  EXPECT_TRUE(reader->header().vision.present);
  EXPECT_EQ(reader->header().special_tokens.audio_soft, 145);
  // 1.00390625 needs 9 bits: the default format rounds, f32 does not.
  const auto [rounded, unused] = TensorBytes(*reader, "embed_audio.embedding");
  EXPECT_EQ(rounded.size(), 4u);
  options_.formats.tower_quant = DType::kF32;
  const auto exact = RunAndOpen();
  ASSERT_NE(exact, nullptr);
  float value = 0.0f;
  std::memcpy(&value, TensorBytes(*exact, "embed_audio.embedding").first.data(), sizeof value);
  EXPECT_EQ(value, 1.00390625f);
}

TEST_F(PackTowersTest, LeavesOutATowerWithoutTensors) {
  std::erase_if(tensors_, [](const HfTensor& tensor) {
    return tensor.name.find("audio") != std::string::npos;
  });
  RewriteCheckpoint();
  const auto reader = RunAndOpen();
  ASSERT_NE(reader, nullptr);
  EXPECT_TRUE(reader->header().vision.present);
  EXPECT_FALSE(reader->header().audio.present);
  EXPECT_EQ(reader->FindSection(SectionKind::kAudio), nullptr);
  EXPECT_THAT(warnings_, Contains(HasSubstr("audio tower is left out")));
}

TEST_F(PackTowersTest, RefusesTowerValuesBeyondHalfPrecision) {
  Tensor("model.embed_vision.embedding.weight").values[0] = 98000.0f;
  RewriteCheckpoint();
  options_.formats.tower_quant = DType::kF16;
  ExpectFails(StatusCode::kBadModel, "model.embed_vision.embedding.weight");
  options_.formats.tower_quant = DType::kBF16;
  EXPECT_TRUE(Run().ok());
}

}  // namespace
}  // namespace nestling
