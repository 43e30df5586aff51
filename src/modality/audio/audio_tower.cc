// SPDX-License-Identifier: Apache-2.0
#include "modality/audio/audio_tower.h"

#include <algorithm>
#include <utility>

#include "kernels/rms_norm/rms_norm.h"
#include "modality/audio/audio_stream.h"

namespace nestling {
namespace {

// Steps that Encode takes at a time: activations of so many stay in the cache that the cores share.
constexpr size_t kEncodeSteps = 256;

const char* ComputeName(AudioCompute compute) {
  switch (compute) {
    case AudioCompute::kF32:
      return "f32";
    case AudioCompute::kInt8:
      return "int8";
    case AudioCompute::kAuto:
      break;
  }
  return "stored";
}

// What `compute` comes to: towers that compute alike share their packed weights.
Result<AudioCompute> Resolve(const ContainerReader& reader, AudioCompute compute) {
  if (compute != AudioCompute::kAuto) return compute;
  ASSIGN_OR_RETURN(const std::string held, HeldCompute(reader, SectionKind::kAudio));
  for (const AudioCompute each : {AudioCompute::kF32, AudioCompute::kInt8}) {
    if (held == ComputeName(each)) return each;
  }
  bool some_int8 = false, all_int8 = true;
  for (const TensorInfo& tensor : reader.tensors()) {
    const bool linear = tensor.section == SectionKind::kAudio && tensor.shape.size() == 2 &&
                        tensor.name != "embed_audio.embedding";
    if (!linear) continue;
    const bool int8 = tensor.dtype == DType::kQ8C;
    some_int8 |= int8;
    all_int8 &= int8;
  }
  if (!held.empty()) return AudioCompute::kAuto;
  return !some_int8 ? AudioCompute::kF32 : all_int8 ? AudioCompute::kInt8 : AudioCompute::kAuto;
}

}  // namespace

Result<std::unique_ptr<AudioTower>> AudioTower::Create(const ContainerReader& reader,
                                                       const ThreadPool& pool,
                                                       const AudioOptions& options) {
  ASSIGN_OR_RETURN(AudioConfig config, ReadAudioConfig(reader));
  std::unique_ptr<AudioTower> tower(new AudioTower(pool, std::move(config)));
  RETURN_IF_ERROR(tower->Load(reader, options));
  return tower;
}

AudioTower::~AudioTower() = default;

Status AudioTower::Load(const ContainerReader& reader, const AudioOptions& options) {
  ASSIGN_OR_RETURN(const AudioCompute compute, Resolve(reader, options.compute));
  ASSIGN_OR_RETURN(auto packed,
                   PackedWeights::Create(reader, "audio", ComputeName(compute), options.cache));
  ASSIGN_OR_RETURN(context_, GraphContext::Create(pool_, std::move(packed)));
  ASSIGN_OR_RETURN(AudioWeights weights,
                   AudioWeights::Create(reader, compute, context_->packed_weights()));
  weights_.emplace(std::move(weights));
  ASSIGN_OR_RETURN(mel_, MelFrontEnd::Create(config_.mel));
  for (size_t i = 0; i < 2; ++i) {
    ASSIGN_OR_RETURN(subsample_[i],
                     SubsampleBlock::Create(config_, i, reader, *weights_, *context_, pool_));
  }
  const AudioLinear input[] = {{audio_names::Subsample("input_proj_linear")}};
  ASSIGN_OR_RETURN(input_projection_, weights_->Block(reader, *context_, input));
  for (size_t layer = 0; layer < config_.num_layers; ++layer) {
    ASSIGN_OR_RETURN(std::unique_ptr<ConformerBlock> block,
                     ConformerBlock::Create(config_, layer, reader, &*weights_, *context_, pool_));
    blocks_.push_back(std::move(block));
  }
  ASSIGN_OR_RETURN(soft_norm_, weights_->Floats(reader, audio_names::kSoftNorm));
  const AudioLinear projection[] = {{audio_names::kProjection}};
  ASSIGN_OR_RETURN(projection_, weights_->Block(reader, *context_, projection));
  context_->packed_weights().Commit();
  return OkStatus();
}

uint64_t AudioTower::weight_bytes() const {
  return context_->packed_weights().bytes() + weights_->tiled_bytes();
}

Result<SoftTokens> AudioTower::Encode(std::span<const float> pcm,
                                      const AudioObserver& observer) const {
  RETURN_IF_ERROR(config_.CheckLength(pcm.size()));
  const size_t steps = config_.NumSteps(config_.NumFrames(pcm.size()));
  ASSIGN_OR_RETURN(std::unique_ptr<AudioStream> stream,
                   AudioStream::Create(*this, std::min(steps, kEncodeSteps), observer));
  RETURN_IF_ERROR(stream->Push(pcm));
  return stream->Finish();
}

Status AudioTower::Embed(size_t count, const float* encodings, float* normed, float* tokens,
                         const LinearWorkspace& workspace) const {
  const size_t size = config_.size, hidden = config_.hidden_size;
  for (size_t i = 0; i < count; ++i) {
    kernels::RmsNorm(encodings + i * size, soft_norm_.data(), normed + i * size, size,
                     config_.norm_eps);
  }
  const float* const input = normed;
  RETURN_IF_ERROR(projection_->Run(count, std::span(&input, 1), std::span(&tokens, 1), workspace));
  for (size_t i = 0; i < count; ++i) {
    float* const token = tokens + i * hidden;
    kernels::RmsNorm(token, /*w=*/nullptr, token, hidden, config_.norm_eps);
  }
  return OkStatus();
}

}  // namespace nestling
