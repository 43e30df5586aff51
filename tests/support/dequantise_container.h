// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "base/status.h"

namespace nestling::testing {

// Writes the same model with every text tensor as f32: the values that its codes stand for.
Status DequantiseContainer(const std::string& source, const std::string& target);

}  // namespace nestling::testing
