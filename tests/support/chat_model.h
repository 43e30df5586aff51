// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "tests/support/tiny_model.h"
#include "tests/text/test_vocabulary.h"

namespace nestling::testing {

// A tiny model with the test vocabulary: text calls work, what it says is random.
inline TinyModelOptions ChatModelOptions() {
  const TestVocabulary vocabulary;
  TinyModelOptions options;
  options.tokenizer = vocabulary.Model();
  options.ple_vocab_size = static_cast<uint32_t>(vocabulary.size());
  options.vocab_size = static_cast<uint32_t>(vocabulary.AudioSoft()) + 1;
  options.max_position_embeddings = 4096;
  return options;
}

}  // namespace nestling::testing
