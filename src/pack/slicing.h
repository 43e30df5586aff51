// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/status.h"
#include "container/header_fields.h"

namespace nestling {

// Fills `fields->slices` with the published configurations and the slices of `add_files` (JSON,
// see ParseSliceJson), and makes every width of theirs a shell boundary. `chosen`, the name of one
// of them or another JSON file, is returned; its widths become boundaries too.
Result<std::optional<SliceConfig>> ResolveSlices(const std::vector<std::string>& add_files,
                                                 const std::string& chosen, HeaderFields* fields);

// Layers of `text` that `slice` keeps, ascending.
std::vector<uint32_t> KeptLayers(const TextConfig& text, const SliceConfig& slice);

// The configuration of `slice` as a model of its own: skipped layers are gone, the others have the
// shells up to their width. Same shells, same bytes: running it equals running the slice.
TextConfig SliceText(const TextConfig& text, const SliceConfig& slice);

// Those of `slices` that are inside `slice`, itself among them, numbered as in SliceText().
std::vector<SliceConfig> SlicesInside(const TextConfig& text, const SliceConfig& slice,
                                      const std::vector<SliceConfig>& slices);

}  // namespace nestling
