// SPDX-License-Identifier: Apache-2.0
#include "container/header_fields.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <string>

#include "tests/support/tiny_model.h"

namespace nestling {
namespace {

using ::testing::HasSubstr;
using testing::TinyHeaderFields;
using testing::TinyModelOptions;

// 10 layers, 5..9 shared; layers 4 and 9 are full. Shells 64 and 128.
HeaderFields ValidFields() {
  TinyModelOptions options;
  options.slices.push_back({.name = "small",
                            .description = "half",
                            .skip_layers = {5, 6},
                            .ffn = {64, 64, 64, 64, 64, 64, 64, 128},
                            .effective_parameters = 1,
                            .published_accuracy = 50.0f});
  HeaderFields fields = TinyHeaderFields(options);
  fields.vision = {.present = true,
                   .vocab_offset = 96,
                   .vocab_size = 16,
                   .soft_tokens = 4,
                   .config_json = "{}",
                   .preprocessor_json = "{}"};
  fields.audio = {.present = true,
                  .vocab_offset = 112,
                  .vocab_size = 16,
                  .soft_tokens = 4,
                  .config_json = "{}",
                  .preprocessor_json = "{}"};
  fields.chat_template = "{{ messages }}";
  return fields;
}

TEST(HeaderFieldsTest, AcceptsAValidConfiguration) {
  const Status status = ValidateHeaderFields(ValidFields());
  EXPECT_TRUE(status.ok()) << status.message();
}

struct BadField {
  const char* said;  // in the message
  std::function<void(HeaderFields&)> spoil;
};

TEST(HeaderFieldsTest, NamesTheFieldThatIsOutOfRange) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float infinity = std::numeric_limits<float>::infinity();
  const BadField cases[] = {
      {"vocab_size", [](HeaderFields& f) { f.text.vocab_size = 0; }},
      {"vocab_size", [](HeaderFields& f) { f.text.vocab_size = 1u << 30; }},
      {"ple_vocab_size", [](HeaderFields& f) { f.text.ple_vocab_size = 129; }},
      {"hidden_size", [](HeaderFields& f) { f.text.hidden_size = 0; }},
      {"hidden_size", [](HeaderFields& f) { f.text.hidden_size = 0xffffffffu; }},
      {"ple_dim", [](HeaderFields& f) { f.text.ple_dim = 0; }},
      {"num_heads", [](HeaderFields& f) { f.text.num_heads = 0; }},
      {"num_kv_heads", [](HeaderFields& f) { f.text.num_kv_heads = 0; }},
      {"num_kv_heads", [](HeaderFields& f) { f.text.num_kv_heads = 5; }},
      {"num_heads", [](HeaderFields& f) { f.text.num_kv_heads = 3; }},
      {"head_dim", [](HeaderFields& f) { f.text.head_dim = 0; }},
      {"head_dim", [](HeaderFields& f) { f.text.head_dim = 15; }},
      {"sliding_window", [](HeaderFields& f) { f.text.sliding_window = 0; }},
      {"max_position_embeddings",
       [](HeaderFields& f) { f.text.max_position_embeddings = 0xffffffffu; }},
      {"rope_theta_full", [](HeaderFields& f) { f.text.rope_theta_full = 0; }},
      {"rope_theta_sliding", [=](HeaderFields& f) { f.text.rope_theta_sliding = nan; }},
      {"rms_norm_eps", [](HeaderFields& f) { f.text.rms_norm_eps = 0; }},
      {"rms_norm_eps", [=](HeaderFields& f) { f.text.rms_norm_eps = infinity; }},
      {"final_logit_softcap", [](HeaderFields& f) { f.text.final_logit_softcap = -1; }},
      {"final_logit_softcap", [=](HeaderFields& f) { f.text.final_logit_softcap = nan; }},
      {"altup_num_inputs", [](HeaderFields& f) { f.text.altup_num_inputs = 1; }},
      {"altup_num_inputs", [](HeaderFields& f) { f.text.altup_num_inputs = 9; }},
      {"altup_active_idx", [](HeaderFields& f) { f.text.altup_active_idx = 4; }},
      {"laurel_rank", [](HeaderFields& f) { f.text.laurel_rank = 0; }},
      {"layers", [](HeaderFields& f) { f.text.layers.clear(); }},
      {"layers", [](HeaderFields& f) { f.text.layers.resize(1025, f.text.layers.front()); }},
      {"layer 3: activation_sparsity",
       [](HeaderFields& f) { f.text.layers[3].activation_sparsity = 1.0f; }},
      {"layer 3: activation_sparsity",
       [=](HeaderFields& f) { f.text.layers[3].activation_sparsity = nan; }},
      {"layer 9: shells", [](HeaderFields& f) { f.text.layers[9].shell_ends.clear(); }},
      {"layer 9: shell end",
       [](HeaderFields& f) {
         f.text.layers[9].shell_ends = {64, 64};
       }},
      {"layer 9: shell end",
       [](HeaderFields& f) {
         f.text.layers[9].shell_ends = {0, 64};
       }},
      {"num_kv_shared_layers", [](HeaderFields& f) { f.text.num_kv_shared_layers = 10; }},
      {"num_kv_shared_layers", [](HeaderFields& f) { f.text.num_kv_shared_layers = 0xffffffffu; }},
      // The only full layer among the owners becomes sliding: layer 9 has no source.
      {"layer 9 shares", [](HeaderFields& f) { f.text.layers[4].type = LayerType::kSliding; }},
      {"image_soft", [](HeaderFields& f) { f.special_tokens.image_soft = 128; }},
      {"bos", [](HeaderFields& f) { f.special_tokens.bos = -2; }},
      {"stop_tokens",
       [](HeaderFields& f) {
         f.generation.stop_tokens = {1, -1};
       }},
      {"temperature", [=](HeaderFields& f) { f.generation.temperature = nan; }},
      {"temperature", [](HeaderFields& f) { f.generation.temperature = -0.5f; }},
      {"top_p", [](HeaderFields& f) { f.generation.top_p = 0.0f; }},
      {"top_p", [](HeaderFields& f) { f.generation.top_p = 1.5f; }},
      {"vision", [](HeaderFields& f) { f.vision.vocab_offset = 0xfffffff8u; }},
      {"vision", [](HeaderFields& f) { f.vision.vocab_size = 0; }},
      {"vision: soft_tokens", [](HeaderFields& f) { f.vision.soft_tokens = 0; }},
      {"overlap", [](HeaderFields& f) { f.audio.vocab_offset = 111; }},
      {"audio", [](HeaderFields& f) { f.audio.config_json = "\xff"; }},
      {"chat_template", [](HeaderFields& f) { f.chat_template = "\xc0\x80"; }},
      {"chat_template", [](HeaderFields& f) { f.chat_template = std::string("a\0b", 3); }},
      {"chat_template", [](HeaderFields& f) { f.chat_template = "\xed\xa0\x80"; }},  // surrogate
      {"chat_template", [](HeaderFields& f) { f.chat_template = "caf\xc3"; }},       // cut off
      {"two of this name", [](HeaderFields& f) { f.slices.push_back(f.slices[0]); }},
      {"slice name", [](HeaderFields& f) { f.slices[0].name = ""; }},
      {"slice name", [](HeaderFields& f) { f.slices[0].name = "a\nb"; }},
      {"accuracy", [](HeaderFields& f) { f.slices[0].published_accuracy = 101.0f; }},
  };
  for (const BadField& c : cases) {
    HeaderFields fields = ValidFields();
    c.spoil(fields);
    const Status status = ValidateHeaderFields(fields);
    EXPECT_EQ(status.code(), StatusCode::kBadModel) << "case " << &c - cases << ", " << c.said;
    EXPECT_THAT(status.message(), HasSubstr(c.said));
  }
}

TEST(HeaderFieldsTest, AcceptsEveryScriptInText) {
  HeaderFields fields = ValidFields();
  fields.chat_template = "caf\xc3\xa9 \xe4\xbd\xa0\xe5\xa5\xbd \xf0\x9f\x90\xa6";
  EXPECT_TRUE(ValidateHeaderFields(fields).ok());
}

struct BadSlice {
  const char* said;
  std::vector<uint32_t> skip_layers;
  std::vector<uint32_t> ffn;
};

TEST(SliceTest, SaysWhichRuleASliceBreaks) {
  const std::vector<uint32_t> nine(9, 64);
  const std::vector<uint32_t> ten(10, 64);
  const BadSlice cases[] = {
      {"want ascending", {6, 5}, std::vector<uint32_t>(8, 64)},
      {"want ascending", {6, 6}, std::vector<uint32_t>(8, 64)},
      {"want ascending", {10}, nine},
      {"owns keys and values", {4}, nine},
      {"owns keys and values", {0}, nine},
      {"9 FFN widths", {}, nine},
      {"10 FFN widths", {5}, ten},
      {"0 FFN widths", {5}, {}},
      {"layer 9: FFN width 96", {5}, {64, 64, 64, 64, 64, 64, 64, 64, 96}},
      {"layer 0: FFN width 0", {}, {0, 64, 64, 64, 64, 64, 64, 64, 64, 64}},
  };
  const TextConfig text = ValidFields().text;
  for (const BadSlice& c : cases) {
    SliceConfig slice;
    slice.name = "mine";
    slice.skip_layers = c.skip_layers;
    slice.ffn = c.ffn;
    const Status status = ValidateSlice(text, slice);
    EXPECT_EQ(status.code(), StatusCode::kBadModel) << "case " << &c - cases;
    EXPECT_THAT(status.message(), HasSubstr(c.said));
  }
}

TEST(SliceTest, MaySkipAllSharedLayers) {
  SliceConfig slice;
  slice.name = "owners only";
  slice.skip_layers = {5, 6, 7, 8, 9};
  slice.ffn = {64, 128, 64, 64, 128};
  EXPECT_TRUE(ValidateSlice(ValidFields().text, slice).ok());
}

}  // namespace
}  // namespace nestling
