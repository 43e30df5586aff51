// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "base/status.h"
#include "modality/media.h"
#include "modality/towers.h"
#include "nestling/nestling.h"

// Images and sounds as C callers pass them. Messages begin with the argument's name.

namespace nestling {

// The caller's parts, of whatever version of the struct, as ours.
Result<std::vector<nestling_part>> ReadParts(const nestling_part* parts, size_t num_parts,
                                             const char* name);
Result<nestling_part> ReadPart(const nestling_part* part, const char* name);

// What an image or a sound takes in a prompt; encodes nothing.
Result<MediaSize> MeasurePart(const Towers& towers, size_t hidden_size, const nestling_part& part,
                              const std::string& name);
// Encodes it, if it is not encoded yet.
Result<Media> EncodePart(Towers& towers, size_t hidden_size, const nestling_part& part,
                         const std::string& name);

}  // namespace nestling
