// SPDX-License-Identifier: Apache-2.0
#include "pack/slicing.h"

#include <algorithm>
#include <filesystem>
#include <string_view>
#include <utility>

#include "base/file.h"
#include "model/slices.h"
#include "pack/json_util.h"

namespace nestling {
namespace {

constexpr uint64_t kMaxSliceFileBytes = 1 << 20;

void AddShell(uint32_t width, LayerConfig* layer) {
  std::vector<uint32_t>& ends = layer->shell_ends;
  const auto place = std::lower_bound(ends.begin(), ends.end(), width);
  // Zero, or more than the layer has: the validation of the slice says so.
  if (width == 0 || place == ends.end() || *place == width) return;
  ends.insert(place, width);
}

// One width per kept layer.
void AddShells(const std::vector<uint32_t>& skip_layers, const std::vector<uint32_t>& ffn,
               TextConfig* text) {
  auto width = ffn.begin();
  for (uint32_t i = 0; i < text->num_layers() && width != ffn.end(); ++i) {
    if (std::find(skip_layers.begin(), skip_layers.end(), i) != skip_layers.end()) continue;
    AddShell(*width++, &text->layers[i]);
  }
}

std::vector<uint32_t> NumbersOf(const Json& object, const char* key) {
  std::vector<uint32_t> numbers;
  const auto it = object.find(key);
  if (it == object.end() || !it->is_array()) return numbers;
  for (const Json& item : *it) {
    if (!item.is_number_unsigned() || item.get<uint64_t>() > UINT32_MAX) return {};
    numbers.push_back(item.get<uint32_t>());
  }
  return numbers;
}

// A slice whose widths may be anything up to the layers' own: they become boundaries.
Result<SliceConfig> ReadSliceFile(const std::string& path, TextConfig* text) {
  ASSIGN_OR_RETURN(const std::string json, ReadFile(path, kMaxSliceFileBytes));
  TextConfig widened = *text;
  // Leniently here: what is wrong with the file, ParseSliceJson will say.
  const Result<Json> object = ParseJson(json, path);
  if (object.ok() && object->is_object()) {
    AddShells(NumbersOf(*object, "skip_layers"), NumbersOf(*object, "ffn"), &widened);
  }
  Result<SliceConfig> slice = ParseSliceJson(json, widened);
  if (!slice.ok()) {
    return Status(slice.status().code(), StrCat("\"", path, "\": ", slice.status().message()));
  }
  *text = std::move(widened);
  return slice;
}

bool IsFile(const std::string& path) {
  std::error_code ignored;
  return std::filesystem::is_regular_file(path, ignored);
}

const SliceConfig* FindByName(const std::vector<SliceConfig>& slices, std::string_view name) {
  const auto it = std::find_if(slices.begin(), slices.end(),
                               [name](const SliceConfig& slice) { return slice.name == name; });
  return it == slices.end() ? nullptr : &*it;
}

Status AddSliceFile(const std::string& path, HeaderFields* fields) {
  ASSIGN_OR_RETURN(SliceConfig slice, ReadSliceFile(path, &fields->text));
  if (slice.name == kWholeModel || FindByName(fields->slices, slice.name) != nullptr) {
    return InvalidArgument("\"", path, "\": the model already has a slice \"", slice.name, "\"");
  }
  fields->slices.push_back(std::move(slice));
  return OkStatus();
}

}  // namespace

Result<std::optional<SliceConfig>> ResolveSlices(const std::vector<std::string>& add_files,
                                                 const std::string& chosen, HeaderFields* fields) {
  fields->slices = PublishedSlices(fields->text);
  for (const SliceConfig& slice : fields->slices) {
    AddShells(slice.skip_layers, slice.ffn, &fields->text);
  }
  for (const std::string& path : add_files) RETURN_IF_ERROR(AddSliceFile(path, fields));
  if (chosen.empty()) return std::optional<SliceConfig>();
  if (!chosen.ends_with(".json") && !IsFile(chosen)) {
    ASSIGN_OR_RETURN(SliceConfig slice, FindSlice(*fields, chosen));
    return std::optional(std::move(slice));
  }
  ASSIGN_OR_RETURN(SliceConfig slice, ReadSliceFile(chosen, &fields->text));
  // Under its name in the new container, unless --add-slice gave the same file.
  if (FindByName(fields->slices, slice.name) == nullptr) fields->slices.push_back(slice);
  return std::optional(std::move(slice));
}

std::vector<uint32_t> KeptLayers(const TextConfig& text, const SliceConfig& slice) {
  std::vector<uint32_t> kept;
  for (uint32_t i = 0; i < text.num_layers(); ++i) {
    const auto& skipped = slice.skip_layers;
    if (!std::binary_search(skipped.begin(), skipped.end(), i)) kept.push_back(i);
  }
  return kept;
}

TextConfig SliceText(const TextConfig& text, const SliceConfig& slice) {
  TextConfig sliced = text;
  sliced.layers.clear();
  sliced.num_kv_shared_layers = 0;
  const std::vector<uint32_t> kept = KeptLayers(text, slice);
  for (size_t i = 0; i < kept.size(); ++i) {
    LayerConfig layer = text.layers[kept[i]];
    std::erase_if(layer.shell_ends, [&](uint32_t end) { return end > slice.ffn[i]; });
    sliced.layers.push_back(std::move(layer));
    if (kept[i] >= text.first_kv_shared_layer()) ++sliced.num_kv_shared_layers;
  }
  return sliced;
}

std::vector<SliceConfig> SlicesInside(const TextConfig& text, const SliceConfig& slice,
                                      const std::vector<SliceConfig>& slices) {
  const std::vector<uint32_t> kept = KeptLayers(text, slice);
  std::vector<SliceConfig> inside;
  for (const SliceConfig& candidate : slices) {
    SliceConfig renumbered = candidate;
    renumbered.skip_layers.clear();
    size_t used = 0;  // of candidate.ffn
    bool fits = true;
    for (size_t i = 0; i < kept.size(); ++i) {
      const auto& skipped = candidate.skip_layers;
      if (std::binary_search(skipped.begin(), skipped.end(), kept[i])) {
        renumbered.skip_layers.push_back(static_cast<uint32_t>(i));
      } else {
        fits = fits && used < candidate.ffn.size() && candidate.ffn[used] <= slice.ffn[i];
        ++used;
      }
    }
    // A candidate that keeps a layer which is gone has widths left over.
    if (fits && used == candidate.ffn.size()) inside.push_back(std::move(renumbered));
  }
  return inside;
}

}  // namespace nestling
