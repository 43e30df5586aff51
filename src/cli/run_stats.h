// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "cli/run_options.h"
#include "nestling/nestling.hpp"

namespace nestling::cli {

// Generates to standard output as text comes, with Ctrl-C as a cancel; with --stats, then prints
// what PrintStats() prints.
nestling_generate_result StreamReply(const RunOptions& options, const Engine& engine,
                                     Session& session);

// One JSON line on stderr: of the last reply, the session and the process.
void PrintStats(const RunOptions& options, const Engine& engine, const Session& session,
                const nestling_generate_result& last);

}  // namespace nestling::cli
