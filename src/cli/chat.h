// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "cli/run_options.h"
#include "nestling/nestling.hpp"

namespace nestling::cli {

// Reads messages from the terminal until /exit or the end of input, and answers each; history
// stays. What the library refuses (a full context) is said, and the chat goes on.
void Chat(const RunOptions& options, const Engine& engine, Session& session);

}  // namespace nestling::cli
