// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "cli/model_options.h"
#include "nestling/nestling.hpp"

namespace nestling::cli {

struct RunOptions {
  ModelOptions model;
  GenerateOptions generate;
  std::string system;
  bool stats = false;
  double load_seconds = 0;  // filled by the command
};

}  // namespace nestling::cli
