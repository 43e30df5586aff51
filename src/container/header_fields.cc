// SPDX-License-Identifier: Apache-2.0
#include "container/header_fields.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <string_view>

#include "container/types.h"

namespace nestling {
namespace {

// Far above every model of this family and far below what would overflow a size computation:
// a product of any two of these fits 64 bits with room for element sizes and layer counts.
constexpr uint32_t kMaxVocab = 1u << 24;
constexpr uint32_t kMaxWidth = 1u << 20;  // hidden size, FFN width, all heads together
constexpr uint32_t kMaxLayers = 1024;
constexpr uint32_t kMaxPositions = 1u << 24;
constexpr uint32_t kMaxSoftTokens = 1u << 16;
constexpr size_t kMaxSliceNameBytes = 128;
constexpr size_t kMaxSlices = 256;

Status CheckRange(const char* field, uint64_t found, uint64_t least, uint64_t most) {
  if (found >= least && found <= most) return OkStatus();
  return BadModel(field, ": ", found, ", want ", least, " to ", most);
}

// False for NaN as well.
Status CheckReal(const char* field, float found, float least, float most) {
  if (found >= least && found <= most) return OkStatus();
  return BadModel(field, ": ", found, ", want ", least, " to ", most);
}

Status CheckPositive(const char* field, float found, float most) {
  if (found > 0.0f && found <= most) return OkStatus();
  return BadModel(field, ": ", found, ", want above 0 and at most ", most);
}

// Well-formed UTF-8 (no overlong forms, surrogates or NUL): strings of the header go into JSON and
// through C strings.
bool IsCleanUtf8(std::string_view text) {
  for (size_t i = 0; i < text.size();) {
    const auto lead = static_cast<unsigned char>(text[i]);
    const size_t length = lead < 0x80 ? 1 : lead >> 5 == 6 ? 2 : lead >> 4 == 14 ? 3 : 4;
    if (lead == 0 || (lead >= 0x80 && lead < 0xc2) || lead > 0xf4 || text.size() - i < length) {
      return false;
    }
    uint32_t code = length == 1 ? lead : lead & (0x7fu >> length);
    for (size_t k = 1; k < length; ++k) {
      const auto next = static_cast<unsigned char>(text[i + k]);
      if (next >> 6 != 2) return false;
      code = code << 6 | (next & 0x3fu);
    }
    constexpr uint32_t kLeast[] = {0, 0, 0x80, 0x800, 0x10000};
    if (code < kLeast[length] || code > 0x10ffff || (code >= 0xd800 && code < 0xe000)) {
      return false;
    }
    i += length;
  }
  return true;
}

Status CheckText(const char* field, std::string_view text) {
  if (IsCleanUtf8(text)) return OkStatus();
  return BadModel(field, ": not valid UTF-8 text");
}

Status ValidateLayer(const LayerConfig& layer) {
  if (!(layer.activation_sparsity >= 0.0f && layer.activation_sparsity < 1.0f)) {
    return BadModel("activation_sparsity ", layer.activation_sparsity, ", want [0, 1)");
  }
  RETURN_IF_ERROR(CheckRange("shells", layer.shell_ends.size(), 1, kMaxShells));
  uint32_t previous = 0;
  for (const uint32_t end : layer.shell_ends) {
    if (end <= previous || end > kMaxWidth) {
      return BadModel("shell end ", end, " after ", previous, ", want ascending up to ", kMaxWidth);
    }
    previous = end;
  }
  return OkStatus();
}

// Every shared layer needs an owner of its own type before the first shared one.
Status ValidateKvSharing(const TextConfig& text) {
  if (text.num_kv_shared_layers >= text.num_layers()) {
    return BadModel("num_kv_shared_layers: ", text.num_kv_shared_layers, ", want fewer than the ",
                    text.num_layers(), " layers");
  }
  const uint32_t first_shared = text.first_kv_shared_layer();
  for (uint32_t i = first_shared; i < text.num_layers(); ++i) {
    const LayerType type = text.layers[i].type;
    const auto owners_end = text.layers.begin() + first_shared;
    const bool has_owner =
        std::any_of(text.layers.begin(), owners_end,
                    [type](const LayerConfig& owner) { return owner.type == type; });
    if (!has_owner) {
      return BadModel("layer ", i, " shares keys and values, but no ",
                      type == LayerType::kFull ? "full-attention" : "sliding-window",
                      " layer before layer ", first_shared, " owns any");
    }
  }
  return OkStatus();
}

Status ValidateText(const TextConfig& text) {
  RETURN_IF_ERROR(CheckRange("vocab_size", text.vocab_size, 1, kMaxVocab));
  RETURN_IF_ERROR(CheckRange("ple_vocab_size", text.ple_vocab_size, 1, text.vocab_size));
  RETURN_IF_ERROR(CheckRange("hidden_size", text.hidden_size, 1, kMaxWidth));
  RETURN_IF_ERROR(CheckRange("ple_dim", text.ple_dim, 1, kMaxPleDim));
  RETURN_IF_ERROR(CheckRange("num_heads", text.num_heads, 1, 1024));
  RETURN_IF_ERROR(CheckRange("num_kv_heads", text.num_kv_heads, 1, text.num_heads));
  if (text.num_heads % text.num_kv_heads != 0) {
    return BadModel("num_heads: ", text.num_heads, ", want a multiple of the ", text.num_kv_heads,
                    " kv heads");
  }
  RETURN_IF_ERROR(CheckRange("head_dim", text.head_dim, 2, 1024));
  if (text.head_dim % 2 != 0) {
    return BadModel("head_dim: ", text.head_dim, ", want an even number (rotary pairs)");
  }
  RETURN_IF_ERROR(CheckRange("sliding_window", text.sliding_window, 1, kMaxPositions));
  RETURN_IF_ERROR(
      CheckRange("max_position_embeddings", text.max_position_embeddings, 1, kMaxPositions));
  RETURN_IF_ERROR(CheckPositive("rope_theta_full", text.rope_theta_full, 1e12f));
  RETURN_IF_ERROR(CheckPositive("rope_theta_sliding", text.rope_theta_sliding, 1e12f));
  RETURN_IF_ERROR(CheckPositive("rms_norm_eps", text.rms_norm_eps, 1.0f));
  RETURN_IF_ERROR(CheckReal("final_logit_softcap", text.final_logit_softcap, 0.0f, 1e6f));
  RETURN_IF_ERROR(CheckRange("altup_num_inputs", text.altup_num_inputs, 2, 8));
  RETURN_IF_ERROR(
      CheckRange("altup_active_idx", text.altup_active_idx, 0, text.altup_num_inputs - 1));
  RETURN_IF_ERROR(CheckRange("laurel_rank", text.laurel_rank, 1, kMaxWidth));
  RETURN_IF_ERROR(CheckRange("layers", text.layers.size(), 1, kMaxLayers));
  for (uint32_t i = 0; i < text.num_layers(); ++i) {
    if (Status status = ValidateLayer(text.layers[i]); !status.ok()) {
      return BadModel("layer ", i, ": ", status.message());
    }
  }
  return ValidateKvSharing(text);
}

Status ValidateToken(const char* field, int32_t token, int32_t least, uint32_t vocab_size) {
  if (token >= least && token < static_cast<int64_t>(vocab_size)) return OkStatus();
  return BadModel(field, ": token ", token, ", want ", least, " to ", vocab_size - 1);
}

Status ValidateSpecialTokens(const SpecialTokens& tokens, uint32_t vocab_size) {
  const struct {
    const char* name;
    int32_t token;
  } all[] = {{"bos", tokens.bos},
             {"eos", tokens.eos},
             {"pad", tokens.pad},
             {"unk", tokens.unk},
             {"start_of_image", tokens.start_of_image},
             {"end_of_image", tokens.end_of_image},
             {"image_soft", tokens.image_soft},
             {"start_of_audio", tokens.start_of_audio},
             {"end_of_audio", tokens.end_of_audio},
             {"audio_soft", tokens.audio_soft}};
  for (const auto& entry : all) {
    RETURN_IF_ERROR(ValidateToken(entry.name, entry.token, -1, vocab_size));
  }
  return OkStatus();
}

Status ValidateGeneration(const GenerationConfig& generation, uint32_t vocab_size) {
  RETURN_IF_ERROR(CheckReal("temperature", generation.temperature, 0.0f, 1e6f));
  RETURN_IF_ERROR(CheckPositive("top_p", generation.top_p, 1.0f));
  for (const int32_t token : generation.stop_tokens) {
    RETURN_IF_ERROR(ValidateToken("stop_tokens", token, 0, vocab_size));
  }
  return OkStatus();
}

Status ValidateTower(const char* name, const TowerConfig& tower, uint32_t vocab_size) {
  if (!tower.present) return OkStatus();
  if (tower.vocab_size == 0 || tower.vocab_size > vocab_size ||
      tower.vocab_offset > vocab_size - tower.vocab_size) {
    return BadModel(name, ": tokens [", tower.vocab_offset, ", + ", tower.vocab_size,
                    "), want some below vocab_size ", vocab_size);
  }
  if (Status status = CheckRange("soft_tokens", tower.soft_tokens, 1, kMaxSoftTokens);
      !status.ok()) {
    return BadModel(name, ": ", status.message());
  }
  RETURN_IF_ERROR(CheckText(name, tower.config_json));
  return CheckText(name, tower.preprocessor_json);
}

Status ValidateTowers(const HeaderFields& fields) {
  const TowerConfig& vision = fields.vision;
  const TowerConfig& audio = fields.audio;
  RETURN_IF_ERROR(ValidateTower("vision", vision, fields.text.vocab_size));
  RETURN_IF_ERROR(ValidateTower("audio", audio, fields.text.vocab_size));
  if (vision.present && audio.present &&
      vision.vocab_offset < audio.vocab_offset + audio.vocab_size &&
      audio.vocab_offset < vision.vocab_offset + vision.vocab_size) {
    return BadModel("vision and audio: tokens from ", vision.vocab_offset, " and ",
                    audio.vocab_offset, " overlap");
  }
  return OkStatus();
}

bool IsSliceName(std::string_view name) {
  return !name.empty() && name.size() <= kMaxSliceNameBytes && IsCleanUtf8(name) &&
         std::none_of(name.begin(), name.end(),
                      [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; });
}

Status ValidateSlices(const HeaderFields& fields) {
  RETURN_IF_ERROR(CheckRange("slices", fields.slices.size(), 0, kMaxSlices));
  std::set<std::string_view> names;
  for (const SliceConfig& slice : fields.slices) {
    RETURN_IF_ERROR(ValidateSlice(fields.text, slice));
    RETURN_IF_ERROR(CheckText("slice description", slice.description));
    RETURN_IF_ERROR(CheckReal("slice published_accuracy", slice.published_accuracy, 0.0f, 100.0f));
    if (!names.insert(slice.name).second) {
      return BadModel("slice \"", slice.name, "\": there are two of this name");
    }
  }
  return OkStatus();
}

}  // namespace

Status ValidateHeaderFields(const HeaderFields& fields) {
  RETURN_IF_ERROR(ValidateText(fields.text));
  RETURN_IF_ERROR(ValidateSlices(fields));
  RETURN_IF_ERROR(ValidateGeneration(fields.generation, fields.text.vocab_size));
  RETURN_IF_ERROR(ValidateSpecialTokens(fields.special_tokens, fields.text.vocab_size));
  RETURN_IF_ERROR(ValidateTowers(fields));
  RETURN_IF_ERROR(CheckText("chat_template", fields.chat_template));
  RETURN_IF_ERROR(CheckText("provenance source", fields.provenance.source));
  RETURN_IF_ERROR(CheckText("provenance tool", fields.provenance.tool));
  return CheckText("provenance quantisation", fields.provenance.quantisation);
}

Status ValidateSlice(const TextConfig& text, const SliceConfig& slice) {
  if (!IsSliceName(slice.name)) {
    return BadModel("slice name: ", slice.name.size(), " bytes, want 1 to ", kMaxSliceNameBytes,
                    " of UTF-8 without control characters");
  }
  const std::string where = StrCat("slice \"", slice.name, "\": ");
  const uint32_t first_shared = text.first_kv_shared_layer();
  uint32_t least = 0;
  for (const uint32_t layer : slice.skip_layers) {
    if (layer < least || layer >= text.num_layers()) {
      return BadModel(where, "skips layer ", layer, ", want ascending numbers below ",
                      text.num_layers());
    }
    // A skipped owner would leave a hole in the kv cache, whose shape no slice may change, and
    // the layers that read it without keys and values.
    if (layer < first_shared) {
      return BadModel(where, "skips layer ", layer, ", which owns keys and values; only layers ",
                      first_shared, " to ", text.num_layers() - 1, " can be skipped");
    }
    least = layer + 1;
  }
  const size_t num_kept = text.layers.size() - slice.skip_layers.size();
  if (slice.ffn.size() != num_kept) {
    return BadModel(where, slice.ffn.size(), " FFN widths, want one for each of the ", num_kept,
                    " kept layers");
  }
  auto skipped = slice.skip_layers.begin();
  auto width = slice.ffn.begin();
  for (uint32_t i = 0; i < text.num_layers(); ++i) {
    if (skipped != slice.skip_layers.end() && *skipped == i) {
      ++skipped;
      continue;
    }
    const std::vector<uint32_t>& ends = text.layers[i].shell_ends;
    if (std::find(ends.begin(), ends.end(), *width) == ends.end()) {
      std::string wanted;
      for (const uint32_t end : ends) wanted += StrCat(wanted.empty() ? "" : ", ", end);
      return BadModel(where, "layer ", i, ": FFN width ", *width,
                      " is not on a shell boundary, want one of ", wanted);
    }
    ++width;
  }
  return OkStatus();
}

}  // namespace nestling
