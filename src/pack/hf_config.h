// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "base/status.h"
#include "container/header_fields.h"

namespace nestling {

// For people: what was left out or assumed.
using WarningCallback = std::function<void(const std::string&)>;

// Reads config.json as transformers 4.x and 5.x write it, for Gemma3nForCausalLM and
// Gemma3nForConditionalGeneration. Every layer gets one shell of its full width. A key that this
// version does not know may change the arithmetic: kUnsupported names it, unless
// `allow_unknown_config` turns that into a warning. `warn` may be empty.
Result<HeaderFields> ParseHfConfig(std::string_view config_json, bool allow_unknown_config,
                                   const WarningCallback& warn);

// generation_config.json; its stop tokens come before those that `fields` already has.
Status ParseGenerationConfig(std::string_view json, HeaderFields* fields);

// All of a Hugging Face folder that goes into the header: config.json, and if they are there
// generation_config.json, preprocessor_config.json and the chat template (chat_template.jinja,
// chat_template.json or tokenizer_config.json).
Result<HeaderFields> ReadHfFolder(const std::string& folder, bool allow_unknown_config,
                                  const WarningCallback& warn);

}  // namespace nestling
