// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "cli/media.h"
#include "cli/model_options.h"
#include "nestling/nestling.hpp"

namespace nestling::cli {

struct RunOptions {
  ModelOptions model;
  GenerateOptions generate;
  std::string system;
  std::vector<MediaFile> media;  // of the first message, before its text
  bool stats = false;
  double load_seconds = 0;  // filled by the command
};

}  // namespace nestling::cli
