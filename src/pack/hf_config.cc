// SPDX-License-Identifier: Apache-2.0
#include "pack/hf_config.h"

#include <algorithm>
#include <filesystem>
#include <initializer_list>
#include <utility>
#include <vector>

#include "base/file.h"
#include "pack/json_util.h"

namespace nestling {
namespace {

constexpr uint64_t kMaxConfigBytes = 16ull << 20;
// tokenizer_config.json lists every added token.
constexpr uint64_t kMaxTokenizerConfigBytes = 64ull << 20;
constexpr uint32_t kMaxLayers = 1024;

// Keys that the conversion reads.
constexpr const char* kTextKeys[] = {
    "activation_sparsity_pattern", "altup_active_idx", "altup_correct_scale", "altup_num_inputs",
    "attention_bias", "bos_token_id", "eos_token_id", "final_logit_softcapping", "head_dim",
    "hidden_activation", "hidden_size", "hidden_size_per_layer_input", "intermediate_size",
    "laurel_rank", "layer_types", "max_position_embeddings", "num_attention_heads",
    "num_hidden_layers", "num_key_value_heads", "num_kv_shared_layers", "pad_token_id",
    "rms_norm_eps", "rope_local_base_freq", "rope_parameters", "rope_scaling", "rope_theta",
    "sliding_window", "tie_word_embeddings", "vocab_size", "vocab_size_per_layer_input",
};

constexpr const char* kTopLevelKeys[] = {
    "audio_config", "audio_soft_tokens_per_image", "audio_token_id", "boa_token_id",
    "boi_token_id", "bos_token_id", "eoa_token_id", "eoi_token_id", "eos_token_id",
    "image_token_id", "pad_token_id", "text_config", "tie_word_embeddings", "vision_config",
    "vision_soft_tokens_per_image",
};

// Keys without effect on what a forward pass computes. The attention scale is 1 whatever
// query_pre_attn_scalar says, and AltUp coefficients are clipped in training only.
constexpr const char* kHarmlessKeys[] = {
    "_attn_implementation_autoset", "_from_model_config", "_name_or_path", "altup_coef_clip",
    "architectures", "attention_dropout", "attn_implementation", "auto_map", "cache_implementation",
    "chunk_size_feed_forward", "do_sample", "dtype", "finetuning_task", "id2label",
    "initializer_range", "label2id", "length_penalty", "max_length", "max_new_tokens",
    "min_length", "model_type", "num_beams", "output_attentions", "output_hidden_states",
    "prefix", "problem_type", "query_pre_attn_scalar", "return_dict", "return_dict_in_generate",
    "task_specific_params", "temperature", "tokenizer_class", "top_k", "top_p", "torch_dtype",
    "torchscript", "transformers_version", "unsloth_fixed", "unsloth_version", "use_cache",
};

template <size_t kSize>
bool Contains(const char* const (&keys)[kSize], const std::string& key) {
  return std::any_of(std::begin(keys), std::end(keys),
                     [&](const char* known) { return key == known; });
}

template <size_t kSize>
Status RefuseUnknownKeys(const Json& object, const char* const (&known)[kSize], const char* where,
                         bool allow_unknown, const WarningCallback& warn) {
  for (const auto& [key, value] : object.items()) {
    if (Contains(known, key) || Contains(kHarmlessKeys, key)) continue;
    // What is switched off by its value changes nothing.
    if (value.is_null() || value == false) continue;
    if (!allow_unknown) {
      return Unsupported(where, ": unknown key \"", key, "\" = ", JsonForMessage(value),
                         " may change what the model computes; --allow-unknown-config ignores it");
    }
    if (warn) warn(StrCat(where, ": unknown key \"", key, "\" is ignored"));
  }
  return OkStatus();
}

// The keys whose other values this version does not compute.
Status RefuseOtherArithmetic(const Json& text, const char* where) {
  JsonFields fields(text, where);
  if (!fields.Bool("tie_word_embeddings", true)) {
    return Unsupported(where, ": tie_word_embeddings is false, want true: the output head is the "
                              "token embedding");
  }
  if (fields.Bool("attention_bias", false)) {
    return Unsupported(where, ": attention_bias is true, want false");
  }
  const std::string activation = fields.String("hidden_activation", "gelu_pytorch_tanh");
  if (activation != "gelu_pytorch_tanh") {
    return Unsupported(where, ": hidden_activation is \"", activation,
                       "\", want \"gelu_pytorch_tanh\"");
  }
  return fields.status();
}

// One rope description: {"rope_type": "default", "rope_theta": ...}; "type" in older files.
Status ParseRope(const Json& rope, const std::string& where, float* theta) {
  if (!rope.is_object()) return BadModel(where, " is ", JsonForMessage(rope), ", want an object");
  JsonFields fields(rope, where);
  for (const auto& [key, value] : rope.items()) {
    if (value.is_null() || key == "rope_theta" || key == "full_attention" ||
        key == "sliding_attention") {
      continue;
    }
    if ((key == "rope_type" || key == "type") && value == "default") continue;
    return Unsupported(where, ": \"", key, "\" is ", JsonForMessage(value),
                       ", want the default rope without scaling");
  }
  if (theta != nullptr) *theta = fields.Float("rope_theta", *theta);
  return fields.status();
}

Status ParseRopes(JsonFields& fields, const std::string& where, TextConfig* text) {
  text->rope_theta_full = fields.Float("rope_theta", 1e6f);
  text->rope_theta_sliding = fields.Float("rope_local_base_freq", 1e4f);
  if (const Json* scaling = fields.Find("rope_scaling")) {
    RETURN_IF_ERROR(ParseRope(*scaling, where + ": rope_scaling", nullptr));
  }
  const Json* parameters = fields.Find("rope_parameters");
  if (parameters == nullptr) return OkStatus();
  // The flat form (no entry per layer type) is about the full-attention layers.
  RETURN_IF_ERROR(ParseRope(*parameters, where + ": rope_parameters", &text->rope_theta_full));
  const std::pair<const char*, float*> kinds[] = {
      {"full_attention", &text->rope_theta_full}, {"sliding_attention", &text->rope_theta_sliding}};
  for (const auto& [kind, theta] : kinds) {
    const auto it = parameters->find(kind);
    if (it == parameters->end() || it->is_null()) continue;
    RETURN_IF_ERROR(ParseRope(*it, StrCat(where, ": rope_parameters.", kind), theta));
  }
  return OkStatus();
}

// A value for all layers, or a list with one per layer.
Status ForEachLayer(const Json& value, const std::string& where, size_t num_layers,
                    const std::function<bool(size_t layer, const Json& value)>& set,
                    const char* wanted) {
  if (value.is_array() && value.size() != num_layers) {
    return BadModel(where, " has ", value.size(), " entries, want ", num_layers);
  }
  for (size_t i = 0; i < num_layers; ++i) {
    const Json& entry = value.is_array() ? value[i] : value;
    if (!set(i, entry)) {
      return BadModel(where, " of layer ", i, " is ", JsonForMessage(entry), ", want ", wanted);
    }
  }
  return OkStatus();
}

Status ParseLayers(JsonFields& fields, const std::string& where, TextConfig* text) {
  const uint32_t num_layers = fields.Uint("num_hidden_layers", 35);
  RETURN_IF_ERROR(fields.status());
  if (num_layers == 0 || num_layers > kMaxLayers) {
    return BadModel(where, ": num_hidden_layers is ", num_layers, ", want 1 to ", kMaxLayers);
  }
  text->layers.resize(num_layers);

  const Json default_width = 16384u;
  const Json* width = fields.Find("intermediate_size");
  RETURN_IF_ERROR(ForEachLayer(
      width != nullptr ? *width : default_width, where + ": intermediate_size", num_layers,
      [&](size_t i, const Json& value) {
        if (!value.is_number_unsigned() || value.get<uint64_t>() == 0 ||
            value.get<uint64_t>() > UINT32_MAX) {
          return false;
        }
        text->layers[i].shell_ends = {value.get<uint32_t>()};
        return true;
      },
      "a positive 32-bit number"));

  for (size_t i = 0; i < num_layers; ++i) {
    text->layers[i].type = (i + 1) % 5 == 0 ? LayerType::kFull : LayerType::kSliding;
    text->layers[i].activation_sparsity = num_layers > 10 && i < 10 ? 0.95f : 0.0f;
  }
  if (const Json* types = fields.Find("layer_types")) {
    if (!types->is_array()) return BadModel(where, ": layer_types: want a list");
    RETURN_IF_ERROR(ForEachLayer(
        *types, where + ": layer_types", num_layers,
        [&](size_t i, const Json& value) {
          text->layers[i].type =
              value == "full_attention" ? LayerType::kFull : LayerType::kSliding;
          return value == "full_attention" || value == "sliding_attention";
        },
        "\"full_attention\" or \"sliding_attention\""));
  }
  if (const Json* sparsity = fields.Find("activation_sparsity_pattern")) {
    RETURN_IF_ERROR(ForEachLayer(
        *sparsity, where + ": activation_sparsity_pattern", num_layers,
        [&](size_t i, const Json& value) {
          if (!value.is_number()) return false;
          const double share = value.get<double>();
          text->layers[i].activation_sparsity = static_cast<float>(share);
          return share >= 0.0 && share < 1.0;
        },
        "a share in [0, 1)"));
  }
  return OkStatus();
}

// Missing keys take the defaults of Gemma3nTextConfig.
Result<TextConfig> ParseText(const Json& json, const std::string& where) {
  JsonFields fields(json, where);
  TextConfig text;
  text.vocab_size = fields.Uint("vocab_size", 262400);
  text.ple_vocab_size = fields.Uint("vocab_size_per_layer_input", 262144);
  text.hidden_size = fields.Uint("hidden_size", 2048);
  text.ple_dim = fields.Uint("hidden_size_per_layer_input", 256);
  text.num_heads = fields.Uint("num_attention_heads", 8);
  text.num_kv_heads = fields.Uint("num_key_value_heads", 2);
  text.head_dim = fields.Uint("head_dim", 256);
  text.num_kv_shared_layers = fields.Uint("num_kv_shared_layers", 15);
  text.sliding_window = fields.Uint("sliding_window", 512);
  text.max_position_embeddings = fields.Uint("max_position_embeddings", 32768);
  text.rms_norm_eps = fields.Float("rms_norm_eps", 1e-6f);
  // Unlike other keys, null has a meaning of its own here: no soft cap.
  const auto softcap = json.find("final_logit_softcapping");
  text.final_logit_softcap = softcap != json.end() && softcap->is_null()
                                 ? 0.0f
                                 : fields.Float("final_logit_softcapping", 30.0f);
  text.altup_num_inputs = fields.Uint("altup_num_inputs", 4);
  text.altup_active_idx = fields.Uint("altup_active_idx", 0);
  text.altup_correct_scale = fields.Bool("altup_correct_scale", true);
  text.laurel_rank = fields.Uint("laurel_rank", 64);
  RETURN_IF_ERROR(ParseRopes(fields, where, &text));
  RETURN_IF_ERROR(ParseLayers(fields, where, &text));
  RETURN_IF_ERROR(fields.status());
  return text;
}

// Appends the ids of an eos_token_id, a number or a list, that are not there yet.
Status AddStopTokens(const Json& object, const std::string& where, std::vector<int32_t>* stops) {
  const auto it = object.find("eos_token_id");
  if (it == object.end() || it->is_null()) return OkStatus();
  const Json list = it->is_array() ? *it : Json::array({*it});
  for (const Json& id : list) {
    if (!id.is_number_unsigned() || id.get<uint64_t>() > INT32_MAX) {
      return BadModel(where, ": \"eos_token_id\" is ", JsonForMessage(*it),
                      ", want a token id or a list of them");
    }
    const int32_t token = id.get<int32_t>();
    if (std::find(stops->begin(), stops->end(), token) == stops->end()) stops->push_back(token);
  }
  return OkStatus();
}

Result<TowerConfig> ParseTower(const Json& json, const char* where, uint32_t vocab_offset,
                               uint32_t soft_tokens) {
  if (!json.is_object()) return BadModel(where, " is ", JsonForMessage(json), ", want an object");
  JsonFields fields(json, where);
  TowerConfig tower;
  tower.present = true;
  tower.vocab_offset = fields.Uint("vocab_offset", vocab_offset);
  tower.vocab_size = fields.Uint("vocab_size", 128);
  tower.soft_tokens = soft_tokens;
  tower.config_json = json.dump();
  RETURN_IF_ERROR(fields.status());
  return tower;
}

Status ParseTopLevel(const Json& json, HeaderFields* fields) {
  JsonFields top(json, "config.json");
  SpecialTokens& special = fields->special_tokens;
  if (const Json* vision = top.Find("vision_config")) {
    ASSIGN_OR_RETURN(fields->vision, ParseTower(*vision, "config.json: vision_config", 262144,
                                                top.Uint("vision_soft_tokens_per_image", 256)));
    special.start_of_image = top.TokenId("boi_token_id", 255999);
    special.end_of_image = top.TokenId("eoi_token_id", 262144);
    special.image_soft = top.TokenId("image_token_id", 262145);
  }
  if (const Json* audio = top.Find("audio_config")) {
    ASSIGN_OR_RETURN(fields->audio, ParseTower(*audio, "config.json: audio_config", 262272,
                                               top.Uint("audio_soft_tokens_per_image", 188)));
    special.start_of_audio = top.TokenId("boa_token_id", 256000);
    special.end_of_audio = top.TokenId("eoa_token_id", 262272);
    special.audio_soft = top.TokenId("audio_token_id", 262273);
  }
  return top.status();
}

// The template of a file that may hold a string or a list of named templates.
std::string TemplateOf(const Json& json) {
  if (!json.is_object()) return {};
  const auto it = json.find("chat_template");
  if (it == json.end()) return {};
  if (it->is_string()) return it->get<std::string>();
  if (!it->is_array()) return {};
  for (const Json& entry : *it) {
    if (entry.is_object() && entry.value("name", Json()) == "default" &&
        entry.value("template", Json()).is_string()) {
      return entry["template"].get<std::string>();
    }
  }
  return {};
}

Status ReadChatTemplate(const std::string& folder, std::string* chat_template) {
  std::error_code ignored;
  const std::string jinja = folder + "/chat_template.jinja";
  if (std::filesystem::exists(jinja, ignored)) {
    ASSIGN_OR_RETURN(*chat_template, ReadFile(jinja, kMaxConfigBytes));
    return OkStatus();
  }
  for (const char* name : {"/chat_template.json", "/tokenizer_config.json"}) {
    if (!chat_template->empty() || !std::filesystem::exists(folder + name, ignored)) continue;
    ASSIGN_OR_RETURN(const Json json, ReadJsonFile(folder + name, kMaxTokenizerConfigBytes));
    *chat_template = TemplateOf(json);
  }
  return OkStatus();
}

}  // namespace

Result<HeaderFields> ParseHfConfig(std::string_view config_json, bool allow_unknown_config,
                                   const WarningCallback& warn) {
  ASSIGN_OR_RETURN(const Json json, ParseJson(config_json, "config.json"));
  if (!json.is_object()) return BadModel("config.json: want an object");
  JsonFields top(json, "config.json");
  const std::string type = top.String("model_type", "");
  RETURN_IF_ERROR(top.status());
  const bool multimodal = type == "gemma3n";
  if (!multimodal && type != "gemma3n_text") {
    return Unsupported("config.json: model_type is \"", type,
                       "\", want \"gemma3n\" or \"gemma3n_text\"");
  }
  const Json empty = Json::object();
  const Json* text = &json;
  if (multimodal) {
    text = top.Find("text_config");
    if (text == nullptr) text = &empty;
    if (!text->is_object()) return BadModel("config.json: text_config: want an object");
    RETURN_IF_ERROR(RefuseUnknownKeys(json, kTopLevelKeys, "config.json", allow_unknown_config,
                                      warn));
    if (!top.Bool("tie_word_embeddings", true)) {
      return Unsupported("config.json: tie_word_embeddings is false, want true");
    }
  }
  const char* const where = multimodal ? "config.json: text_config" : "config.json";
  RETURN_IF_ERROR(RefuseUnknownKeys(*text, kTextKeys, where, allow_unknown_config, warn));
  RETURN_IF_ERROR(RefuseOtherArithmetic(*text, where));

  HeaderFields fields;
  ASSIGN_OR_RETURN(fields.text, ParseText(*text, where));
  std::vector<int32_t>& stops = fields.generation.stop_tokens;
  RETURN_IF_ERROR(AddStopTokens(*text, where, &stops));
  if (multimodal) RETURN_IF_ERROR(AddStopTokens(json, "config.json", &stops));
  if (stops.empty()) stops.push_back(1);
  JsonFields ids(*text, where);
  fields.special_tokens.bos = ids.TokenId("bos_token_id", 2);
  fields.special_tokens.pad = ids.TokenId("pad_token_id", 0);
  RETURN_IF_ERROR(ids.status());
  fields.special_tokens.eos = stops.front();
  if (multimodal) RETURN_IF_ERROR(ParseTopLevel(json, &fields));
  return fields;
}

Status ParseGenerationConfig(std::string_view json_text, HeaderFields* fields) {
  const char* const where = "generation_config.json";
  ASSIGN_OR_RETURN(const Json json, ParseJson(json_text, where));
  if (!json.is_object()) return BadModel(where, ": want an object");
  JsonFields values(json, where);
  GenerationConfig& generation = fields->generation;
  generation.do_sample = values.Bool("do_sample", false);
  generation.temperature = values.Float("temperature", 1.0f);
  // What transformers samples with when the file does not say.
  generation.top_k = values.Uint("top_k", generation.do_sample ? 50 : 0);
  generation.top_p = values.Float("top_p", 1.0f);
  RETURN_IF_ERROR(values.status());
  if (!(generation.temperature >= 0.0f) || !(generation.top_p > 0.0f) || generation.top_p > 1.0f) {
    return BadModel(where, ": temperature ", generation.temperature, ", top_p ", generation.top_p,
                    ", want temperature >= 0 and top_p in (0, 1]");
  }
  std::vector<int32_t> stops;
  RETURN_IF_ERROR(AddStopTokens(json, where, &stops));
  for (const int32_t token : generation.stop_tokens) {
    if (std::find(stops.begin(), stops.end(), token) == stops.end()) stops.push_back(token);
  }
  generation.stop_tokens = std::move(stops);
  return OkStatus();
}

Result<HeaderFields> ReadHfFolder(const std::string& folder, bool allow_unknown_config,
                                  const WarningCallback& warn) {
  std::error_code ignored;
  ASSIGN_OR_RETURN(const std::string config, ReadFile(folder + "/config.json", kMaxConfigBytes));
  ASSIGN_OR_RETURN(HeaderFields fields, ParseHfConfig(config, allow_unknown_config, warn));
  const std::string generation = folder + "/generation_config.json";
  if (std::filesystem::exists(generation, ignored)) {
    ASSIGN_OR_RETURN(const std::string text, ReadFile(generation, kMaxConfigBytes));
    RETURN_IF_ERROR(ParseGenerationConfig(text, &fields));
  }
  const std::string preprocessor = folder + "/preprocessor_config.json";
  if (std::filesystem::exists(preprocessor, ignored)) {
    ASSIGN_OR_RETURN(const Json json, ReadJsonFile(preprocessor, kMaxConfigBytes));
    for (TowerConfig* tower : {&fields.vision, &fields.audio}) {
      if (tower->present) tower->preprocessor_json = json.dump();
    }
  } else if (warn && (fields.vision.present || fields.audio.present)) {
    warn("no preprocessor_config.json: images and sounds use the model family's defaults");
  }
  RETURN_IF_ERROR(ReadChatTemplate(folder, &fields.chat_template));
  return fields;
}

}  // namespace nestling
