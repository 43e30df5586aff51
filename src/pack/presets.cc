// SPDX-License-Identifier: Apache-2.0
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "model/tensor_names.h"
#include "pack/slicing.h"
#include "pack/synth.h"

namespace nestling {
namespace {

using Json = nlohmann::json;

// Four sliding layers and a full one, repeated; the first `num_sparse` are sparse.
std::vector<LayerConfig> Layers(uint32_t num_layers, uint32_t num_sparse,
                                const std::vector<uint32_t>& shell_ends) {
  std::vector<LayerConfig> layers(num_layers);
  for (uint32_t i = 0; i < num_layers; ++i) {
    layers[i].type = (i + 1) % 5 == 0 ? LayerType::kFull : LayerType::kSliding;
    layers[i].activation_sparsity = i < num_sparse ? 0.95f : 0.0f;
    layers[i].shell_ends = shell_ends;
  }
  return layers;
}

TextConfig FullSizeText(uint32_t num_layers, uint32_t ffn_width) {
  TextConfig text;
  text.vocab_size = 262400;
  text.ple_vocab_size = 262144;
  text.hidden_size = 2048;
  text.ple_dim = 256;
  text.num_heads = 8;
  text.num_kv_heads = 2;
  text.head_dim = 256;
  text.num_kv_shared_layers = num_layers - 20;
  text.sliding_window = 512;
  text.max_position_embeddings = 32768;
  text.laurel_rank = 64;
  text.layers = Layers(num_layers, /*num_sparse=*/10, {ffn_width});
  return text;
}

TowerConfig VisionTower() {
  TowerConfig tower;
  tower.present = true;
  tower.vocab_offset = 262144;
  tower.vocab_size = 128;
  tower.soft_tokens = 256;
  tower.config_json = Json{{"architecture", "mobilenetv5_300m_enc"},
                           {"do_pooling", false},
                           {"hidden_size", 2048},
                           {"model_args", nullptr},
                           {"model_type", "gemma3n_vision"},
                           {"rms_norm_eps", 1e-6},
                           {"vocab_offset", tower.vocab_offset},
                           {"vocab_size", tower.vocab_size}}
                          .dump();
  tower.preprocessor_json = Json{{"do_normalize", false},
                                 {"do_rescale", true},
                                 {"do_resize", true},
                                 {"image_seq_length", tower.soft_tokens},
                                 {"resample", 2},
                                 {"rescale_factor", 1.0 / 255.0},
                                 {"size", {{"height", 768}, {"width", 768}}}}
                                .dump();
  return tower;
}

TowerConfig AudioTower() {
  TowerConfig tower;
  tower.present = true;
  tower.vocab_offset = 262272;
  tower.vocab_size = 128;
  tower.soft_tokens = 188;
  const Json kernel = Json::array({Json::array({3, 3}), Json::array({3, 3})});
  const Json stride = Json::array({Json::array({2, 2}), Json::array({2, 2})});
  tower.config_json = Json{{"conf_attention_chunk_size", 12},
                           {"conf_attention_context_left", 13},
                           {"conf_attention_context_right", 0},
                           {"conf_attention_logit_cap", 50.0},
                           {"conf_conv_kernel_size", 5},
                           {"conf_num_attention_heads", 8},
                           {"conf_num_hidden_layers", 12},
                           {"conf_reduction_factor", 4},
                           {"conf_residual_weight", 0.5},
                           {"gradient_clipping", 1e10},
                           {"hidden_size", 1536},
                           {"input_feat_size", 128},
                           {"model_type", "gemma3n_audio"},
                           {"rms_norm_eps", 1e-6},
                           {"sscp_conv_channel_size", Json::array({128, 32})},
                           {"sscp_conv_group_norm_eps", 1e-3},
                           {"sscp_conv_kernel_size", kernel},
                           {"sscp_conv_stride_size", stride},
                           {"vocab_offset", tower.vocab_offset},
                           {"vocab_size", tower.vocab_size}}
                          .dump();
  tower.preprocessor_json = Json{{"audio_seq_length", tower.soft_tokens},
                                 {"dither", 0.0},
                                 {"feature_size", 128},
                                 {"fft_length", 1024},
                                 {"frame_length", 512},
                                 {"hop_length", 160},
                                 {"max_frequency", 7600.0},
                                 {"mel_floor", 1e-5},
                                 {"min_frequency", 125.0},
                                 {"preemphasis", 0.97},
                                 {"preemphasis_htk_flavor", true},
                                 {"sampling_rate", 16000}}
                                .dump();
  return tower;
}

Result<HeaderFields> FullSize(uint32_t num_layers, uint32_t ffn_width) {
  HeaderFields fields;
  fields.text = FullSizeText(num_layers, ffn_width);
  fields.vision = VisionTower();
  fields.audio = AudioTower();
  fields.special_tokens = {.bos = 2,
                           .eos = 1,
                           .pad = 0,
                           .unk = 3,
                           .start_of_image = 255999,
                           .end_of_image = 262144,
                           .image_soft = 262145,
                           .start_of_audio = 256000,
                           .end_of_audio = 262272,
                           .audio_soft = 262273};
  fields.generation = {.do_sample = true, .top_k = 64, .top_p = 0.95f, .stop_tokens = {1, 106}};
  RETURN_IF_ERROR(ResolveSlices({}, "", &fields).status());  // E4B has the published ones
  return fields;
}

SliceConfig TinySlice(const TextConfig& text, const char* name, const char* description,
                      std::vector<uint32_t> skip_layers, uint32_t width) {
  SliceConfig slice;
  slice.name = name;
  slice.description = description;
  slice.ffn.assign(text.num_layers() - skip_layers.size(), width);
  slice.skip_layers = std::move(skip_layers);
  slice.effective_parameters = EffectiveParameters(text, slice);
  return slice;
}

HeaderFields Tiny() {
  HeaderFields fields;
  TextConfig& text = fields.text;
  text.vocab_size = 512;
  text.ple_vocab_size = 480;
  text.hidden_size = 64;
  text.ple_dim = 32;
  text.num_heads = 4;
  text.num_kv_heads = 2;
  text.head_dim = 16;
  text.num_kv_shared_layers = 5;
  text.sliding_window = 16;
  text.max_position_embeddings = 2048;
  text.laurel_rank = 8;
  text.layers = Layers(/*num_layers=*/10, /*num_sparse=*/3, {64, 128});
  fields.slices = {TinySlice(text, "half", "half of every FFN", {}, 64),
                   TinySlice(text, "short", "half of every FFN, without layers 5 and 6", {5, 6}, 64)};
  fields.special_tokens = {.bos = 2, .eos = 1, .pad = 0, .unk = 3};
  fields.generation.stop_tokens = {1};
  return fields;
}

}  // namespace

Result<HeaderFields> PresetFields(std::string_view preset) {
  if (preset == "e2b") return FullSize(30, 8192);
  if (preset == "e4b") return FullSize(35, 16384);
  if (preset == "tiny") return Tiny();
  return InvalidArgument("preset \"", preset, "\", want e2b, e4b or tiny");
}

}  // namespace nestling
