// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace nestling {

struct TowerTensor {
  std::string name;  // as in a container
  std::vector<uint64_t> shape;
};

// The tensors of the full-size towers with their embedders into a decoder of `hidden_size`, in the
// order of use. Real containers take theirs from the checkpoint; these are for synthetic ones.
std::vector<TowerTensor> VisionTensors(uint64_t hidden_size);  // MobileNet-V5 300M encoder
std::vector<TowerTensor> AudioTensors(uint64_t hidden_size);   // USM conformer of 12 blocks

}  // namespace nestling
