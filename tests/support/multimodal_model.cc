// SPDX-License-Identifier: Apache-2.0
#include "tests/support/multimodal_model.h"

#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <string_view>
#include <utility>

#include "pack/pack.h"
#include "pack/safetensors.h"
#include "tests/support/hf_folder.h"
#include "tests/text/test_vocabulary.h"

namespace nestling::testing {
namespace {

const std::string kGolden = NESTLING_SOURCE_DIR "/tests/golden/";
const std::string kFolder = kGolden + "multimodal/";

nlohmann::json ReadJson(const std::string& path) {
  std::ifstream file(path);
  return nlohmann::json::parse(file, nullptr, /*allow_exceptions=*/false);
}

Result<std::vector<float>> ReadTensor(const SafetensorsReader& reader, const std::string& name) {
  const SourceTensor* tensor = reader.Find(name);
  if (tensor == nullptr) return NotFound("no golden tensor \"", name, "\"");
  std::vector<float> values(tensor->num_elements);
  RETURN_IF_ERROR(reader.Read(*tensor, 0, values));
  return values;
}

// Appends a file's tensors; names without "model." and ".weight" get them back.
Status AppendTensors(const std::string& path, bool container_names,
                     std::vector<HfTensor>* tensors) {
  ASSIGN_OR_RETURN(const auto reader, SafetensorsReader::Open(path));
  for (const SourceTensor& source : reader->tensors()) {
    HfTensor tensor{source.name, "BF16", source.shape, {}};
    if (container_names) {
      const bool is_bare = source.name.ends_with(".gamma") || source.name.ends_with(".bias");
      tensor.name = "model." + source.name + (is_bare ? "" : ".weight");
    }
    ASSIGN_OR_RETURN(tensor.values, ReadTensor(*reader, source.name));
    tensors->push_back(std::move(tensor));
  }
  return OkStatus();
}

// The test vocabulary with its last two pieces, which begin an image and a sound, at given ids.
std::string TokenizerModel(int32_t start_of_image, int32_t start_of_audio, int32_t size) {
  TestVocabulary vocabulary;
  vocabulary.entries.resize(vocabulary.entries.size() - 2);
  while (vocabulary.size() < size) {
    const int32_t id = vocabulary.size();
    if (id == start_of_image) {
      vocabulary.Add("<start_of_image>", PieceType::kUserDefined);
    } else if (id == start_of_audio) {
      vocabulary.Add("<start_of_audio>", PieceType::kUserDefined);
    } else {
      vocabulary.Add("<unused" + std::to_string(id) + ">", PieceType::kUserDefined);
    }
  }
  return vocabulary.Model();
}

Status ReadPpm(const std::string& path, MultimodalExpected* expected) {
  std::ifstream file(path, std::ios::binary);
  std::string magic;
  size_t highest = 0;
  file >> magic >> expected->raw_width >> expected->raw_height >> highest;
  file.get();
  expected->raw.assign(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
  if (expected->raw.size() == expected->raw_width * expected->raw_height * 3) return OkStatus();
  return NotFound(path, ": not the picture");
}

// The preprocessed picture, which is stored with 8 bits a channel.
Status ReadPixels(const std::string& path, std::vector<float>* pixels) {
  MultimodalExpected picture;
  RETURN_IF_ERROR(ReadPpm(path, &picture));
  const size_t plane = picture.raw_width * picture.raw_height;
  pixels->resize(3 * plane);
  for (size_t i = 0; i < plane; ++i) {
    for (size_t c = 0; c < 3; ++c) {
      (*pixels)[c * plane + i] = static_cast<float>(picture.raw[3 * i + c]) * (1.0f / 255.0f);
    }
  }
  return OkStatus();
}

Result<MultimodalExpected> ReadExpected() {
  MultimodalExpected expected;
  const nlohmann::json json = ReadJson(kFolder + "expected.json");
  if (!json.is_object()) return NotFound(kFolder, "expected.json");
  expected.input_ids = json["input_ids"].get<std::vector<int32_t>>();
  expected.greedy = json["greedy"].get<std::vector<int32_t>>();
  expected.logits_tolerance = json["logits_tolerance"];
  ASSIGN_OR_RETURN(const auto own, SafetensorsReader::Open(kFolder + "expected.safetensors"));
  ASSIGN_OR_RETURN(expected.waveform, ReadTensor(*own, "waveform"));
  ASSIGN_OR_RETURN(expected.audio_soft_tokens, ReadTensor(*own, "audio_soft_tokens"));
  ASSIGN_OR_RETURN(expected.embeddings, ReadTensor(*own, "inputs_embeds"));
  ASSIGN_OR_RETURN(expected.logits, ReadTensor(*own, "logits"));
  ASSIGN_OR_RETURN(const auto vision,
                   SafetensorsReader::Open(kGolden + "vision/expected.safetensors"));
  ASSIGN_OR_RETURN(expected.image_soft_tokens, ReadTensor(*vision, "soft_tokens"));
  RETURN_IF_ERROR(ReadPpm(kGolden + "vision/raw.ppm", &expected));
  RETURN_IF_ERROR(ReadPixels(kGolden + "vision/resized.ppm", &expected.pixels));
  return expected;
}

}  // namespace

Status WriteMultimodalModel(const std::string& path, const MultimodalModelOptions& options) {
  nlohmann::json config = ReadJson(kFolder + "config.json");
  if (!config.is_object()) return NotFound(kFolder, "config.json");
  std::vector<HfTensor> tensors;
  RETURN_IF_ERROR(AppendTensors(kFolder + "rest.safetensors", /*container_names=*/false, &tensors));
  RETURN_IF_ERROR(
      AppendTensors(kGolden + "vision/tower.safetensors", /*container_names=*/true, &tensors));
  const auto drop = [&](const char* key, std::string_view tower, std::string_view embedder) {
    config.erase(key);
    std::erase_if(tensors, [&](const HfTensor& tensor) {
      return tensor.name.starts_with(tower) || tensor.name.starts_with(embedder);
    });
  };
  const TemporaryFolder folder;
  if (options.tokenizer) {
    WriteTextFile(folder / "tokenizer.model",
                  TokenizerModel(config["boi_token_id"], config["boa_token_id"],
                                 config["text_config"]["vocab_size_per_layer_input"]));
  }
  if (!options.vision) drop("vision_config", "model.vision_tower.", "model.embed_vision.");
  if (!options.audio) drop("audio_config", "model.audio_tower.", "model.embed_audio.");
  WriteHfFolder(folder.path(), config, tensors);
  WriteTextFile(folder / "preprocessor_config.json",
                ReadJson(kFolder + "preprocessor_config.json").dump());
  PackOptions pack;
  pack.source = folder.path();
  pack.output = path;
  pack.formats.quant = options.dtype;
  pack.formats.tower_quant = options.tower_dtype;
  pack.jobs = 1;
  return Pack(pack, {}, {});
}

const MultimodalExpected& GetMultimodalExpected() {
  static const MultimodalExpected expected = [] {
    Result<MultimodalExpected> read = ReadExpected();
    return read.ok() ? std::move(read).value() : MultimodalExpected();
  }();
  return expected;
}

}  // namespace nestling::testing
