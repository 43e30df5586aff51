// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <limits>
#include <random>

#include "base/math.h"
#include "container/reader.h"
#include "model/weights.h"
#include "pack/gguf_config.h"
#include "pack/pack.h"
#include "pack/quantise.h"
#include "tests/support/dequantise_container.h"
#include "tests/support/gguf_builder.h"
#include "tests/support/hf_folder.h"
#include "text/tokenizer.h"

namespace nestling {
namespace {

using testing::Bytes;
using ::testing::Contains;
using ::testing::ElementsAre;
using testing::GgufBuilder;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::TemporaryFolder;
using testing::TinyGguf;
using testing::TinyModelOptions;
using testing::WriteTextFile;

constexpr uint32_t kQ4_0 = 2;

// A GGUF file in a folder and what packing it gives.
class GgufPackTest : public ::testing::Test {
 protected:
  GgufPackTest() {
    tiny_.shell_ends = {128};
    gguf_ = TinyGguf(tiny_);
    options_.source = folder_ / "model.gguf";
    options_.output = output_folder_ / "model.nest";
    options_.formats.quant = DType::kF32;
    options_.jobs = 2;
  }

  Status Run() {
    WriteTextFile(options_.source, gguf_.Build());
    warnings_.clear();
    return Pack(options_, {}, [this](const std::string& text) { warnings_.push_back(text); });
  }

  std::unique_ptr<ContainerReader> RunAndOpen() {
    const Status status = Run();
    EXPECT_TRUE(status.ok()) << status.message();
    if (!status.ok()) return nullptr;
    auto reader = ContainerReader::Open(options_.output);
    EXPECT_TRUE(reader.ok()) << reader.status().message();
    return reader.ok() ? std::move(reader).value() : nullptr;
  }

  void ExpectFails(StatusCode code, const std::string& message) {
    const Status status = Run();
    EXPECT_EQ(status.code(), code) << status.message();
    EXPECT_THAT(status.message(), HasSubstr(message));
    EXPECT_TRUE(std::filesystem::is_empty(output_folder_.path()));
  }

  // Ids of the PLE table's 300 rows, and more that stand for soft tokens.
  void AddVocabulary() {
    tiny_.ple_vocab_size = 300;
    tiny_.vocab_size = 320;
    gguf_ = TinyGguf(tiny_);
    std::vector<std::string> tokens = {"<pad>",  "<eos>", "<bos>", "<unk>", "<end_of_turn>", "  ",
                                       "\u2581", "h",     "i",     "hi",    "\u2581hi"};
    std::vector<int32_t> types = {3, 3, 3, 2, 3, 4, 1, 1, 1, 1, 1};
    for (int byte = 0; byte < 256; ++byte) {
      char name[8];
      std::snprintf(name, sizeof name, "<0x%02X>", static_cast<unsigned>(byte));
      tokens.push_back(name);
      types.push_back(6);
    }
    while (tokens.size() < tiny_.vocab_size) {
      tokens.push_back("[PAD" + std::to_string(tokens.size()) + "]");
      types.push_back(5);
    }
    std::vector<float> scores;
    for (size_t i = 0; i < tokens.size(); ++i) scores.push_back(i < 9 ? -100.0f : -1.0f);
    gguf_.SetString("tokenizer.ggml.model", "llama");
    gguf_.SetStrings("tokenizer.ggml.tokens", tokens);
    gguf_.SetArray("tokenizer.ggml.scores", GgufBuilder::kFloat32, scores);
    gguf_.SetArray("tokenizer.ggml.token_type", GgufBuilder::kInt32, types);
    gguf_.SetBool("tokenizer.ggml.add_space_prefix", false);
  }

