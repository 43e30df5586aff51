// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/status.h"
#include "container/header_fields.h"
#include "container/reader.h"
#include "container/types.h"

namespace nestling::testing {

struct GoldenTensor {
  std::vector<uint64_t> shape;
  std::vector<float> values;
};

// All tensors of a .safetensors file; fails the test that asks for one that cannot be read.
std::map<std::string, GoldenTensor> ReadGoldenTensors(const std::string& path);

// A small vision tower of tests/golden/vision, with what the reference makes of one picture.
struct VisionGolden {
  std::map<std::string, GoldenTensor> tensors;  // by their names in a container
  HeaderFields fields;
  std::vector<uint8_t> raw;  // [raw_height, raw_width, 3]
  size_t raw_width = 0, raw_height = 0;
  std::vector<uint8_t> resized;  // [side, side, 3]
  size_t side = 0;
  std::vector<float> soft_tokens;  // [soft tokens, hidden]

  std::vector<float> Pixels() const;  // `resized` as the tower wants it
};

// Read once; fails the test that asks for it if the files cannot be read.
const VisionGolden& GetVisionGolden();

// How a container of the golden tower is made.
struct VisionContainerOptions {
  DType dtype = DType::kF32;                     // of what the int8 operators read; the rest is f32
  std::function<void(VisionGolden&)> edit = {};  // applied to a copy first; may be empty
};
// A container with a VISION section and nothing else; its name is gone when this returns.
Result<std::unique_ptr<ContainerReader>> OpenVisionContainer(
    const VisionContainerOptions& options = {});

// Cosine of the angle between a and b.
double CosineSimilarity(const std::vector<float>& a, const std::vector<float>& b);
// The largest difference, divided by the root mean square of `want`.
double RelativeError(const std::vector<float>& got, const std::vector<float>& want);

}  // namespace nestling::testing
