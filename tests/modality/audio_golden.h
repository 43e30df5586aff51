// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/status.h"
#include "container/header_fields.h"
#include "container/reader.h"
#include "container/types.h"
#include "tests/modality/vision_golden.h"

namespace nestling::testing {

// The small audio tower of tests/golden/audio, with what the reference makes of one sound.
struct AudioGolden {
  std::map<std::string, GoldenTensor> tensors;   // by their names in a container
  std::map<std::string, GoldenTensor> expected;  // "waveform" and the stages' rows
  HeaderFields fields;
};

// Read once; fails the test that asks for it if the files cannot be read.
const AudioGolden& GetAudioGolden();

// How a container of the golden tower is made.
struct AudioContainerOptions {
  DType dtype = DType::kF32;  // of the linear weights; as pack would store the rest
  bool tiles = true;          // for q8c: where they fit
  std::function<void(AudioGolden&)> edit = {};  // applied to a copy first; may be empty
};
// A container with an AUDIO section and nothing else; its name is gone when this returns.
Result<std::unique_ptr<ContainerReader>> OpenAudioContainer(
    const AudioContainerOptions& options = {});

}  // namespace nestling::testing
