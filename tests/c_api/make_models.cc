// SPDX-License-Identifier: Apache-2.0
// Writes the models of the C API's tests, which cannot reach the library's own writer:
// plain.nest (no tokenizer), chat.nest (with one, and with a slice), media.nest (with towers) and
// media_other.nest (with other numbers in them); media/: what the reference makes of media.nest.
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "model/slices.h"
#include "tests/support/chat_model.h"
#include "tests/support/multimodal_model.h"

namespace {

template <typename T>
bool WriteValues(const std::string& path, const std::vector<T>& values) {
  std::ofstream file(path, std::ios::binary);
  file.write(reinterpret_cast<const char*>(values.data()),
             static_cast<std::streamsize>(values.size() * sizeof(T)));
  return !values.empty() && file.good();
}

bool WriteExpected(const std::string& folder) {
  const nestling::testing::MultimodalExpected& expected =
      nestling::testing::GetMultimodalExpected();
  std::filesystem::create_directories(folder);
  return WriteValues(folder + "/raw", expected.raw) &&
         WriteValues(folder + "/pixels", expected.pixels) &&
         WriteValues(folder + "/waveform", expected.waveform) &&
         WriteValues(folder + "/image_tokens", expected.image_soft_tokens) &&
         WriteValues(folder + "/audio_tokens", expected.audio_soft_tokens) &&
         WriteValues(folder + "/logits", expected.logits) &&
         WriteValues(folder + "/ids", expected.input_ids) &&
         WriteValues(folder + "/greedy", expected.greedy);
}

}  // namespace

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
  using nestling::DType;
  for (const auto& [name, dtype] : {std::pair<const char*, DType>{"media.nest", DType::kF32},
                                    {"media_other.nest", DType::kQ8C}}) {
    const nestling::Status status = nestling::testing::WriteMultimodalModel(
        folder + "/" + name, {.tower_dtype = dtype, .tokenizer = true});
    if (!status.ok()) {
      std::fprintf(stderr, "%s: %s\n", name, status.message().c_str());
      return 1;
    }
  }
  if (!WriteExpected(folder + "/media")) {
    std::fprintf(stderr, "the golden values of media.nest cannot be read or written\n");
    return 1;
  }
  return 0;
}
