// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "base/status.h"
#include "container/reader.h"

namespace nestling {

// A container as one JSON object, two spaces of indentation: "container" (version, hash, bytes),
// "provenance", "text" (configuration), "layers", "sections", "tensors" (count and bytes per element
// type), "parameters" (numbers and bytes per group), "slices", "special_tokens", "generation",
// "towers", "chat_template". Reads the header only.
std::string InspectJson(const ContainerReader& reader);

}  // namespace nestling
