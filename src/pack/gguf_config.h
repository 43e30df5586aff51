// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <vector>

#include "base/status.h"
#include "container/header_fields.h"
#include "pack/gguf.h"
#include "pack/hf_config.h"

namespace nestling {

// The header of a model of architecture "gemma3n", without towers: what its metadata say, and what
// only the shapes of its tensors do (vocabulary, LAuReL rank). Every layer gets one shell of its
// full width. A "gemma3n." key that this version does not know may change the arithmetic:
// kUnsupported names it, unless `allow_unknown_config` turns that into a warning.
Result<HeaderFields> ReadGgufHeader(const GgufReader& reader, bool allow_unknown_config,
                                    const WarningCallback& warn);

// The vocabulary of the text as a SentencePiece model file. Empty, with a warning, for a model
// without one or with one of another kind (its merges say nothing about scores).
Result<std::vector<std::byte>> ReadGgufTokenizer(const GgufReader& reader,
                                                 const HeaderFields& fields,
                                                 const WarningCallback& warn);

}  // namespace nestling