  TemporaryFolder folder_;
  TemporaryFolder output_folder_;
  TinyModelOptions tiny_;
  GgufBuilder gguf_;
  PackOptions options_;
  std::vector<std::string> warnings_;
};

// The sections' checksums say whether all weights are the same.
std::vector<uint64_t> WeightsOf(const ContainerReader& reader) {
  std::vector<uint64_t> hashes;
  for (const SectionKind kind : {SectionKind::kText, SectionKind::kEmbed, SectionKind::kPle}) {
    const SectionInfo* section = reader.FindSection(kind);
    hashes.push_back(section == nullptr ? 0 : section->xxh3);
  }
  return hashes;
}

TEST_F(GgufPackTest, GivesTheContainerOfTheSameWeightsInHuggingFaceFormat) {
  const TemporaryFolder hf;
  testing::WriteHfFolder(hf.path(), testing::TinyConfigJson(tiny_), testing::TinyCheckpoint(tiny_));
  for (const DType quant : {DType::kF32, DType::kQ4B32}) {
    options_.formats.quant = quant;
    const auto from_gguf = RunAndOpen();
    ASSERT_NE(from_gguf, nullptr);
    PackOptions options = options_;
    options.source = hf.path();
    options.output = output_folder_ / "hf.nest";
    ASSERT_TRUE(Pack(options, {}, {}).ok());
    const auto from_hf = ContainerReader::Open(options.output);
    ASSERT_TRUE(from_hf.ok());
    EXPECT_EQ(WeightsOf(*from_gguf), WeightsOf(**from_hf));
    const TextConfig& got = from_gguf->header().text;
    const TextConfig& want = (*from_hf)->header().text;
    EXPECT_EQ(got.vocab_size, want.vocab_size);
    EXPECT_EQ(got.ple_vocab_size, want.ple_vocab_size);
    EXPECT_EQ(got.num_heads, want.num_heads);
    EXPECT_EQ(got.num_kv_heads, want.num_kv_heads);
    EXPECT_EQ(got.head_dim, want.head_dim);
    EXPECT_EQ(got.num_kv_shared_layers, want.num_kv_shared_layers);
    EXPECT_EQ(got.sliding_window, want.sliding_window);
    EXPECT_EQ(got.max_position_embeddings, want.max_position_embeddings);
    EXPECT_EQ(got.rope_theta_full, want.rope_theta_full);
    EXPECT_EQ(got.rope_theta_sliding, want.rope_theta_sliding);
    EXPECT_EQ(got.rms_norm_eps, want.rms_norm_eps);
    EXPECT_EQ(got.final_logit_softcap, want.final_logit_softcap);
    EXPECT_EQ(got.altup_num_inputs, want.altup_num_inputs);
    EXPECT_EQ(got.laurel_rank, want.laurel_rank);
    ASSERT_EQ(got.num_layers(), want.num_layers());
    for (uint32_t i = 0; i < got.num_layers(); ++i) {
      EXPECT_EQ(got.layers[i].type, want.layers[i].type);
      EXPECT_EQ(got.layers[i].shell_ends, want.layers[i].shell_ends);
      EXPECT_EQ(got.layers[i].activation_sparsity, want.layers[i].activation_sparsity);
    }
    EXPECT_EQ(from_gguf->header().provenance.source, "model.gguf");
  }
}

TEST_F(GgufPackTest, CutsTheZeroRowsThatConvertersAppendToThePleTable) {
  const auto plain = RunAndOpen();
  ASSERT_NE(plain, nullptr);
  auto& embedding = gguf_.Find("token_embd.weight");
  auto& table = gguf_.Find("per_layer_token_embd.weight");
  const auto pad = [](GgufBuilder::Tensor* tensor, uint64_t rows) {
    tensor->shape[0] = rows;
    tensor->data.resize(rows * tensor->shape[1] * sizeof(float), '\0');
  };
  pad(&embedding, 96 + 256);
  pad(&table, 96 + 256);
  const auto padded = RunAndOpen();
  ASSERT_NE(padded, nullptr);
  EXPECT_EQ(padded->header().text.vocab_size, 352u);
  EXPECT_EQ(padded->header().text.ple_vocab_size, 96u);
  EXPECT_EQ(WeightsOf(*padded)[2], WeightsOf(*plain)[2]);
  // One number in the last 256 rows, and they are rows like all others.
  table.data[table.data.size() - 2] = 0x40;
  const auto full = RunAndOpen();
  ASSERT_NE(full, nullptr);
  EXPECT_EQ(full->header().text.ple_vocab_size, 352u);
}

TEST_F(GgufPackTest, TakesNumbersForAllLayersOrOneForEach) {
  const auto arrays = RunAndOpen();
  ASSERT_NE(arrays, nullptr);
  gguf_.SetUint("gemma3n.feed_forward_length", 128);
  gguf_.SetArray<uint32_t>("gemma3n.attention.head_count", GgufBuilder::kUint32,
                           std::vector<uint32_t>(10, 4));
  gguf_.SetArray<int32_t>("gemma3n.attention.head_count_kv", GgufBuilder::kInt32,
                          std::vector<int32_t>(10, 2));
  gguf_.SetUint("gemma3n.attention.sliding_window_pattern", 5);
  const auto scalars = RunAndOpen();
  ASSERT_NE(scalars, nullptr);
  EXPECT_EQ(scalars->content_hash(), arrays->content_hash());
  EXPECT_EQ(scalars->header().text.layers[4].type, LayerType::kFull);
  EXPECT_EQ(scalars->header().text.layers[5].type, LayerType::kSliding);
  gguf_.Remove("gemma3n.attention.sliding_window_pattern");
  const auto absent = RunAndOpen();
  ASSERT_NE(absent, nullptr);
  EXPECT_EQ(absent->content_hash(), arrays->content_hash());
  gguf_.SetUint("gemma3n.attention.sliding_window_pattern", 6);
  EXPECT_NE(RunAndOpen(), nullptr);
  EXPECT_THAT(warnings_, Contains(HasSubstr("sliding_window_pattern")));
}

TEST_F(GgufPackTest, TheSlidingPatternMayBeAnother) {
  std::vector<uint8_t> sliding(10, 1);
  sliding[1] = sliding[7] = 0;
  gguf_.SetArray("gemma3n.attention.sliding_window_pattern", GgufBuilder::kBool, sliding);
  const auto reader = RunAndOpen();
  ASSERT_NE(reader, nullptr);
  for (uint32_t i = 0; i < 10; ++i) {
    EXPECT_EQ(reader->header().text.layers[i].type,
              i == 1 || i == 7 ? LayerType::kFull : LayerType::kSliding);
  }
}

TEST_F(GgufPackTest, ASparsityIsTheShareBelowTheCut) {
  // Cuts in standard deviations; -inf, zero and less mean a dense layer.
  const float infinity = std::numeric_limits<float>::infinity();
  gguf_.SetArray<float>("gemma3n.activation_sparsity_scale", GgufBuilder::kFloat32,
                        {1.6448534f, 1.2815516f, 0.6744898f, -infinity, 0.0f, -1.0f, -infinity,
                         -infinity, -infinity, 3.0902323f});
  const auto reader = RunAndOpen();
  ASSERT_NE(reader, nullptr);
  const auto& layers = reader->header().text.layers;
  EXPECT_EQ(layers[0].activation_sparsity, 0.95f);
  // The slope of the distribution turns the last bit of a cut into a few of the share's.
  EXPECT_NEAR(layers[1].activation_sparsity, 0.9f, 1e-7f);
  EXPECT_NEAR(layers[2].activation_sparsity, 0.75f, 1e-7f);
  for (const size_t dense : {3, 4, 5, 6}) EXPECT_EQ(layers[dense].activation_sparsity, 0.0f);
  EXPECT_NEAR(layers[9].activation_sparsity, 0.999f, 1e-7f);
  for (const float bad : {std::nanf(""), infinity}) {
    gguf_.SetArray("gemma3n.activation_sparsity_scale", GgufBuilder::kFloat32,
                   std::vector<float>(10, bad));
    std::filesystem::remove(options_.output);
    ExpectFails(StatusCode::kBadModel, "activation_sparsity");
  }
}

TEST_F(GgufPackTest, ReadsWhatIsNotTheDefault) {
  gguf_.SetFloat("gemma3n.rope.freq_base", 2e6f);
  gguf_.SetFloat("gemma3n.rope.freq_base_swa", 5e4f);
  gguf_.SetFloat("gemma3n.final_logit_softcapping", 20.0f);
  gguf_.SetUint("tokenizer.ggml.eos_token_id", 7);
  gguf_.SetUint("tokenizer.ggml.eot_token_id", 9);
  gguf_.SetUint("tokenizer.ggml.unknown_token_id", 3);
  gguf_.SetUint("tokenizer.ggml.padding_token_id", 5);
  gguf_.SetString("tokenizer.chat_template", "{{ messages }}");
  gguf_.Set("general.sampling.top_k", GgufBuilder::kInt32, Bytes<int32_t>(64));
  gguf_.SetFloat("general.sampling.top_p", 0.95f);
  const auto reader = RunAndOpen();
  ASSERT_NE(reader, nullptr);
  const HeaderFields& header = reader->header();
  EXPECT_EQ(header.text.rope_theta_full, 2e6f);
  EXPECT_EQ(header.text.rope_theta_sliding, 5e4f);
  EXPECT_EQ(header.text.final_logit_softcap, 20.0f);
  EXPECT_EQ(header.special_tokens.eos, 7);
  EXPECT_EQ(header.special_tokens.unk, 3);
  EXPECT_EQ(header.special_tokens.pad, 5);
  EXPECT_THAT(header.generation.stop_tokens, ElementsAre(7, 9));
  EXPECT_TRUE(header.generation.do_sample);
  EXPECT_EQ(header.generation.top_k, 64u);
  EXPECT_EQ(header.generation.top_p, 0.95f);
  EXPECT_EQ(header.chat_template, "{{ messages }}");
}

TEST_F(GgufPackTest, RefusesConfigurationsThatItDoesNotUnderstand) {
  const GgufBuilder good = gguf_;
  gguf_.SetString("general.architecture", "llama");
  ExpectFails(StatusCode::kUnsupported, "want \"gemma3n\"");
  gguf_.SetString("general.architecture", "clip");
  ExpectFails(StatusCode::kUnsupported, "mmproj");
  gguf_ = good;
  gguf_.SetString("gemma3n.rope.scaling.type", "yarn");
  ExpectFails(StatusCode::kUnsupported, "gemma3n.rope.scaling.type");
  options_.allow_unknown_config = true;
  EXPECT_TRUE(Run().ok());
  EXPECT_THAT(warnings_, Contains(HasSubstr("gemma3n.rope.scaling.type")));
  std::filesystem::remove(options_.output);
  options_.allow_unknown_config = false;
  gguf_ = good;
  gguf_.SetUint("gemma3n.attention.value_length", 8);
  ExpectFails(StatusCode::kUnsupported, "value_length\" is 8, want 16");
  gguf_ = good;
  gguf_.SetArray<uint32_t>("gemma3n.attention.head_count", GgufBuilder::kUint32,
                           {4, 4, 4, 4, 4, 4, 4, 4, 4, 2});
  ExpectFails(StatusCode::kUnsupported, "want the same everywhere");
  gguf_ = good;
  gguf_.SetArray<uint32_t>("gemma3n.feed_forward_length", GgufBuilder::kUint32, {128, 128});
  ExpectFails(StatusCode::kBadModel, "is an array of 2 u32");
  gguf_ = good;
  gguf_.SetString("gemma3n.embedding_length", "wide");
  ExpectFails(StatusCode::kBadModel, "\"gemma3n.embedding_length\" is of type string");
  gguf_ = good;
  for (const uint32_t layers : {0u, 257u, UINT32_MAX}) {
    gguf_.SetUint("gemma3n.block_count", layers);
    ExpectFails(StatusCode::kBadModel, "want 1 to 256");
  }
  gguf_ = good;
  gguf_.SetUint("tokenizer.ggml.bos_token_id", 4000);
  ExpectFails(StatusCode::kBadModel, "bos");
  for (const char* key : {"embedding_length", "feed_forward_length", "activation_sparsity_scale",
                          "attention.shared_kv_layers", "attention.sliding_window"}) {
    gguf_ = good;
    gguf_.Remove(std::string("gemma3n.") + key);
    ExpectFails(StatusCode::kBadModel, key);
  }
}

TEST_F(GgufPackTest, RefusesTensorsThatDoNotFitTheConfiguration) {
  const GgufBuilder good = gguf_;
  gguf_.SetUint("gemma3n.feed_forward_length", 96);
  ExpectFails(StatusCode::kBadModel, "ffn_gate.weight\": shape [128, 64], want [96, 64]");
  gguf_ = good;
  gguf_.RemoveTensor("blk.3.ffn_up.weight");
  ExpectFails(StatusCode::kBadModel, "\"layers.3.mlp.up_proj\" is missing, want shape [128, 64]");
  gguf_ = good;
  gguf_.Find("altup_proj.weight").shape = {3 * 64, 64};
  ExpectFails(StatusCode::kBadModel, "altup_proj.weight\": shape [192, 64], want 3 matrices");
  gguf_ = good;
  gguf_.AddFloats("rope_freqs.weight", {8}, std::vector<float>(8, 1.0f));
  ExpectFails(StatusCode::kUnsupported, "rope_freqs.weight");
  gguf_ = good;
  gguf_.AddFloats("blk.03.ffn_up.weight", {8}, std::vector<float>(8, 1.0f));
  ExpectFails(StatusCode::kUnsupported, "blk.03.ffn_up.weight");
  gguf_ = good;
  gguf_.Find("blk.2.ffn_gate.weight").data.replace(8, 4, Bytes(std::nanf("")));
  ExpectFails(StatusCode::kBadModel, "blk.2.ffn_gate.weight");
}

TEST_F(GgufPackTest, AHeadOfItsOwnIsRefusedACopyOfTheEmbeddingIsNot) {
  const auto plain = RunAndOpen();
  ASSERT_NE(plain, nullptr);
  const GgufBuilder::Tensor embedding = gguf_.Find("token_embd.weight");
  gguf_.Add({.name = "output.weight", .shape = embedding.shape, .type = 0, .data = embedding.data});
  const auto tied = RunAndOpen();
  ASSERT_NE(tied, nullptr);
  EXPECT_EQ(tied->content_hash(), plain->content_hash());
  std::string& data = gguf_.Find("output.weight").data;
  std::rotate(data.begin(), data.begin() + 64 * 4, data.end());
  std::filesystem::remove(options_.output);
  ExpectFails(StatusCode::kUnsupported, "want a tied output head");
}

TEST_F(GgufPackTest, KeysAndValuesOfSharedLayersAreIgnored) {
  const auto without = RunAndOpen();
  for (int layer = 5; layer < 10; ++layer) {
    const std::string block = "blk." + std::to_string(layer) + ".";
    gguf_.AddFloats(block + "attn_k.weight", {32, 64}, std::vector<float>(2048));
    gguf_.AddFloats(block + "attn_v.weight", {32, 64}, std::vector<float>(2048));
    gguf_.AddFloats(block + "attn_k_norm.weight", {16}, std::vector<float>(16));
  }
  const auto with = RunAndOpen();
  ASSERT_TRUE(without != nullptr && with != nullptr);
  EXPECT_EQ(with->content_hash(), without->content_hash());
}

// ---- Vocabulary ----

TEST_F(GgufPackTest, TheVocabularyOfTheTextBecomesASentencePieceModel) {
  AddVocabulary();
  const auto reader = RunAndOpen();
  ASSERT_NE(reader, nullptr);
  EXPECT_THAT(warnings_, IsEmpty());
  EXPECT_THAT(reader->header().generation.stop_tokens, ElementsAre(1, 4));
  const auto section = reader->MapSection(SectionKind::kTokenizer);
  ASSERT_TRUE(section.ok());
  const auto tokenizer = Tokenizer::Create(section->bytes(), reader->header().special_tokens);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status().message();
  EXPECT_EQ((*tokenizer)->num_pieces(), 300u);
  EXPECT_THAT(*(*tokenizer)->Encode("hi hi", {}), ElementsAre(9, 10));
  EXPECT_EQ(*(*tokenizer)->PieceText(5), "\u2581\u2581");  // the file has two plain spaces
  EXPECT_THAT(*(*tokenizer)->Encode("hi  h", {}), ElementsAre(9, 5, 7));
  EXPECT_EQ((*tokenizer)->FindSpecial("<end_of_turn>"), 4);
}

TEST_F(GgufPackTest, OtherVocabulariesGiveAContainerWithoutATokenizer) {
  AddVocabulary();
  const GgufBuilder good = gguf_;
  const auto expect_none = [&](const char* warning) {
    const auto reader = RunAndOpen();
    ASSERT_NE(reader, nullptr);
    EXPECT_EQ(reader->FindSection(SectionKind::kTokenizer), nullptr);
    EXPECT_THAT(warnings_, Contains(HasSubstr(warning)));
  };
  gguf_.SetString("tokenizer.ggml.model", "gpt2");
  expect_none("not \"llama\"");
  gguf_ = good;
  gguf_.Remove("tokenizer.ggml.model");
  expect_none("no tokenizer");
  gguf_ = good;
  gguf_.SetBool("tokenizer.ggml.add_space_prefix", true);
  expect_none("add_space_prefix");
}

TEST_F(GgufPackTest, RefusesDamagedVocabularies) {
  AddVocabulary();
  const GgufBuilder good = gguf_;
  gguf_.SetArray<float>("tokenizer.ggml.scores", GgufBuilder::kFloat32, {1.0f, 2.0f});
  ExpectFails(StatusCode::kBadModel, "scores: want one for each of the 320 tokens");
  gguf_ = good;
  gguf_.Remove("tokenizer.ggml.token_type");
  ExpectFails(StatusCode::kBadModel, "token_type: want one");
  gguf_ = good;
  gguf_.SetUint("tokenizer.ggml.tokens", 3);
  ExpectFails(StatusCode::kBadModel, "want an array of strings");
  for (const int32_t type : {0, 7, -1}) {
    gguf_ = good;
    gguf_.SetArray("tokenizer.ggml.token_type", GgufBuilder::kInt32,
                   std::vector<int32_t>(320, type));
    ExpectFails(StatusCode::kBadModel, "want a score and a type of 1 to 6");
  }
  gguf_ = good;
  gguf_.SetArray("tokenizer.ggml.scores", GgufBuilder::kFloat32,
                 std::vector<float>(320, std::nanf("")));
  ExpectFails(StatusCode::kBadModel, "tokenizer");
  gguf_ = good;
  gguf_.SetStrings("tokenizer.ggml.tokens", std::vector<std::string>(320, ""));
  ExpectFails(StatusCode::kBadModel, "tokenizer");
}

// ---- Q4_0 ----

// Blocks as llama.cpp's quantiser makes them: the element of largest magnitude has the code -8, and
// the scale, f16, the sign that this needs.
std::string Q4_0Blocks(size_t num_blocks, uint32_t seed) {
  std::mt19937 random(seed);
  std::string data;
  for (size_t b = 0; b < num_blocks; ++b) {
    const float scale = (random() % 2 == 0 ? 0.01f : -0.01f) *
                        (1.0f + static_cast<float>(random() % 1000) * 0.001f);
    data += Bytes(FloatToHalf(scale));
    std::string codes(16, '\0');
    // Sums of four: about normal, as weights are.
    const auto code = [&random] {
      const uint32_t sum = random() % 5 + random() % 5 + random() % 5 + random() % 5;
      return static_cast<uint32_t>(std::min<uint32_t>(sum, 15));
    };
    for (char& byte : codes) byte = static_cast<char>(code() | code() << 4);
    codes[random() % 16] &= static_cast<char>(0xf0);  // the code -8
    data += codes;
  }
  return data;
}

TEST_F(GgufPackTest, Q4_0BecomesQ4B32WithHardlyAnyLoss) {
  for (auto& tensor : gguf_.tensors) {
    if (tensor.name.find("ffn_") == std::string::npos || tensor.shape.size() != 2) continue;
    tensor.type = kQ4_0;
    tensor.data = Q4_0Blocks(tensor.shape[0] * tensor.shape[1] / 32,
                             static_cast<uint32_t>(tensor.name.size()));
  }
  const auto exact = RunAndOpen();
  options_.formats.quant = DType::kQ4B32;
  options_.output = output_folder_ / "q4b32.nest";
  const auto quantised = RunAndOpen();
  ASSERT_TRUE(exact != nullptr && quantised != nullptr);
  const auto want_weights = ModelWeights::Create(*exact);
  const auto got_weights = ModelWeights::Create(*quantised);
  ASSERT_TRUE(want_weights.ok() && got_weights.ok());
  for (const char* name : {"mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"}) {
    double error = 0.0, power = 0.0;
    for (uint32_t layer = 0; layer < 10; ++layer) {
      const std::string tensor = names::Layer(layer, name);
      const auto want = DequantizeAll((*want_weights)->GetMatrix(tensor).value());
      const auto got = DequantizeAll((*got_weights)->GetMatrix(tensor).value());
      for (size_t i = 0; i < want.size(); ++i) {
        error += std::pow(static_cast<double>(got[i]) - want[i], 2);
        power += std::pow(static_cast<double>(want[i]), 2);
      }
    }
    const double relative = std::sqrt(error / power);
    RecordProperty(std::string(name), std::to_string(relative));
    // bf16 has 8 bits: a scale moves by at most 2^-8 of itself. Sparse layers have a down
    // projection of 8 bits per neuron: a Gaussian column spans some 3 sigma in 127 steps, 3 / 127 /
    // sqrt(12).
    EXPECT_LT(relative, name == std::string("mlp.down_proj") ? 0.0075 : 1.0 / 256) << name;
    EXPECT_GT(relative, 0.0) << name;
  }
}

}  // namespace
}  // namespace nestling
