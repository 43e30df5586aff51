// SPDX-License-Identifier: Apache-2.0
#include "tests/modality/audio_golden.h"

#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <utility>

#include "container/writer.h"
#include "pack/formats.h"
#include "pack/quantise.h"
#include "tests/support/tiny_model.h"

namespace nestling::testing {
namespace {

const std::string kFolder = NESTLING_SOURCE_DIR "/tests/golden/audio/";

AudioGolden ReadGolden() {
  AudioGolden golden;
  golden.tensors = ReadGoldenTensors(kFolder + "tower.safetensors");
  golden.expected = ReadGoldenTensors(kFolder + "expected.safetensors");
  std::ifstream file(kFolder + "golden.json");
  const nlohmann::json json = nlohmann::json::parse(file, nullptr, false);
  EXPECT_TRUE(json.is_object());
  if (!json.is_object()) return golden;
  TinyModelOptions text;
  text.hidden_size = json["hidden_size"];
  golden.fields = TinyHeaderFields(text);
  TowerConfig& audio = golden.fields.audio;
  audio.present = true;
  audio.vocab_offset = json["audio_config"]["vocab_offset"];
  audio.vocab_size = json["audio_config"]["vocab_size"];
  audio.soft_tokens = json["soft_tokens"];
  audio.config_json = json["audio_config"].dump();
  audio.preprocessor_json = json["preprocessor_config"].dump();
  return golden;
}

}  // namespace

const AudioGolden& GetAudioGolden() {
  static const AudioGolden golden = ReadGolden();
  return golden;
}

Result<std::unique_ptr<ContainerReader>> OpenAudioContainer(const AudioContainerOptions& options) {
  AudioGolden golden = GetAudioGolden();
  if (options.edit) options.edit(golden);
  FormatOptions formats;
  formats.tower_quant = options.dtype;
  constexpr SectionKind kAudio = SectionKind::kAudio;
  const auto dtype_of = [&](const std::string& name, const GoldenTensor& tensor) {
    return TowerFormatFor(kAudio, name, tensor.shape, formats);
  };
  const auto layout_of = [&](DType dtype, const GoldenTensor& tensor) {
    return options.tiles ? TowerLayoutFor(kAudio, dtype, tensor.shape) : Layout::kRowMajor;
  };
  const TemporaryPath temporary;
  ASSIGN_OR_RETURN(auto writer, ContainerWriter::Create(temporary.path()));
  for (const auto& [name, tensor] : golden.tensors) {
    const DType dtype = dtype_of(name, tensor);
    RETURN_IF_ERROR(writer->Declare({.name = name,
                                     .section = kAudio,
                                     .dtype = dtype,
                                     .layout = layout_of(dtype, tensor),
                                     .shape = tensor.shape}));
  }
  RETURN_IF_ERROR(writer->Layout());
  for (const auto& [name, tensor] : golden.tensors) {
    const DType dtype = dtype_of(name, tensor);
    // Tensors of a higher rank are the matrix [out, rest].
    std::vector<uint64_t> shape = {tensor.shape[0]};
    if (tensor.shape.size() > 1) shape.push_back(tensor.values.size() / tensor.shape[0]);
    if (dtype == DType::kQ8C) {  // the same numbers in either layout
      QuantisedPanel panel;
      if (layout_of(dtype, tensor) == Layout::kTiled) {
        QuantiseTiles(dtype, tensor.values, shape[1], &panel);
      } else {
        QuantiseRows(dtype, tensor.values, shape[1], &panel);
      }
      RETURN_IF_ERROR(writer->WriteElements(name, 0, panel.elements));
      RETURN_IF_ERROR(writer->WriteScales(name, 0, panel.scales));
      continue;
    }
    const EncodedTensor encoded = EncodeTensor(tensor.values, dtype, Layout::kRowMajor, shape);
    RETURN_IF_ERROR(writer->WriteElements(name, 0, encoded.elements));
    if (!encoded.scales.empty()) RETURN_IF_ERROR(writer->WriteScales(name, 0, encoded.scales));
  }
  RETURN_IF_ERROR(writer->Finish(golden.fields));
  return ContainerReader::Open(temporary.path());
}

}  // namespace nestling::testing
