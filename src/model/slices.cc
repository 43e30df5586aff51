// SPDX-License-Identifier: Apache-2.0
#include "model/slices.h"

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "model/tensor_names.h"

namespace nestling {
namespace {

constexpr size_t kMaxJsonBytes = 1 << 20;
constexpr std::string_view kLayerSuffix = "-layer";

struct Span {
  int first;
  int last;  // inclusive, as in the published table
};

struct Published {
  const char* name;
  const char* description;
  float accuracy;          // MMLU of the pre-trained model, percent
  bool skips_five;         // layers 20 to 24
  std::vector<Span> wide;  // layers of the resulting model at full width; the others have half
};

const std::vector<Published>& PublishedTable() {
  static const std::vector<Published> table = {
      {"E4B", "the whole model", 62.3f, false, {{0, 34}}},
      {"E2B", "the official E2B", 50.9f, true, {}},
      {"E1.96B", "layer-level, 1.96B", 53.4f, true, {{4, 4}}},
      {"E2.54B", "layer-level, 2.54B", 55.4f, false, {{4, 4}, {20, 24}}},
      {"E2.69B", "layer-level, 2.69B", 57.7f, false, {{4, 4}, {9, 9}, {14, 14}, {19, 24}}},
      {"E2.98B", "layer-level, 2.98B", 59.5f, false, {{15, 24}, {30, 34}}},
      {"E3.18B", "layer-level, 3.18B", 61.8f, false, {{4, 4}, {9, 24}, {29, 29}, {34, 34}}},
      {"E3.39B", "layer-level, 3.39B", 63.0f, false, {{4, 4}, {9, 29}, {34, 34}}},
      {"E3.59B", "layer-level, 3.59B", 63.4f, false, {{4, 29}, {34, 34}}},
      {"E3.79B", "layer-level, 3.79B", 63.4f, false, {{4, 34}}},
      {"E2.49B-block", "block-level, 2.49B", 54.5f, false, {{20, 24}}},
      {"E2.73B-block", "block-level, 2.73B", 57.1f, false, {{15, 24}}},
      {"E2.98B-block", "block-level, 2.98B", 59.5f, false, {{10, 24}}},
      {"E3.24B-block", "block-level, 3.24B", 60.7f, false, {{10, 29}}},
      {"E3.49B-block", "block-level, 3.49B", 61.4f, false, {{5, 29}}},
      {"E3.79B-block", "block-level, 3.74B", 62.0f, false, {{5, 34}}},
  };
  return table;
}

bool HasLayersOfE4B(const TextConfig& text) {
  if (text.num_layers() != 35 || text.num_kv_shared_layers != 15) return false;
  const uint32_t width = text.layers[0].ffn_width();
  return width % 2 == 0 &&
         std::all_of(text.layers.begin(), text.layers.end(),
                     [width](const LayerConfig& layer) { return layer.ffn_width() == width; });
}

// ---- Custom slices ----

using Json = nlohmann::json;

Status WrongType(const char* key, const char* wanted) {
  return InvalidArgument("slice JSON: \"", key, "\" is not ", wanted);
}

Result<std::vector<uint32_t>> ParseNumbers(const Json& value, const char* key) {
  constexpr const char* kWanted = "an array of whole numbers from 0 to 4294967295";
  if (!value.is_array()) return WrongType(key, kWanted);
  std::vector<uint32_t> numbers;
  for (const Json& item : value) {
    if (!item.is_number_unsigned() || item.get<uint64_t>() > std::numeric_limits<uint32_t>::max()) {
      return WrongType(key, kWanted);
    }
    numbers.push_back(static_cast<uint32_t>(item.get<uint64_t>()));
  }
  return numbers;
}

// The parsed object; a repeated key of the outer object, of which the parser would silently keep
// the last, is an error.
Result<Json> ParseObject(std::string_view text) {
  if (text.size() > kMaxJsonBytes) {
    return InvalidArgument("slice JSON: ", text.size(), " bytes, at most ", kMaxJsonBytes);
  }
  std::set<std::string> keys;
  std::string repeated;
  const auto watch = [&](int depth, Json::parse_event_t event, Json& parsed) {
    if (event == Json::parse_event_t::key && depth == 1) {
      const std::string key = parsed.get<std::string>();
      if (!keys.insert(key).second) repeated = key;
    }
    return true;
  };
  Json json = Json::parse(text.begin(), text.end(), watch, /*allow_exceptions=*/false);
  if (json.is_discarded() || !json.is_object()) {
    return InvalidArgument("slice JSON: not a JSON object");
  }
  if (!repeated.empty()) return InvalidArgument("slice JSON: \"", repeated, "\" appears twice");
  return json;
}

}  // namespace

SliceConfig WholeModelSlice(const TextConfig& text) {
  SliceConfig slice;
  slice.name = kWholeModel;
  slice.description = "the whole model";
  for (const LayerConfig& layer : text.layers) slice.ffn.push_back(layer.ffn_width());
  slice.effective_parameters = EffectiveParameters(text, slice);
  return slice;
}

std::vector<SliceConfig> PublishedSlices(const TextConfig& text) {
  std::vector<SliceConfig> slices;
  if (!HasLayersOfE4B(text)) return slices;
  const uint32_t width = text.layers[0].ffn_width();
  for (const Published& published : PublishedTable()) {
    SliceConfig slice;
    slice.name = published.name;
    slice.description = published.description;
    slice.published_accuracy = published.accuracy;
    if (published.skips_five) slice.skip_layers = {20, 21, 22, 23, 24};
    // The table counts the layers that are kept, and so does `ffn`.
    slice.ffn.assign(text.layers.size() - slice.skip_layers.size(), width / 2);
    for (const Span& span : published.wide) {
      std::fill(slice.ffn.begin() + span.first, slice.ffn.begin() + span.last + 1, width);
    }
    slice.effective_parameters = EffectiveParameters(text, slice);
    slices.push_back(std::move(slice));
  }
  return slices;
}

Result<SliceConfig> FindSlice(const HeaderFields& header, std::string_view name) {
  const auto find = [&header](std::string_view wanted) -> const SliceConfig* {
    for (const SliceConfig& slice : header.slices) {
      if (slice.name == wanted) return &slice;
    }
    return nullptr;
  };
  if (const SliceConfig* slice = find(name); slice != nullptr) return *slice;
  if (name.empty() || name == kWholeModel) return WholeModelSlice(header.text);
  if (name.ends_with(kLayerSuffix)) {
    const std::string_view stem = name.substr(0, name.size() - kLayerSuffix.size());
    const SliceConfig* slice = find(stem);
    if (slice != nullptr && slice->description.starts_with("layer-level")) return *slice;
  }
  std::string known = kWholeModel;
  for (const SliceConfig& slice : header.slices) known += StrCat(", ", slice.name);
  return NotFound("slice \"", name, "\", this container has ", known);
}

Result<SliceConfig> ParseSliceJson(std::string_view json, const TextConfig& text) {
  ASSIGN_OR_RETURN(const Json object, ParseObject(json));
  SliceConfig slice;
  for (const auto& [key, value] : object.items()) {
    if (key == "name") {
      if (!value.is_string()) return WrongType("name", "a string");
      slice.name = value.get<std::string>();
    } else if (key == "skip_layers") {
      ASSIGN_OR_RETURN(slice.skip_layers, ParseNumbers(value, "skip_layers"));
    } else if (key == "ffn") {
      ASSIGN_OR_RETURN(slice.ffn, ParseNumbers(value, "ffn"));
    } else {
      return InvalidArgument("slice JSON: unknown key \"", key,
                             "\", want name, skip_layers and ffn");
    }
  }
  for (const char* key : {"name", "ffn"}) {
    if (!object.contains(key)) return InvalidArgument("slice JSON: \"", key, "\" is missing");
  }
  if (Status status = ValidateSlice(text, slice); !status.ok()) {
    return InvalidArgument(status.message());
  }
  slice.effective_parameters = EffectiveParameters(text, slice);
  return slice;
}

}  // namespace nestling
