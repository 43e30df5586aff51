// SPDX-License-Identifier: Apache-2.0
#include "tests/modality/vision_golden.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <utility>

#include "container/writer.h"
#include "pack/formats.h"
#include "pack/safetensors.h"
#include "tests/support/tiny_model.h"

namespace nestling::testing {
namespace {

const std::string kFolder = NESTLING_SOURCE_DIR "/tests/golden/vision/";

std::vector<uint8_t> ReadPpm(const std::string& name, size_t* width, size_t* height) {
  std::ifstream file(kFolder + name, std::ios::binary);
  std::string magic;
  size_t highest = 0;
  file >> magic >> *width >> *height >> highest;
  file.get();
  std::vector<uint8_t> pixels((std::istreambuf_iterator<char>(file)),
                              std::istreambuf_iterator<char>());
  EXPECT_EQ(pixels.size(), *width * *height * 3) << name;
  return pixels;
}

VisionGolden ReadGolden() {
  VisionGolden golden;
  golden.tensors = ReadGoldenTensors(kFolder + "tower.safetensors");
  golden.soft_tokens = ReadGoldenTensors(kFolder + "expected.safetensors")["soft_tokens"].values;
  golden.raw = ReadPpm("raw.ppm", &golden.raw_width, &golden.raw_height);
  size_t height = 0;
  golden.resized = ReadPpm("resized.ppm", &golden.side, &height);
  std::ifstream file(kFolder + "golden.json");
  const nlohmann::json json = nlohmann::json::parse(file, nullptr, false);
  EXPECT_TRUE(json.is_object());
  if (!json.is_object()) return golden;
  TinyModelOptions text;
  text.hidden_size = json["hidden_size"];
  golden.fields = TinyHeaderFields(text);
  TowerConfig& vision = golden.fields.vision;
  vision.present = true;
  vision.vocab_offset = text.vocab_size - 2;
  vision.vocab_size = 2;
  vision.soft_tokens = json["soft_tokens"];
  vision.config_json = json["vision_config"].dump();
  vision.preprocessor_json = json["preprocessor_config"].dump();
  return golden;
}

// As pack would choose it.
DType DTypeOf(const std::string& name, const GoldenTensor& tensor, DType dtype) {
  FormatOptions formats;
  formats.tower_quant = dtype;
  return TowerFormatFor(SectionKind::kVision, name, tensor.shape, formats);
}

}  // namespace

std::map<std::string, GoldenTensor> ReadGoldenTensors(const std::string& path) {
  std::map<std::string, GoldenTensor> tensors;
  const auto reader = SafetensorsReader::Open(path);
  EXPECT_TRUE(reader.ok()) << reader.status().message();
  if (!reader.ok()) return tensors;
  for (const SourceTensor& source : (*reader)->tensors()) {
    GoldenTensor tensor = {source.shape, std::vector<float>(source.num_elements)};
    EXPECT_TRUE((*reader)->Read(source, 0, tensor.values).ok()) << source.name;
    tensors.emplace(source.name, std::move(tensor));
  }
  return tensors;
}

std::vector<float> VisionGolden::Pixels() const {
  const size_t plane = side * side;
  std::vector<float> pixels(3 * plane);
  for (size_t i = 0; i < plane; ++i) {
    for (size_t c = 0; c < 3; ++c) {
      pixels[c * plane + i] = static_cast<float>(resized[3 * i + c]) * (1.0f / 255.0f);
    }
  }
  return pixels;
}

const VisionGolden& GetVisionGolden() {
  static const VisionGolden golden = ReadGolden();
  return golden;
}

Result<std::unique_ptr<ContainerReader>> OpenVisionContainer(
    const VisionContainerOptions& options) {
  VisionGolden golden = GetVisionGolden();
  if (options.edit) options.edit(golden);
  const TemporaryPath temporary;
  ASSIGN_OR_RETURN(auto writer, ContainerWriter::Create(temporary.path()));
  for (const auto& [name, tensor] : golden.tensors) {
    RETURN_IF_ERROR(writer->Declare({.name = name,
                                     .section = SectionKind::kVision,
                                     .dtype = DTypeOf(name, tensor, options.dtype),
                                     .shape = tensor.shape}));
  }
  RETURN_IF_ERROR(writer->Layout());
  for (const auto& [name, tensor] : golden.tensors) {
    // Quantised tensors of a higher rank are the matrix [out, rest].
    std::vector<uint64_t> shape = {tensor.shape[0]};
    if (tensor.shape.size() > 1) shape.push_back(tensor.values.size() / tensor.shape[0]);
    const EncodedTensor encoded =
        EncodeTensor(tensor.values, DTypeOf(name, tensor, options.dtype), Layout::kRowMajor, shape);
    RETURN_IF_ERROR(writer->WriteElements(name, 0, encoded.elements));
    if (!encoded.scales.empty()) RETURN_IF_ERROR(writer->WriteScales(name, 0, encoded.scales));
  }
  RETURN_IF_ERROR(writer->Finish(golden.fields));
  return ContainerReader::Open(temporary.path());
}

double CosineSimilarity(const std::vector<float>& a, const std::vector<float>& b) {
  double dot = 0.0, aa = 0.0, bb = 0.0;
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    dot += static_cast<double>(a[i]) * b[i];
    aa += static_cast<double>(a[i]) * a[i];
    bb += static_cast<double>(b[i]) * b[i];
  }
  return dot / std::sqrt(aa * bb);
}

double RelativeError(const std::vector<float>& got, const std::vector<float>& want) {
  if (got.size() != want.size() || want.empty()) return INFINITY;
  double largest = 0.0, squares = 0.0;
  for (size_t i = 0; i < want.size(); ++i) {
    largest = std::max(largest, std::abs(static_cast<double>(got[i]) - want[i]));
    squares += static_cast<double>(want[i]) * want[i];
  }
  return largest / std::sqrt(squares / static_cast<double>(want.size()));
}

}  // namespace nestling::testing
