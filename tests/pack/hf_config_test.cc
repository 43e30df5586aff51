// SPDX-License-Identifier: Apache-2.0
#include "pack/hf_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "tests/support/hf_folder.h"

namespace nestling {
namespace {

using Json = nlohmann::json;
using testing::TemporaryFolder;
using testing::WriteTextFile;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::SizeIs;

constexpr const char* kCases[] = {"text-e2b-like", "text-e4b-matformer", "vision", "audio",
                                  "multimodal"};

std::string ReadData(const std::string& name) {
  std::ifstream file(std::string(NESTLING_SOURCE_DIR) + "/tests/pack/data/" + name);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

// Every field as text, so that two headers can be compared.
std::string Describe(const HeaderFields& h) {
  std::ostringstream out;
  const TextConfig& t = h.text;
  out << t.vocab_size << ' ' << t.ple_vocab_size << ' ' << t.hidden_size << ' ' << t.ple_dim << ' '
      << t.num_heads << ' ' << t.num_kv_heads << ' ' << t.head_dim << ' ' << t.num_kv_shared_layers
      << ' ' << t.sliding_window << ' ' << t.max_position_embeddings << ' ' << t.rope_theta_full
      << ' ' << t.rope_theta_sliding << ' ' << t.rms_norm_eps << ' ' << t.final_logit_softcap << ' '
      << t.altup_num_inputs << ' ' << t.altup_active_idx << ' ' << t.altup_correct_scale << ' '
      << t.laurel_rank << '\n';
  for (const LayerConfig& layer : t.layers) {
    out << static_cast<int>(layer.type) << ' ' << layer.activation_sparsity;
    for (const uint32_t end : layer.shell_ends) out << ' ' << end;
    out << '\n';
  }
  const GenerationConfig& g = h.generation;
  out << g.do_sample << ' ' << g.temperature << ' ' << g.top_k << ' ' << g.top_p;
  for (const int32_t stop : g.stop_tokens) out << ' ' << stop;
  const SpecialTokens& s = h.special_tokens;
  for (const int32_t id : {s.bos, s.eos, s.pad, s.unk, s.start_of_image, s.end_of_image,
                           s.image_soft, s.start_of_audio, s.end_of_audio, s.audio_soft}) {
    out << ' ' << id;
  }
  for (const TowerConfig* tower : {&h.vision, &h.audio}) {
    out << '\n' << tower->present << ' ' << tower->vocab_offset << ' ' << tower->vocab_size << ' '
        << tower->soft_tokens << '\n' << tower->config_json << '\n' << tower->preprocessor_json;
  }
  out << '\n' << h.chat_template;
  return out.str();
}

Result<HeaderFields> Parse(const Json& json) { return ParseHfConfig(json.dump(), false, {}); }

TEST(HfConfigTest, OldAndNewKeysDescribeTheSameModel) {
  for (const char* name : kCases) {
    SCOPED_TRACE(name);
    const auto now = ParseHfConfig(ReadData(std::string(name) + "/config.json"), false, {});
    const auto old = ParseHfConfig(ReadData(std::string(name) + "/config-v4-style.json"), false, {});
    ASSERT_TRUE(now.ok()) << now.status().message();
    ASSERT_TRUE(old.ok()) << old.status().message();
    EXPECT_EQ(Describe(*now), Describe(*old));
    EXPECT_TRUE(ValidateHeaderFields(*now).ok());
  }
}

TEST(HfConfigTest, ReadsAFlatTextModel) {
  const auto fields = ParseHfConfig(ReadData("text-e2b-like/config.json"), false, {});
  ASSERT_TRUE(fields.ok());
  const TextConfig& text = fields->text;
  EXPECT_THAT(text.layers, SizeIs(30));
  EXPECT_EQ(text.first_kv_shared_layer(), 20u);
  EXPECT_EQ(text.vocab_size, 1000u);
  EXPECT_EQ(text.ple_vocab_size, 968u);
  EXPECT_EQ(text.hidden_size, 64u);
  EXPECT_EQ(text.ple_dim, 16u);
  EXPECT_EQ(text.sliding_window, 16u);
  EXPECT_EQ(text.rope_theta_full, 1e6f);
  EXPECT_EQ(text.rope_theta_sliding, 1e4f);
  EXPECT_EQ(text.layers[3].type, LayerType::kSliding);
  EXPECT_EQ(text.layers[4].type, LayerType::kFull);
  EXPECT_EQ(text.layers[9].activation_sparsity, 0.95f);
  EXPECT_EQ(text.layers[10].activation_sparsity, 0.0f);
  EXPECT_THAT(text.layers[0].shell_ends, ElementsAre(128));
  EXPECT_FALSE(fields->vision.present);
  EXPECT_EQ(fields->special_tokens.bos, 2);
  EXPECT_EQ(fields->special_tokens.eos, 1);
  EXPECT_EQ(fields->special_tokens.image_soft, -1);
  EXPECT_THAT(fields->generation.stop_tokens, ElementsAre(1));
}

TEST(HfConfigTest, ReadsTowersAndTheirTokens) {
  const auto fields = ParseHfConfig(ReadData("multimodal/config.json"), false, {});
  ASSERT_TRUE(fields.ok());
  EXPECT_TRUE(fields->vision.present);
  EXPECT_EQ(fields->vision.vocab_offset, 600u);
  EXPECT_EQ(fields->vision.vocab_size, 24u);
  EXPECT_EQ(fields->vision.soft_tokens, 16u);
  EXPECT_TRUE(fields->audio.present);
  EXPECT_EQ(fields->audio.vocab_offset, 624u);
  EXPECT_EQ(fields->audio.soft_tokens, 20u);
  EXPECT_EQ(fields->special_tokens.start_of_image, 597);
  EXPECT_EQ(fields->special_tokens.end_of_image, 600);
  EXPECT_EQ(fields->special_tokens.image_soft, 601);
  EXPECT_EQ(fields->special_tokens.start_of_audio, 598);
  EXPECT_EQ(fields->special_tokens.end_of_audio, 624);
  EXPECT_EQ(fields->special_tokens.audio_soft, 625);
  const Json vision = Json::parse(fields->vision.config_json);
  EXPECT_EQ(vision["architecture"], "mobilenetv5_300m_enc");
  EXPECT_EQ(vision["model_args"]["stem_size"], 16);
}

TEST(HfConfigTest, FillsInTheDefaultsOfTheModelFamily) {
  const auto fields = Parse({{"model_type", "gemma3n_text"}});
  ASSERT_TRUE(fields.ok()) << fields.status().message();
  const TextConfig& text = fields->text;
  EXPECT_THAT(text.layers, SizeIs(35));
  EXPECT_EQ(text.num_kv_shared_layers, 15u);
  EXPECT_EQ(text.vocab_size, 262400u);
  EXPECT_EQ(text.layers[0].ffn_width(), 16384u);
  EXPECT_EQ(text.layers[4].type, LayerType::kFull);
  EXPECT_EQ(text.layers[5].type, LayerType::kSliding);
  EXPECT_EQ(text.layers[9].activation_sparsity, 0.95f);
  EXPECT_EQ(text.layers[10].activation_sparsity, 0.0f);
  EXPECT_EQ(text.final_logit_softcap, 30.0f);
  EXPECT_TRUE(ValidateHeaderFields(*fields).ok());
}

TEST(HfConfigTest, TakesANumberOrAListPerLayer) {
  Json json = {{"model_type", "gemma3n_text"},
               {"num_hidden_layers", 3},
               {"num_kv_shared_layers", 0},
               {"intermediate_size", {32, 64, 96}},
               {"activation_sparsity_pattern", 0.5}};
  const auto fields = Parse(json);
  ASSERT_TRUE(fields.ok()) << fields.status().message();
  EXPECT_EQ(fields->text.layers[1].ffn_width(), 64u);
  EXPECT_EQ(fields->text.layers[2].activation_sparsity, 0.5f);
  json["intermediate_size"] = {32, 64};
  EXPECT_THAT(Parse(json).status().message(), HasSubstr("has 2 entries, want 3"));
}

TEST(HfConfigTest, KeepsANullSoftcapApartFromAMissingOne) {
  const auto fields = Parse({{"model_type", "gemma3n_text"}, {"final_logit_softcapping", nullptr}});
  ASSERT_TRUE(fields.ok());
  EXPECT_EQ(fields->text.final_logit_softcap, 0.0f);
}

TEST(HfConfigTest, ReadsTheFlatFormOfRopeParameters) {
  const auto fields =
      Parse({{"model_type", "gemma3n_text"},
             {"rope_parameters", {{"rope_type", "default"}, {"rope_theta", 5000.0}}}});
  ASSERT_TRUE(fields.ok());
  EXPECT_EQ(fields->text.rope_theta_full, 5000.0f);
  EXPECT_EQ(fields->text.rope_theta_sliding, 1e4f);
}

TEST(HfConfigTest, RefusesWhatWouldChangeTheArithmetic) {
  const std::pair<Json, const char*> cases[] = {
      {{{"attn_logit_softcapping", 50.0}}, "attn_logit_softcapping"},
      {{{"use_bidirectional_attention", true}}, "use_bidirectional_attention"},
      {{{"quantization_config", {{"bits", 4}}}}, "quantization_config"},
      {{{"num_experts", 8}}, "num_experts"},
      {{{"tie_word_embeddings", false}}, "tie_word_embeddings"},
      {{{"attention_bias", true}}, "attention_bias"},
      {{{"hidden_activation", "silu"}}, "hidden_activation"},
      {{{"rope_scaling", {{"rope_type", "yarn"}, {"factor", 4.0}}}}, "rope_scaling"},
      {{{"rope_scaling", {{"rope_type", "default"}, {"factor", 4.0}}}}, "factor"},
      {{{"rope_parameters", {{"full_attention", {{"rope_type", "linear"}}}}}}, "rope_type"},
      {{{"rope_parameters", {{"chunked_attention", {{"rope_theta", 1.0}}}}}}, "chunked_attention"},
      {{{"layer_types", Json::array({"full_attention", "chunked_attention"})},
        {"num_hidden_layers", 2}},
       "chunked_attention"},
  };
  for (const auto& [extra, message] : cases) {
    Json json = {{"model_type", "gemma3n_text"}};
    json.update(extra);
    const auto fields = Parse(json);
    EXPECT_FALSE(fields.ok()) << extra;
    EXPECT_THAT(fields.status().message(), HasSubstr(message)) << extra;
  }
}

TEST(HfConfigTest, RefusesUnknownKeysOfTheOuterObjectToo) {
  Json json = Json::parse(ReadData("multimodal/config.json"));
  json["depth_config"] = {{"hidden_size", 1}};
  EXPECT_EQ(Parse(json).status().code(), StatusCode::kUnsupported);
  json.erase("depth_config");
  json["text_config"]["router_jitter"] = 0.1;
  EXPECT_THAT(Parse(json).status().message(), HasSubstr("text_config: unknown key"));
}

TEST(HfConfigTest, IgnoresUnknownKeysWhenTold) {
  std::vector<std::string> warnings;
  const auto fields =
      ParseHfConfig(R"({"model_type": "gemma3n_text", "mystery": 1, "off": false, "none": null})",
                    true, [&](const std::string& text) { warnings.push_back(text); });
  ASSERT_TRUE(fields.ok());
  ASSERT_THAT(warnings, SizeIs(1));  // what is off needs no warning
  EXPECT_THAT(warnings[0], HasSubstr("mystery"));
}

TEST(HfConfigTest, AcceptsKeysWithoutEffect) {
  const auto fields = Parse({{"model_type", "gemma3n_text"},
                             {"query_pre_attn_scalar", 256},
                             {"_name_or_path", "somewhere"},
                             {"torch_dtype", "bfloat16"},
                             {"attention_dropout", 0.0},
                             {"altup_coef_clip", 120.0}});
  EXPECT_TRUE(fields.ok()) << fields.status().message();
}

TEST(HfConfigTest, RefusesOtherModelsAndWrongTypes) {
  EXPECT_EQ(Parse({{"model_type", "gemma3_text"}}).status().code(), StatusCode::kUnsupported);
  EXPECT_EQ(Parse({{"hidden_size", 64}}).status().code(), StatusCode::kUnsupported);
  EXPECT_EQ(ParseHfConfig("[]", false, {}).status().code(), StatusCode::kBadModel);
  const Json wrong[] = {{{"hidden_size", -1}},
                        {{"hidden_size", "64"}},
                        {{"hidden_size", 1e30}},
                        {{"num_hidden_layers", 0}},
                        {{"num_hidden_layers", 4000000000u}},
                        {{"intermediate_size", 0}},
                        {{"intermediate_size", "wide"}},
                        {{"activation_sparsity_pattern", 1.0}},
                        {{"activation_sparsity_pattern", -0.5}},
                        {{"layer_types", "full_attention"}},
                        {{"rope_theta", "big"}},
                        {{"rope_parameters", 3}},
                        {{"bos_token_id", -2}},
                        {{"eos_token_id", "x"}},
                        {{"eos_token_id", {1, -1}}}};
  for (const Json& extra : wrong) {
    Json json = {{"model_type", "gemma3n_text"}};
    json.update(extra);
    EXPECT_EQ(Parse(json).status().code(), StatusCode::kBadModel) << extra;
  }
}

TEST(GenerationConfigTest, ReadsWhatAnInstructionModelHas) {
  HeaderFields fields;
  fields.generation.stop_tokens = {1};
  const Status status = ParseGenerationConfig(
      R"({"do_sample": true, "temperature": 1.0, "top_k": 64, "top_p": 0.95,
          "eos_token_id": [1, 106], "bos_token_id": 2, "cache_implementation": "hybrid"})",
      &fields);
  ASSERT_TRUE(status.ok()) << status.message();
  EXPECT_TRUE(fields.generation.do_sample);
  EXPECT_EQ(fields.generation.top_k, 64u);
  EXPECT_EQ(fields.generation.top_p, 0.95f);
  EXPECT_THAT(fields.generation.stop_tokens, ElementsAre(1, 106));
}

TEST(GenerationConfigTest, IsGreedyWhenTheFileDoesNotSay) {
  HeaderFields fields;
  fields.generation.stop_tokens = {1};
  ASSERT_TRUE(ParseGenerationConfig(R"({"eos_token_id": 7})", &fields).ok());
  EXPECT_FALSE(fields.generation.do_sample);
  EXPECT_EQ(fields.generation.top_k, 0u);
  EXPECT_THAT(fields.generation.stop_tokens, ElementsAre(7, 1));
}

TEST(GenerationConfigTest, RefusesImpossibleValues) {
  for (const char* json : {R"({"top_p": 0.0})", R"({"top_p": 1.5})", R"({"temperature": -1.0})",
                           R"({"top_k": -1})", R"({"do_sample": "yes"})", R"([])"}) {
    HeaderFields fields;
    EXPECT_EQ(ParseGenerationConfig(json, &fields).code(), StatusCode::kBadModel) << json;
  }
}

TEST(HfFolderTest, TakesTheChatTemplateFromWhereverItIs) {
  const TemporaryFolder folder;
  WriteTextFile(folder / "config.json", R"({"model_type": "gemma3n_text"})");
  const auto chat_template = [&] {
    const auto fields = ReadHfFolder(folder.path(), false, {});
    return fields.ok() ? fields->chat_template : fields.status().message();
  };
  EXPECT_EQ(chat_template(), "");
  WriteTextFile(folder / "tokenizer_config.json",
                R"({"chat_template": [{"name": "tool_use", "template": "no"},
                                      {"name": "default", "template": "list"}]})");
  EXPECT_EQ(chat_template(), "list");
  WriteTextFile(folder / "tokenizer_config.json", R"({"chat_template": "string"})");
  EXPECT_EQ(chat_template(), "string");
  WriteTextFile(folder / "chat_template.json", R"({"chat_template": "own file"})");
  EXPECT_EQ(chat_template(), "own file");
  WriteTextFile(folder / "chat_template.jinja", "{{ bos_token }}");
  EXPECT_EQ(chat_template(), "{{ bos_token }}");
}

TEST(HfFolderTest, StoresThePreprocessorWithTheTowers) {
  const TemporaryFolder folder;
  WriteTextFile(folder / "config.json", ReadData("multimodal/config.json"));
  WriteTextFile(folder / "preprocessor_config.json", R"({"size": {"height": 192, "width": 192}})");
  WriteTextFile(folder / "generation_config.json", R"({"eos_token_id": [1, 106]})");
  const auto fields = ReadHfFolder(folder.path(), false, {});
  ASSERT_TRUE(fields.ok()) << fields.status().message();
  EXPECT_EQ(Json::parse(fields->vision.preprocessor_json)["size"]["height"], 192);
  EXPECT_EQ(fields->audio.preprocessor_json, fields->vision.preprocessor_json);
  EXPECT_THAT(fields->generation.stop_tokens, ElementsAre(1, 106));
}

TEST(HfFolderTest, SaysThatConfigJsonIsMissing) {
  const TemporaryFolder folder;
  EXPECT_EQ(ReadHfFolder(folder.path(), false, {}).status().code(), StatusCode::kNotFound);
}

}  // namespace
}  // namespace nestling
