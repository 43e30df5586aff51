// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "container/header_fields.h"

namespace nestling {

inline constexpr const char* kWholeModel = "whole";

// Every layer at its full width: what a container runs when nobody chooses. Named kWholeModel.
SliceConfig WholeModelSlice(const TextConfig& text);

// The published MatFormer configurations of Gemma 3n E4B (gemma3n.md 3.2), with `text`'s widths
// for 16384 and half of them for 8192. Empty unless `text` has E4B's layers: 35, of which 15 share
// keys and values, all of one even width. Needs no shells yet: pack takes the shells from here.
std::vector<SliceConfig> PublishedSlices(const TextConfig& text);

// A slice of the header by name; kWholeModel and the empty name are the whole model, and
// "E2.98B-layer" is the published "E2.98B". kNotFound lists the names that there are.
Result<SliceConfig> FindSlice(const HeaderFields& header, std::string_view name);

// A custom slice: {"name": "mine", "skip_layers": [20], "ffn": [8192, ...]}, `skip_layers`
// optional. Strict: unknown, missing and repeated keys, wrong types and whatever ValidateSlice
// refuses are kInvalidArgument. Computes effective_parameters.
Result<SliceConfig> ParseSliceJson(std::string_view json, const TextConfig& text);

}  // namespace nestling
