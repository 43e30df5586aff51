// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/status.h"
#include "container/types.h"

namespace nestling::testing {

// The small checkpoint of tests/golden/multimodal: text decoder, vision tower, audio tower; 16 soft
// tokens an image, 20 positions a clip of sound, which is at most 3.2 s long.
struct MultimodalModelOptions {
  DType dtype = DType::kF32;        // of the decoder's matrices
  DType tower_dtype = DType::kF32;  // of the towers'
  // With a tokenizer that has what the chat template needs: the test vocabulary, then unused
  // pieces up to the ids that the checkpoint gives to starts of images and sounds.
  bool tokenizer = false;
  bool vision = true, audio = true;  // without: a container that lacks the tower
};

// Packs it as a user's checkpoint would be.
Status WriteMultimodalModel(const std::string& path, const MultimodalModelOptions& options = {});

// What the reference makes of one prompt with an image and a sound.
struct MultimodalExpected {
  std::vector<int32_t> input_ids;  // [positions]
  std::vector<int32_t> greedy;
  float logits_tolerance = 0;
  std::vector<float> pixels;  // [3, 192, 192], prepared
  std::vector<uint8_t> raw;   // [raw_height, raw_width, 3]: the picture before that
  size_t raw_width = 0, raw_height = 0;
  std::vector<float> waveform;           // mono, 16 kHz
  std::vector<float> image_soft_tokens;  // [16, hidden]
  std::vector<float> audio_soft_tokens;  // [13, hidden]: without padding
  std::vector<float> embeddings;         // [positions, hidden], merged
  std::vector<float> logits;             // [positions, vocab]
};

// Read once; empty if the files cannot be read.
const MultimodalExpected& GetMultimodalExpected();

}  // namespace nestling::testing
