// SPDX-License-Identifier: Apache-2.0
#include "model/tensor_names.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <set>

#include "model/slices.h"
#include "tests/model/gemma3n_configs.h"
#include "tests/support/edit_container.h"
#include "tests/support/tiny_model.h"

namespace nestling {
namespace {

using testing::Bytes;
using testing::E2B;
using testing::E4B;
using ::testing::HasSubstr;

// gemma3n.md 1.4, from the shapes of the published checkpoints.
TEST(EffectiveParametersTest, AreTheNumbersInTheNames) {
  EXPECT_EQ(EffectiveParameters(E2B(), WholeModelSlice(E2B())), 1905495648u);
  EXPECT_EQ(EffectiveParameters(E4B(), WholeModelSlice(E4B())), 3980491248u);
}

uint64_t CountParameters(const TextConfig& text, SectionKind section) {
  uint64_t total = 0;
  for (const TensorSpec& spec : TextTensors(text)) {
    if (spec.section != section) continue;
    uint64_t count = 1;
    for (const uint64_t size : spec.shape) count *= size;
    total += count;
  }
  return total;
}

TEST(TextTensorsTest, HaveTheParametersOfThePublishedCheckpoints) {
  // The checkpoints hold k_proj, v_proj and k_norm of the shared layers as well; containers do not.
  EXPECT_EQ(CountParameters(E2B(), SectionKind::kText), 1905495648u - 20974080u);
  EXPECT_EQ(CountParameters(E4B(), SectionKind::kText), 3980491248u - 31461120u);
  EXPECT_EQ(CountParameters(E4B(), SectionKind::kEmbed), 537395200u);
  EXPECT_EQ(CountParameters(E2B(), SectionKind::kPle), 2013265920u);
  EXPECT_EQ(CountParameters(E4B(), SectionKind::kPle), 2348810240u);
}

TEST(TextTensorsTest, AreNamedAsInTheCheckpointAndOnce) {
  std::set<std::string> names;
  for (const TensorSpec& spec : TextTensors(E4B())) {
    EXPECT_TRUE(names.insert(spec.name).second) << spec.name;
  }
  for (const char* name :
       {"embed_tokens", "embed_tokens_per_layer", "norm", "altup_projections.2",
        "altup_unembed_projections.0", "layers.19.self_attn.k_norm",
        "layers.34.altup.correct_output_scale", "layers.0.laurel.post_laurel_norm"}) {
    EXPECT_TRUE(names.contains(name)) << name;
  }
  EXPECT_FALSE(names.contains("layers.20.self_attn.k_proj")) << "layer 20 shares";
  EXPECT_FALSE(names.contains("altup_projections.3"));
}

TEST(TextTensorsTest, SayWhatMustNotBeQuantised) {
  for (const TensorSpec& spec : TextTensors(E4B())) {
    EXPECT_FALSE(spec.keep_f32 && spec.sensitive) << spec.name;
    if (spec.shape.size() == 1 || spec.name.find("altup.") != std::string::npos) {
      EXPECT_TRUE(spec.keep_f32) << spec.name;
    }
    if (spec.name.find(".mlp.") != std::string::npos) {
      EXPECT_FALSE(spec.keep_f32 || spec.sensitive) << spec.name;
    }
    if (spec.name.find("altup_") != std::string::npos ||
        spec.name.find("laurel.linear") != std::string::npos) {
      EXPECT_TRUE(spec.sensitive) << spec.name;
    }
  }
}

TEST(TextTensorsTest, StoreDownProjectionsInShells) {
  for (const TensorSpec& spec : TextTensors(E4B())) {
    const bool down = spec.name.ends_with("mlp.down_proj");
    EXPECT_EQ(spec.layout == Layout::kTransposed, down) << spec.name;
    EXPECT_EQ(spec.num_shells, down ? 2u : 1u) << spec.name;
    if (down) {
      EXPECT_EQ(spec.shape, std::vector<uint64_t>({2048, 16384}));
    }
  }
}

struct Damage {
  const char* said;
  std::function<void(ContainerHeader&)> edit;
};

TensorInfo& Find(ContainerHeader& header, const std::string& name) {
  for (TensorInfo& tensor : header.tensors) {
    if (tensor.name == name) return tensor;
  }
  ADD_FAILURE() << name;
  return header.tensors[0];
}

void ExpectRefused(DType dtype, std::initializer_list<Damage> cases, bool tiles = false,
                   bool neurons = false) {
  testing::TinyModelOptions options;
  options.neurons = neurons;
  options.tiles = tiles;
  options.num_layers = 5;
  options.num_kv_shared_layers = 0;
  options.dtype = dtype;
  const testing::TemporaryPath temporary;
  ASSERT_TRUE(WriteTinyModel(temporary.path(), options).ok());
  const Bytes good = testing::ReadAllBytes(temporary.path());
  {
    auto reader = ContainerReader::Open(temporary.path());
    ASSERT_TRUE(reader.ok()) << reader.status().message();
    const Status status = CheckTextTensors(**reader);
    ASSERT_TRUE(status.ok()) << status.message();
  }
  for (const Damage& c : cases) {
    Bytes file = good;
    testing::EditHeader(c.edit, &file);
    testing::WriteAllBytes(temporary.path(), file);
    auto reader = ContainerReader::Open(temporary.path());
    ASSERT_TRUE(reader.ok()) << "a valid directory: " << reader.status().message();
    const Status status = CheckTextTensors(**reader);
    EXPECT_EQ(status.code(), StatusCode::kBadModel) << "case " << &c - cases.begin();
    EXPECT_THAT(status.message(), HasSubstr(c.said));
  }
}

TEST(CheckTextTensorsTest, NamesTheTensorThatIsNotWhatTheConfigurationWants) {
  ExpectRefused(DType::kF32,
                {
                    {"\"layers.3.mlp.up_proj\" is missing",
                     [](ContainerHeader& h) { Find(h, "layers.3.mlp.up_proj").name = "other"; }},
                    {"\"norm\" is missing", [](ContainerHeader& h) { h.tensors.pop_back(); }},
                    {"shape [64, 128], want [128, 64]",
                     [](ContainerHeader& h) {
                       Find(h, "layers.3.mlp.up_proj").shape = {64, 128};
                     }},
                    {"shape [64, 1], want [64]",
                     [](ContainerHeader& h) {
                       Find(h, "norm").shape = {64, 1};
                     }},
                    {"layout row_major, want transposed",
                     [](ContainerHeader& h) {
                       Find(h, "layers.2.mlp.down_proj").layout = Layout::kRowMajor;
                     }},
                    {"in section TEXT, want EMBED",
                     [](ContainerHeader& h) {
                       // Swapped with a matrix of the same size, 64 x 128 x 4 bytes.
                       Find(h, "embed_tokens").name = "spare";
                       Find(h, "layers.0.mlp.gate_proj").name = "embed_tokens";
                       Find(h, "spare").name = "layers.0.mlp.gate_proj";
                     }},
                    {"\"norm\": element type bf16, want f32",
                     [](ContainerHeader& h) {
                       Find(h, "norm").dtype = DType::kBF16;
                       Find(h, "norm").bytes = 128;
                     }},
                    // The configuration wants what no tensor has.
                    {"\"layers.0.laurel.linear_left\": shape [32, 64], want [33, 64]",
                     [](ContainerHeader& h) { h.fields.text.laurel_rank = 33; }},
                    {"\"embed_tokens\": shape [128, 64], want [127, 64]",
                     [](ContainerHeader& h) { h.fields.text.vocab_size = 127; }},
                    {"\"altup_projections.3\" is missing",
                     [](ContainerHeader& h) { h.fields.text.altup_num_inputs = 5; }},
                    {"\"embed_tokens_per_layer\": shape [96, 5, 32], want [96, 4, 32]",
                     [](ContainerHeader& h) { h.fields.text.layers.pop_back(); }},
                });
}

TEST(CheckTextTensorsTest, ScalesMustBeThoseOfTheLayersShells) {
  const Damage other_shells = {
      "layers.1.mlp.down_proj\": 512 bytes of scales, want 768 for 3 shells",
      [](ContainerHeader& h) {
        h.fields.text.layers[1].shell_ends = {32, 64, 128};
      }};
  ExpectRefused(DType::kQ8C, {other_shells});
  ExpectRefused(DType::kQ4C, {other_shells});
  ExpectRefused(DType::kQ4B32, {{"shell that ends at 48", [](ContainerHeader& h) {
                                   h.fields.text.layers[1].shell_ends = {48, 128};
                                 }}});
}

TEST(CheckTextTensorsTest, ShellsDoNotCutTiles) {
  const Damage through_a_tile = {"shell that ends at 40", [](ContainerHeader& h) {
                                   h.fields.text.layers[1].shell_ends = {40, 128};
                                 }};
  ExpectRefused(DType::kQ8C, {through_a_tile}, /*tiles=*/true);
  ExpectRefused(DType::kQ4C, {through_a_tile}, /*tiles=*/true);
  ExpectRefused(DType::kQ4B32, {through_a_tile}, /*tiles=*/true);
}

TEST(CheckTextTensorsTest, ProjectionsLieByNeuronTogetherAndOnlyWhereTheGateIsSparse) {
  const std::initializer_list<Damage> cases = {
      {"layer 1: up_proj lies by neuron and down_proj does not",
       [](ContainerHeader& h) { Find(h, "layers.1.mlp.down_proj").layout = Layout::kTransposed; }},
      {"layer 1: down_proj lies by neuron and up_proj does not",
       [](ContainerHeader& h) { Find(h, "layers.1.mlp.up_proj").layout = Layout::kRowMajor; }},
      {"layer 1: its projections lie by neuron, but its activations are not sparse",
       [](ContainerHeader& h) { h.fields.text.layers[1].activation_sparsity = 0.0f; }},
      {"gate_proj\": layout neuron_rows, want row_major",
       [](ContainerHeader& h) { Find(h, "layers.1.mlp.gate_proj").layout = Layout::kNeuronRows; }},
      {"down_proj\": layout neuron_rows, want transposed",
       [](ContainerHeader& h) { Find(h, "layers.1.mlp.down_proj").layout = Layout::kNeuronRows; }},
  };
  ExpectRefused(DType::kF32, cases, /*tiles=*/false, /*neurons=*/true);
}

}  // namespace
}  // namespace nestling
