// SPDX-License-Identifier: Apache-2.0
#include "pack/gguf_config.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "pack/checkpoint_tensors.h"
#include "text/sentencepiece_model.h"
#include "text/tokenizer.h"

namespace nestling {
namespace {

constexpr std::string_view kArchitecture = "gemma3n";
constexpr uint32_t kMaxLayers = 256;
// Rows that newer converters append to the PLE table, all zero: two towers of 128 ids each.
constexpr uint64_t kSoftTokenRows = 256;
constexpr uint32_t kDefaultPatternPeriod = 5;
constexpr const char* kSpaceMark = "\u2581";

// Keys below "gemma3n." that are read, or have no effect.
const std::set<std::string_view> kKnownKeys = {"activation_sparsity_scale",
                                               "altup.active_idx",
                                               "altup.num_inputs",
                                               "attention.head_count",
                                               "attention.head_count_kv",
                                               "attention.key_length",
                                               "attention.key_length_swa",
                                               "attention.layer_norm_rms_epsilon",
                                               "attention.shared_kv_layers",
                                               "attention.sliding_window",
                                               "attention.sliding_window_pattern",
                                               "attention.value_length",
                                               "attention.value_length_swa",
                                               "block_count",
                                               "context_length",
                                               "embedding_length",
                                               "embedding_length_per_layer_input",
                                               "feed_forward_length",
                                               "final_logit_softcapping",
                                               "rope.dimension_count",
                                               "rope.dimension_count_swa",
                                               "rope.freq_base",
                                               "rope.freq_base_swa",
                                               "vocab_size"};

// Typed access to the metadata. The first missing key or wrong type is kept in status(); later
// calls then return zeros.
class MetadataFields {
 public:
  explicit MetadataFields(const GgufReader& reader) : reader_(reader) {}

  const Status& status() const { return status_; }

  static std::string Key(std::string_view key) { return StrCat(kArchitecture, ".", key); }
  const GgufValue* Find(std::string_view key) const { return reader_.FindValue(Key(key)); }

  // Missing is an error without `otherwise`.
  uint32_t Uint(std::string_view key, std::optional<uint32_t> otherwise = std::nullopt) {
    const GgufValue* value = Scalar(key, otherwise.has_value());
    return value == nullptr ? otherwise.value_or(0) : UintAt(key, *value, 0);
  }

  float Float(std::string_view key, std::optional<float> otherwise = std::nullopt) {
    const GgufValue* value = Scalar(key, otherwise.has_value());
    return value == nullptr ? otherwise.value_or(0.0f) : FloatAt(key, *value, 0);
  }

  // One number for all layers, or an array with one for each.
  std::vector<uint32_t> UintPerLayer(std::string_view key, size_t num_layers) {
    std::vector<uint32_t> numbers(num_layers);
    const GgufValue* value = PerLayer(key, num_layers);
    for (size_t i = 0; value != nullptr && i < num_layers; ++i) {
      numbers[i] = UintAt(key, *value, value->is_array() ? i : 0);
    }
    return numbers;
  }

  std::vector<float> FloatPerLayer(std::string_view key, size_t num_layers) {
    std::vector<float> numbers(num_layers);
    const GgufValue* value = PerLayer(key, num_layers);
    for (size_t i = 0; value != nullptr && i < num_layers; ++i) {
      numbers[i] = FloatAt(key, *value, value->is_array() ? i : 0);
    }
    return numbers;
  }

  // Heads may be given per layer, but this decoder has the same number in all.
  uint32_t UniformUint(std::string_view key, size_t num_layers) {
    const std::vector<uint32_t> numbers = UintPerLayer(key, num_layers);
    for (const uint32_t number : numbers) {
      if (number == numbers[0] || !status_.ok()) continue;
      status_ = Unsupported("\"", Key(key), "\" is ", numbers[0], " in layer 0 and ", number,
                            " in another, want the same everywhere");
    }
    return numbers[0];
  }

  // An optional key that only repeats what another one says.
  void Expect(std::string_view key, uint32_t wanted) {
    const uint32_t found = Uint(key, wanted);
    if (found == wanted || !status_.ok()) return;
    status_ = Unsupported("\"", Key(key), "\" is ", found, ", want ", wanted);
  }

