// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

namespace nestling {

// What a tower makes of an image or of a clip of sound, ready for the decoder.
struct SoftTokens {
  std::vector<float> values;  // [count, hidden_size]
  size_t count = 0;
};
using SharedSoftTokens = std::shared_ptr<const SoftTokens>;

}  // namespace nestling
