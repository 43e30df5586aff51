// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "cli/media.h"
#include "cli/run_options.h"
#include "nestling/nestling.hpp"

namespace nestling::cli {

// Reads messages from the terminal until /exit or the end of input, and answers each; history
// stays. `media` goes before the text of the first message, what /image and /audio read before that
// of the next one. What the library refuses (a full context) and files that cannot be read are
// said, and the chat goes on.
void Chat(const RunOptions& options, std::vector<Media> media, const Engine& engine,
          Session& session);

}  // namespace nestling::cli