 private:
  const GgufValue* FindOrFail(std::string_view key, bool optional) {
    const GgufValue* value = Find(key);
    if (value == nullptr && !optional && status_.ok()) {
      status_ = BadModel("\"", reader_.name(), "\": no key \"", Key(key), "\"");
    }
    return value;
  }

  const GgufValue* Scalar(std::string_view key, bool optional) {
    const GgufValue* value = FindOrFail(key, optional);
    if (value == nullptr || !value->is_array()) return value;
    Fail(key, *value, "one number");
    return nullptr;
  }

  const GgufValue* PerLayer(std::string_view key, size_t num_layers) {
    const GgufValue* value = FindOrFail(key, /*optional=*/false);
    if (value == nullptr || !value->is_array() || value->size() == num_layers) return value;
    Fail(key, *value, StrCat("one number, or one for each of ", num_layers, " layers"));
    return nullptr;
  }

  uint32_t UintAt(std::string_view key, const GgufValue& value, size_t i) {
    const std::optional<uint64_t> number = value.Unsigned(i);
    if (number && *number <= UINT32_MAX) return static_cast<uint32_t>(*number);
    Fail(key, value, "a 32-bit number that is not negative");
    return 0;
  }

  float FloatAt(std::string_view key, const GgufValue& value, size_t i) {
    if (const std::optional<double> number = value.Float(i)) return static_cast<float>(*number);
    Fail(key, value, "a floating-point number");
    return 0.0f;
  }

  void Fail(std::string_view key, const GgufValue& found, const std::string& wanted) {
    if (!status_.ok()) return;
    status_ = BadModel("\"", reader_.name(), "\": \"", Key(key), "\" is ", found.Describe(),
                       ", want ", wanted);
  }

