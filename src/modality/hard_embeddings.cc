// SPDX-License-Identifier: Apache-2.0
#include "modality/hard_embeddings.h"

#include <cstring>
#include <string>
#include <utility>

#include "base/file.h"
#include "kernels/rms_norm/rms_norm.h"
#include "modality/audio/audio_config.h"
#include "modality/vision/vision_config.h"
#include "model/weights.h"

namespace nestling {
namespace {

constexpr std::string_view kVisionEmbedder = "embed_vision.";
constexpr std::string_view kAudioEmbedder = "embed_audio.";

// A tower's embedder in its mapped section, checked.
class Embedder {
 public:
  static Result<Embedder> Create(const ContainerReader& reader, TowerKind tower) {
    const bool vision = tower == TowerKind::kVision;
    Embedder embedder;
    if (vision) {
      ASSIGN_OR_RETURN(const VisionConfig config, ReadVisionConfig(reader));
      embedder.eps_ = config.embedder_eps;
    } else {
      ASSIGN_OR_RETURN(const AudioConfig config, ReadAudioConfig(reader));
      embedder.eps_ = config.norm_eps;
    }
    const SectionKind section = vision ? SectionKind::kVision : SectionKind::kAudio;
    ASSIGN_OR_RETURN(embedder.region_, reader.MapSection(section));
    const std::string prefix(vision ? kVisionEmbedder : kAudioEmbedder);
    const auto matrix = [&](const char* name) -> Result<Matrix> {
      const TensorInfo* tensor = reader.FindTensor(prefix + name);
      if (tensor == nullptr || tensor->section != section) {
        return BadModel("tensor \"", prefix, name, "\" is missing");
      }
      ASSIGN_OR_RETURN(const Matrix stored, MatrixView(*tensor, embedder.region_.bytes()));
      RETURN_IF_ERROR(RequireStored(stored));
      return stored;
    };
    ASSIGN_OR_RETURN(embedder.table_, matrix("embedding"));
    ASSIGN_OR_RETURN(embedder.projection_, matrix("embedding_projection"));
    const TensorInfo* norm = reader.FindTensor(prefix + "hard_embedding_norm");
    const size_t size = embedder.table_.in;
    if (norm == nullptr || norm->section != section || norm->dtype != DType::kF32 ||
        norm->bytes != size * sizeof(float) || embedder.projection_.in != size ||
        embedder.projection_.out != reader.header().text.hidden_size) {
      return BadModel("the embedder of \"", prefix, "\": want a table [ids, n], a norm [n] of f32 ",
                      "and a projection [", reader.header().text.hidden_size, ", n]");
    }
    embedder.norm_.resize(size);
    std::memcpy(embedder.norm_.data(), embedder.region_.bytes().data() + norm->offset, norm->bytes);
    return embedder;
  }

  Result<std::vector<float>> Embed(size_t row) const {
    const size_t size = table_.in, hidden = projection_.out;
    if (row >= table_.out) {
      return BadModel("row ", row, " of a tower's ", table_.out, " hard embeddings");
    }
    std::vector<float> x(size), weights(size), result(hidden);
    DequantizeRow(table_, row, x.data());
    kernels::RmsNorm(x.data(), norm_.data(), x.data(), size, eps_);
    for (size_t out = 0; out < hidden; ++out) {
      DequantizeRow(projection_, out, weights.data());
      double sum = 0;
      for (size_t i = 0; i < size; ++i) sum += static_cast<double>(weights[i]) * x[i];
      result[out] = static_cast<float>(sum);
    }
    kernels::RmsNorm(result.data(), /*w=*/nullptr, result.data(), hidden, eps_);
    return result;
  }

 private:
  Embedder() = default;
  MappedRegion region_;
  Matrix table_;       // [ids, size]
  Matrix projection_;  // [hidden, size]
  std::vector<float> norm_;
  float eps_ = 0;
};

}  // namespace

bool HardEmbeddings::Reads(std::string_view tensor) {
  return tensor.starts_with(kVisionEmbedder) || tensor.starts_with(kAudioEmbedder);
}

std::optional<TowerKind> HardEmbeddings::TowerOf(int32_t id) const {
  const auto within = [id](const TowerConfig& tower) {
    return tower.present && id >= 0 && static_cast<uint32_t>(id) >= tower.vocab_offset &&
           static_cast<uint32_t>(id) - tower.vocab_offset < tower.vocab_size;
  };
  if (within(reader_.header().audio)) return TowerKind::kAudio;
  if (within(reader_.header().vision)) return TowerKind::kVision;
  return std::nullopt;
}

Result<HardEmbeddings::Vector> HardEmbeddings::Get(int32_t id) {
  const std::optional<TowerKind> tower = TowerOf(id);
  if (!tower) return InvalidArgument("token ", id, " is not one of a tower's");
  const std::lock_guard lock(mutex_);
  Vector& vector = vectors_[id];
  if (vector == nullptr) {
    const HeaderFields& header = reader_.header();
    const TowerConfig& config = *tower == TowerKind::kVision ? header.vision : header.audio;
    ASSIGN_OR_RETURN(const Embedder embedder, Embedder::Create(reader_, *tower));
    ASSIGN_OR_RETURN(std::vector<float> values,
                     embedder.Embed(static_cast<uint32_t>(id) - config.vocab_offset));
    vector = std::make_shared<const std::vector<float>>(std::move(values));
  }
  return vector;
}

}  // namespace nestling
