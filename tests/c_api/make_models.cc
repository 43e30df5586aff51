// SPDX-License-Identifier: Apache-2.0
// Writes the models of the C API's tests, which cannot reach the library's own writer:
// plain.nest (no tokenizer) and chat.nest (with one, and with a slice).
#include <cstdio>
#include <string>

#include "model/slices.h"
#include "tests/support/chat_model.h"

int main(int argc, char** argv) {
  using nestling::testing::TinyModelOptions;
  if (argc != 2) return 2;
  const std::string folder = argv[1];
  TinyModelOptions chat = nestling::testing::ChatModelOptions();
  nestling::SliceConfig slice;
  slice.name = "half";
  slice.description = "the first shell of every layer";
  slice.ffn.assign(chat.num_layers, chat.shell_ends.front());
  slice.effective_parameters = 1000;
  slice.published_accuracy = 12.5f;
  chat.slices.push_back(slice);
  for (const auto& [name, options] :
       {std::pair<const char*, TinyModelOptions>{"plain.nest", {}}, {"chat.nest", chat}}) {
    const nestling::Status status = nestling::testing::WriteTinyModel(folder + "/" + name, options);
    if (!status.ok()) {
      std::fprintf(stderr, "%s: %s\n", name, status.message().c_str());
      return 1;
    }
  }
  return 0;
}