  const GgufReader& reader_;
  Status status_;
};

Status RefuseUnknownKeys(const GgufReader& reader, bool allow, const WarningCallback& warn) {
  const std::string prefix = MetadataFields::Key("");
  for (const auto& [key, value] : reader.metadata()) {
    if (!key.starts_with(prefix) ||
        kKnownKeys.contains(std::string_view(key).substr(prefix.size()))) {
      continue;
    }
    if (!allow) {
      return Unsupported("\"", reader.name(), "\": key \"", key,
                         "\" is not known; --allow-unknown-config ignores it");
    }
    if (warn) warn(StrCat("key \"", key, "\" is ignored"));
  }
  return OkStatus();
}

// The file has the cut in standard deviations above the mean, and -inf for a dense layer; a header
// has the share of neurons below the cut. Both are f32: the cut survives within their rounding.
Result<float> SparsityOfCut(float z) {
  if (std::isnan(z)) return BadModel("activation_sparsity_scale is not a number");
  if (z <= 0.0f) return 0.0f;
  return static_cast<float>(0.5 * std::erfc(-static_cast<double>(z) / std::sqrt(2.0)));
}

Status ReadLayers(MetadataFields& fields, size_t num_layers, const WarningCallback& warn,
                  TextConfig* text) {
  const std::vector<uint32_t> widths = fields.UintPerLayer("feed_forward_length", num_layers);
  const std::vector<float> cuts = fields.FloatPerLayer("activation_sparsity_scale", num_layers);
  RETURN_IF_ERROR(fields.status());
  text->layers.resize(num_layers);
  for (size_t i = 0; i < num_layers; ++i) {
    text->layers[i].shell_ends = {widths[i]};
    ASSIGN_OR_RETURN(text->layers[i].activation_sparsity, SparsityOfCut(cuts[i]));
    text->layers[i].type =
        (i + 1) % kDefaultPatternPeriod == 0 ? LayerType::kFull : LayerType::kSliding;
  }
  // One number is the period, which Gemma 3n fixes; some files repeat another family's.
  const char* const key = "attention.sliding_window_pattern";
  const GgufValue* pattern = fields.Find(key);
  if (pattern == nullptr) return OkStatus();
  if (!pattern->is_array()) {
    if (pattern->Unsigned(0) != kDefaultPatternPeriod && warn) {
      warn(StrCat("\"", MetadataFields::Key(key), "\" is not ", kDefaultPatternPeriod,
                  ", the period of Gemma 3n: it is ignored"));
    }
    return OkStatus();
  }
  if (pattern->type() != GgufType::kBool || pattern->size() != num_layers) {
    return BadModel("\"", MetadataFields::Key(key), "\" is ", pattern->Describe(), ", want ",
                    num_layers, " bool");
  }
  for (size_t i = 0; i < num_layers; ++i) {
    text->layers[i].type = *pattern->Bool(i) ? LayerType::kSliding : LayerType::kFull;
  }
  return OkStatus();
}

Result<uint32_t> RowsOf(const GgufReader& reader, const char* tensor_name) {
  const SourceTensor* tensor = reader.Find(tensor_name);
  if (tensor == nullptr) {
    return BadModel("\"", reader.name(), "\": no tensor \"", tensor_name, "\"");
  }
  if (tensor->shape.size() != 2 || tensor->shape[0] > UINT32_MAX) {
    return BadModel("tensor \"", tensor->name, "\": shape ", ShapeText(tensor->shape),
                    ", want a matrix");
  }
  return static_cast<uint32_t>(tensor->shape[0]);
}

// Rows of the PLE table that are not appended ones: those are zero, stand for soft tokens, and must
// not be found by an id (the model uses row 0 for soft tokens).
Result<uint32_t> PleRows(const GgufReader& reader) {
  ASSIGN_OR_RETURN(const uint32_t rows, RowsOf(reader, kGgufPleTable));
  ASSIGN_OR_RETURN(const uint32_t vocab, RowsOf(reader, kGgufEmbedding));
  if (rows <= kSoftTokenRows || (rows < vocab && vocab - rows == kSoftTokenRows)) return rows;
  const SourceTensor& table = *reader.Find(kGgufPleTable);
  const uint64_t length = table.shape[1];
  std::vector<float> values(std::min<uint64_t>(length, 1 << 16));
  for (uint64_t at = (rows - kSoftTokenRows) * length; at < table.num_elements;
       at += values.size()) {
    const auto part = std::span(values).first(
        static_cast<size_t>(std::min<uint64_t>(values.size(), table.num_elements - at)));
    RETURN_IF_ERROR(reader.Read(table, at, part));
    const bool zero = std::all_of(part.begin(), part.end(), [](float x) { return x == 0.0f; });
    if (!zero) return rows;
  }
  return rows - static_cast<uint32_t>(kSoftTokenRows);
}

Result<TextConfig> ReadText(const GgufReader& reader, const WarningCallback& warn) {
  MetadataFields fields(reader);
  TextConfig text;
  const uint32_t num_layers = fields.Uint("block_count");
  RETURN_IF_ERROR(fields.status());
  if (num_layers == 0 || num_layers > kMaxLayers) {
    return BadModel("\"", reader.name(), "\": \"", MetadataFields::Key("block_count"), "\" is ",
                    num_layers, ", want 1 to ", kMaxLayers);
  }
  text.hidden_size = fields.Uint("embedding_length");
  text.ple_dim = fields.Uint("embedding_length_per_layer_input");
  text.num_heads = fields.UniformUint("attention.head_count", num_layers);
  text.num_kv_heads = fields.UniformUint("attention.head_count_kv", num_layers);
  text.head_dim = fields.Uint("attention.key_length");
  for (const char* key :
       {"attention.value_length", "attention.key_length_swa", "attention.value_length_swa",
        "rope.dimension_count", "rope.dimension_count_swa"}) {
    fields.Expect(key, text.head_dim);
  }
  text.num_kv_shared_layers = fields.Uint("attention.shared_kv_layers");
  text.sliding_window = fields.Uint("attention.sliding_window");
  text.max_position_embeddings = fields.Uint("context_length");
  text.rope_theta_full = fields.Float("rope.freq_base", 1e6f);
  text.rope_theta_sliding = fields.Float("rope.freq_base_swa", 1e4f);
  text.rms_norm_eps = fields.Float("attention.layer_norm_rms_epsilon");
  text.final_logit_softcap = fields.Float("final_logit_softcapping", 30.0f);
  text.altup_num_inputs = fields.Uint("altup.num_inputs", 4);
  text.altup_active_idx = fields.Uint("altup.active_idx", 0);
  text.altup_correct_scale = reader.Find("blk.0.altup_correct_scale.weight") != nullptr;
  RETURN_IF_ERROR(fields.status());
  RETURN_IF_ERROR(ReadLayers(fields, num_layers, warn, &text));
  ASSIGN_OR_RETURN(text.vocab_size, RowsOf(reader, kGgufEmbedding));
  ASSIGN_OR_RETURN(text.ple_vocab_size, PleRows(reader));
  ASSIGN_OR_RETURN(text.laurel_rank, RowsOf(reader, "blk.0.laurel_l.weight"));
  return text;
}

// tokenizer.ggml.tokens as an array of strings, or nullptr.
const GgufValue* Tokens(const GgufReader& reader) {
  const GgufValue* tokens = reader.FindValue("tokenizer.ggml.tokens");
  const bool usable =
      tokens != nullptr && tokens->is_array() && tokens->type() == GgufType::kString;
  return usable ? tokens : nullptr;
}

Result<int32_t> TokenId(const GgufReader& reader, const char* key, int32_t otherwise) {
  const GgufValue* value = reader.FindValue(StrCat("tokenizer.ggml.", key));
  if (value == nullptr) return otherwise;
  const std::optional<uint64_t> id = value->is_array() ? std::nullopt : value->Unsigned(0);
  if (!id || *id > INT32_MAX) {
    return BadModel("\"tokenizer.ggml.", key, "\" is ", value->Describe(), ", want a token id");
  }
  return static_cast<int32_t>(*id);
}

// Ends of turns besides eos, which some files set to one and some to the other.
std::vector<int32_t> StopTokens(const GgufReader& reader, const TextConfig& text, int32_t eos,
                                int32_t eot) {
  std::vector<int32_t> stops = {eos};
  const auto add = [&stops](int32_t id) {
    if (id >= 0 && std::find(stops.begin(), stops.end(), id) == stops.end()) stops.push_back(id);
  };
  add(eot);
  const GgufValue* tokens = Tokens(reader);
  if (tokens == nullptr) return stops;
  for (size_t i = 0; i < std::min<size_t>(tokens->size(), text.ple_vocab_size); ++i) {
    const std::string& token = *tokens->String(i);
    if (token == "<eos>" || token == "<end_of_turn>") add(static_cast<int32_t>(i));
  }
  return stops;
}

// Newer files repeat generation_config.json.
void ReadSampling(const GgufReader& reader, GenerationConfig* generation) {
  const auto number = [&reader](const char* key) -> std::optional<double> {
    const GgufValue* value = reader.FindValue(StrCat("general.sampling.", key));
    if (value == nullptr || value->is_array()) return std::nullopt;
    if (const auto whole = value->Unsigned(0)) return static_cast<double>(*whole);
    return value->Float(0);
  };
  if (const auto top_k = number("top_k"); top_k && *top_k >= 0 && *top_k <= UINT32_MAX) {
    generation->top_k = static_cast<uint32_t>(*top_k);
    generation->do_sample = true;
  }
  if (const auto top_p = number("top_p")) {
    generation->top_p = static_cast<float>(*top_p);
    generation->do_sample = true;
  }
  if (const auto temperature = number("temp")) {
    generation->temperature = static_cast<float>(*temperature);
    generation->do_sample = true;
  }
}

// A piece as SentencePiece spells it. Converters write the added ones with plain spaces.
std::string PieceText(const std::string& token, PieceType type) {
  if (type != PieceType::kNormal && type != PieceType::kUserDefined) return token;
  std::string text;
  for (const char c : token) {
    if (c == ' ') {
      text += kSpaceMark;
    } else {
      text += c;
    }
  }
  return text;
}

}  // namespace

Result<HeaderFields> ReadGgufHeader(const GgufReader& reader, bool allow_unknown_config,
                                    const WarningCallback& warn) {
  const GgufValue* architecture = reader.FindValue("general.architecture");
  const std::string* name =
      architecture == nullptr || architecture->is_array() ? nullptr : architecture->String(0);
  if (name == nullptr || *name != kArchitecture) {
    return Unsupported("\"", reader.name(), "\": general.architecture is ",
                       name == nullptr ? "missing" : "another", ", want \"", kArchitecture, "\"",
                       name != nullptr && *name == "clip"
                           ? " (the towers of an mmproj file are not "
                             "read)"
                           : "");
  }
  RETURN_IF_ERROR(RefuseUnknownKeys(reader, allow_unknown_config, warn));
  HeaderFields fields;
  ASSIGN_OR_RETURN(fields.text, ReadText(reader, warn));
  SpecialTokens& special = fields.special_tokens;
  ASSIGN_OR_RETURN(special.bos, TokenId(reader, "bos_token_id", 2));
  ASSIGN_OR_RETURN(special.eos, TokenId(reader, "eos_token_id", 1));
  ASSIGN_OR_RETURN(special.pad, TokenId(reader, "padding_token_id", 0));
  ASSIGN_OR_RETURN(special.unk, TokenId(reader, "unknown_token_id", -1));
  ASSIGN_OR_RETURN(const int32_t eot, TokenId(reader, "eot_token_id", -1));
  fields.generation.stop_tokens = StopTokens(reader, fields.text, special.eos, eot);
  ReadSampling(reader, &fields.generation);
  const GgufValue* chat_template = reader.FindValue("tokenizer.chat_template");
  if (chat_template != nullptr && !chat_template->is_array() &&
      chat_template->String(0) != nullptr) {
    fields.chat_template = *chat_template->String(0);
  }
  return fields;
}

Result<std::vector<std::byte>> ReadGgufTokenizer(const GgufReader& reader,
                                                 const HeaderFields& fields,
                                                 const WarningCallback& warn) {
  const auto without = [&warn](const std::string& why) {
    if (warn) warn(why + ": the container can evaluate token ids, but no text");
    return std::vector<std::byte>();
  };
  const GgufValue* model = reader.FindValue("tokenizer.ggml.model");
  if (model == nullptr || model->is_array() || model->String(0) == nullptr) {
    return without("the file has no tokenizer");
  }
  if (*model->String(0) != "llama") {
    return without("tokenizer.ggml.model is not \"llama\", the SentencePiece vocabulary");
  }
  const GgufValue* space_prefix = reader.FindValue("tokenizer.ggml.add_space_prefix");
  if (space_prefix != nullptr && !space_prefix->is_array() &&
      space_prefix->Bool(0).value_or(false)) {
    return without("tokenizer.ggml.add_space_prefix is true, unlike Gemma's");
  }
  const GgufValue* tokens = Tokens(reader);
  if (tokens == nullptr) return BadModel("tokenizer.ggml.tokens: want an array of strings");
  const size_t count = std::min<size_t>(tokens->size(), fields.text.ple_vocab_size);
  if (count > kMaxPieces) {
    return BadModel("tokenizer.ggml.tokens: ", count, " pieces, want at most ", kMaxPieces);
  }
  const GgufValue* scores = reader.FindValue("tokenizer.ggml.scores");
  const GgufValue* types = reader.FindValue("tokenizer.ggml.token_type");
  for (const auto& [key, array] : {std::pair("scores", scores), std::pair("token_type", types)}) {
    if (array == nullptr || !array->is_array() || array->size() != tokens->size()) {
      return BadModel("tokenizer.ggml.", key, ": want one for each of the ", tokens->size(),
                      " tokens");
    }
  }
  std::vector<std::string> texts;
  std::vector<Piece> pieces(count);
  texts.reserve(count);
  for (size_t i = 0; i < count; ++i) {
    const std::optional<uint64_t> type = types->Unsigned(i);
    const std::optional<double> score = scores->Float(i);
    if (!type || *type < 1 || *type > 6 || !score) {
      return BadModel("tokenizer.ggml: token ", i, ": want a score and a type of 1 to 6");
    }
    pieces[i].type = static_cast<PieceType>(*type);
    pieces[i].score = static_cast<float>(*score);
    texts.push_back(PieceText(*tokens->String(i), pieces[i].type));
    pieces[i].text = texts.back();
  }
  const std::string bytes = BuildSentencePieceModel(pieces);
  const auto built = std::as_bytes(std::span(bytes));
  // Everything that reads the container relies on it.
  const auto tokenizer = Tokenizer::Create(built, fields.special_tokens);
  if (!tokenizer.ok()) return tokenizer.status();
  RETURN_IF_ERROR((*tokenizer)->WaitUntilReady());
  return std::vector<std::byte>(built.begin(), built.end());
}

}  // namespace nestling
