// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "cli/media.h"
#include "cli/model_options.h"

namespace nestling::cli {

// Measures how long images and sounds take to become soft tokens: the first time, with the tower's
// load, then `repetitions` times with a tower that is ready and nothing cached. Prints a row for
// each file; `format` as for PrintReport().
void BenchMedia(const ModelOptions& model, const std::vector<MediaFile>& files,
                uint32_t repetitions, const std::string& format);

}  // namespace nestling::cli
