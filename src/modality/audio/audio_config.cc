// SPDX-License-Identifier: Apache-2.0
#include "modality/audio/audio_config.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <vector>

#include "base/math.h"
#include "kernels/conformer/conformer.h"

namespace nestling {
namespace {

using Json = nlohmann::json;
using Shape = std::vector<uint64_t>;

constexpr size_t kMaxJsonBytes = 1 << 20;
constexpr size_t kMaxLayers = 256;
constexpr size_t kMaxSize = 1 << 16;  // of any dimension of a tensor
constexpr size_t kMaxFftLength = 1 << 14;
// Activations stay far below; the clamps of the reference would never act, and are left out.
constexpr double kLeastClipping = 1e6;

std::string ShapeText(const Shape& shape) {
  std::string text = "[";
  for (const uint64_t size : shape) text += StrCat(text.size() > 1 ? ", " : "", size);
  return text + "]";
}

// Typed access to a JSON object of untrusted text; absent and null fields have their defaults. The
// first error is kept.
class Fields {
 public:
  Fields(const std::string& text, const char* what) : what_(what), json_(Json::object()) {
    if (text.empty()) return;
    Json json = text.size() > kMaxJsonBytes ? Json() : Json::parse(text, nullptr, false);
    if (json.is_object()) {
      json_ = std::move(json);
    } else {
      status_ = BadModel(what_, " of the audio tower is not a JSON object of at most ",
                         kMaxJsonBytes, " bytes");
    }
  }

  const Status& status() const { return status_; }

  size_t Size(const char* name, size_t otherwise, size_t least, size_t most) {
    const Json* field = Find(name);
    if (field == nullptr) return otherwise;
    if (field->is_number_integer() && *field >= least && *field <= most) {
      return field->get<size_t>();
    }
    Fail(name, *field, StrCat("a whole number of ", least, " to ", most));
    return otherwise;
  }

  double Number(const char* name, double otherwise, double least, double most) {
    const Json* field = Find(name);
    if (field == nullptr) return otherwise;
    if (field->is_number()) {
      const double value = field->get<double>();
      if (value >= least && value <= most) return value;
    }
    Fail(name, *field, StrCat("a number of ", least, " to ", most));
    return otherwise;
  }

  // kUnsupported unless the field is absent or equal to `wanted`.
  void Only(const char* name, const Json& wanted) {
    const Json* field = Find(name);
    if (field == nullptr || *field == wanted || !status_.ok()) return;
    status_ = Unsupported("audio tower: \"", name, "\" is ", field->dump().substr(0, 60), ", want ",
                          wanted.dump());
  }

 private:
  const Json* Find(const char* name) const {
    const auto it = json_.find(name);
    return it == json_.end() || it->is_null() ? nullptr : &*it;
  }

  void Fail(const char* name, const Json& found, const std::string& wanted) {
    if (!status_.ok()) return;
    status_ =
        BadModel("audio tower: \"", name, "\" is ", found.dump().substr(0, 60), ", want ", wanted);
  }

  const char* what_;
  Json json_;
  Status status_;
};

// The tensors of the AUDIO section. The first error is kept.
class Shapes {
 public:
  explicit Shapes(const ContainerReader& reader) : reader_(reader) {}

  const Status& status() const { return status_; }

  // The shape of a tensor that must be there with this rank; ones on an error.
  Shape Get(const std::string& name, size_t rank) {
    const Shape nothing(rank, 1);
    if (!status_.ok()) return nothing;
    const TensorInfo* tensor = reader_.FindTensor(name);
    if (tensor == nullptr || tensor->section != SectionKind::kAudio) {
      status_ = BadModel("tensor \"", name, "\" is missing from the audio tower");
      return nothing;
    }
    if (tensor->shape.size() != rank) {
      status_ = BadModel("tensor \"", name, "\": shape ", ShapeText(tensor->shape), ", want ", rank,
                         " dimensions");
      return nothing;
    }
    for (const uint64_t size : tensor->shape) {
      if (size <= kMaxSize) continue;
      status_ = BadModel("tensor \"", name, "\": shape ", ShapeText(tensor->shape),
                         ", want sizes of at most ", kMaxSize);
      return nothing;
    }
    const bool rows = tensor->layout == Layout::kRowMajor || tensor->layout == Layout::kPacked;
    if (rank == 1 && (tensor->dtype != DType::kF32 || !rows)) {
      status_ = BadModel("tensor \"", name, "\" is ", DTypeName(tensor->dtype), ", want f32");
    } else if (!rows && !(rank == 2 && tensor->layout == Layout::kTiled)) {
      status_ = BadModel("tensor \"", name, "\" lies in a layout of the decoder's, want rows");
    }
    return tensor->shape;
  }

  void Want(const std::string& name, const Shape& shape) {
    const Shape found = Get(name, shape.size());
    if (!status_.ok() || found == shape) return;
    status_ =
        BadModel("tensor \"", name, "\": shape ", ShapeText(found), ", want ", ShapeText(shape));
  }

 private:
  const ContainerReader& reader_;
  Status status_;
};

Status ReadMel(const TowerConfig& tower, MelConfig* mel) {
  Fields fields(tower.preprocessor_json, "preprocessor_config");
  fields.Only("sampling_rate", kAudioSampleRate);
  fields.Only("padding_side", "right");
  fields.Only("padding_value", 0.0);
  fields.Only("preemphasis_htk_flavor", true);
  fields.Only("dither", 0.0);
  fields.Only("per_bin_mean", nullptr);
  fields.Only("per_bin_stddev", nullptr);
  mel->frame_length = fields.Size("frame_length", mel->frame_length, 2, kMaxFftLength);
  mel->hop_length = fields.Size("hop_length", mel->hop_length, 1, mel->frame_length);
  mel->fft_length = fields.Size("fft_length", mel->fft_length, mel->frame_length, kMaxFftLength);
  mel->num_bins = fields.Size("feature_size", mel->num_bins, 1, 1024);
  constexpr double kNyquist = kAudioSampleRate / 2.0;
  mel->min_frequency = fields.Number("min_frequency", mel->min_frequency, 0.0, kNyquist);
  mel->max_frequency =
      fields.Number("max_frequency", mel->max_frequency, mel->min_frequency + 1.0, kNyquist);
  mel->preemphasis = fields.Number("preemphasis", mel->preemphasis, 0.0, 1.0);
  mel->floor = fields.Number("mel_floor", mel->floor, 1e-30, 1.0);
  mel->input_scale = fields.Number("input_scale_factor", mel->input_scale, 1e-6, 1e6);
  RETURN_IF_ERROR(fields.status());
  if (mel->fft_length % 2 == 0) return OkStatus();
  return BadModel("audio tower: \"fft_length\" is ", mel->fft_length, ", want an even number");
}

Status ReadTower(const TowerConfig& tower, AudioConfig* config) {
  Fields fields(tower.config_json, "audio_config");
  const Json pair = Json::array({kSubsampleKernel, kSubsampleKernel});
  const Json strides = Json::array({kSubsampleStride, kSubsampleStride});
  fields.Only("sscp_conv_kernel_size", Json::array({pair, pair}));
  fields.Only("sscp_conv_stride_size", Json::array({strides, strides}));
  fields.Only("conf_attention_context_right", 0);
  fields.Only("input_feat_size", config->mel.num_bins);
  config->num_layers = fields.Size("conf_num_hidden_layers", 12, 1, kMaxLayers);
  config->num_heads = fields.Size("conf_num_attention_heads", 8, 1, kMaxSize);
  // A chunk's queries see the steps of its left context, their own counted: whatever the chunk's
  // size, that is a sliding window (gemma3n.md 5.5).
  config->attention_window =
      fields.Size("conf_attention_context_left", 13, 1, kernels::kMaxLocalKeys);
  config->reduction = fields.Size("conf_reduction_factor", 4, 1, 64);
  config->logit_cap =
      static_cast<float>(fields.Number("conf_attention_logit_cap", 50.0, 1e-3, 1e6));
  config->residual_weight =
      static_cast<float>(fields.Number("conf_residual_weight", 0.5, -1e3, 1e3));
  config->norm_eps = static_cast<float>(fields.Number("rms_norm_eps", 1e-6, 1e-12, 1.0));
  config->group_norm_eps =
      static_cast<float>(fields.Number("sscp_conv_group_norm_eps", 1e-3, 1e-12, 1.0));
  fields.Number("gradient_clipping", 1e10, kLeastClipping, std::numeric_limits<double>::max());
  config->conv_kernel = fields.Size("conf_conv_kernel_size", 5, 1, 64);
  config->size = fields.Size("hidden_size", 1536, 2, kMaxSize);
  return fields.status();
}

// Rows of a convolution with stride 2 and one zero (frequency) or two (time) of padding in all.
size_t Subsampled(size_t n) { return (n - 1) / kSubsampleStride + 1; }

void CheckFeedForward(size_t layer, const char* part, const AudioConfig& config, Shapes* shapes) {
  const std::string p = audio_names::Layer(layer, part);
  shapes->Want(p + ".pre_layer_norm", {config.size});
  shapes->Want(p + ".ffw_layer_1", {config.ffn_size, config.size});
  shapes->Want(p + ".ffw_layer_2", {config.size, config.ffn_size});
  shapes->Want(p + ".post_layer_norm", {config.size});
}

void CheckLayer(size_t layer, const AudioConfig& config, Shapes* shapes) {
  const auto name = [layer](const char* part) { return audio_names::Layer(layer, part); };
  const uint64_t size = config.size;
  CheckFeedForward(layer, "ffw_layer_start", config, shapes);
  shapes->Want(name("attention.pre_attn_norm"), {size});
  for (const char* part : {"q_proj", "k_proj", "v_proj", "relative_position_embedding.pos_proj"}) {
    shapes->Want(name("attention.attn.") + part, {size, size});
  }
  shapes->Want(name("attention.attn.per_dim_scale"), {config.head_dim});
  shapes->Want(name("attention.post"), {size, size});
  shapes->Want(name("attention.post_norm"), {size});
  shapes->Want(name("lconv1d.pre_layer_norm"), {size});
  shapes->Want(name("lconv1d.linear_start"), {2 * size, size});
  shapes->Want(name("lconv1d.depthwise_conv1d"), {size, 1, config.conv_kernel});
  shapes->Want(name("lconv1d.conv_norm"), {size});
  shapes->Want(name("lconv1d.linear_end"), {size, size});
  CheckFeedForward(layer, "ffw_layer_end", config, shapes);
  shapes->Want(name("norm"), {size});
}

Status CheckTensors(const ContainerReader& reader, AudioConfig* config) {
  Shapes shapes(reader);
  const Shape conv0 = shapes.Get(audio_names::Subsample("conv_0.conv"), 4);
  const Shape conv1 = shapes.Get(audio_names::Subsample("conv_1.conv"), 4);
  constexpr uint64_t k = kSubsampleKernel;
  config->conv_channels[0] = conv0[0];
  config->conv_channels[1] = conv1[0];
  config->conv_frequencies[0] = Subsampled(config->mel.num_bins);
  config->conv_frequencies[1] = Subsampled(config->conv_frequencies[0]);
  shapes.Want(audio_names::Subsample("conv_0.conv"), {conv0[0], 1, k, k});
  shapes.Want(audio_names::Subsample("conv_0.norm"), {conv0[0]});
  shapes.Want(audio_names::Subsample("conv_1.conv"), {conv1[0], conv0[0], k, k});
  shapes.Want(audio_names::Subsample("conv_1.norm"), {conv1[0]});
  shapes.Want(audio_names::Subsample("input_proj_linear"),
              {config->size, config->subsampled_size()});
  config->ffn_size = shapes.Get(audio_names::Layer(0, "ffw_layer_start.ffw_layer_1"), 2)[0];
  for (size_t layer = 0; layer < config->num_layers; ++layer) CheckLayer(layer, *config, &shapes);
  config->hard_embeddings = shapes.Get(audio_names::kHardEmbedding, 2)[0];
  shapes.Want(audio_names::kHardEmbedding, {config->hard_embeddings, config->size});
  shapes.Want(audio_names::kHardNorm, {config->size});
  shapes.Want(audio_names::kSoftNorm, {config->size});
  shapes.Want(audio_names::kProjection, {config->hidden_size, config->size});
  return shapes.status();
}

}  // namespace

size_t AudioConfig::NumFrames(size_t num_samples) const {
  const size_t padded = RoundUp(num_samples, kClipSampleMultiple);
  // The reference cuts frames that are one sample longer than what it uses of them.
  if (padded < mel.frame_length + 1) return 0;
  return (padded - mel.frame_length - 1) / mel.hop_length + 1;
}

size_t AudioConfig::NumSteps(size_t num_frames) const {
  return num_frames == 0 ? 0 : Subsampled(Subsampled(num_frames));
}

size_t AudioConfig::NumSoftTokens(size_t num_samples) const {
  return (NumSteps(NumFrames(num_samples)) + reduction - 1) / reduction;
}

size_t AudioConfig::min_samples() const {
  return mel.frame_length / kClipSampleMultiple * kClipSampleMultiple + 1;
}

size_t AudioConfig::max_samples() const {
  // A soft token more begins with a frame more.
  const size_t most_frames = num_positions * reduction * kSubsampleStride * kSubsampleStride;
  const size_t most_padded = most_frames * mel.hop_length + mel.frame_length;
  return std::min(kMaxClipSamples, most_padded / kClipSampleMultiple * kClipSampleMultiple);
}

size_t AudioConfig::shortest_piece() const { return std::min(kAudioSampleRate, max_samples() / 2); }

Status AudioConfig::CheckLength(size_t num_samples) const {
  if (num_samples < min_samples()) {
    return InvalidArgument("a sound of ", num_samples, " samples at ", kAudioSampleRate,
                           " Hz, want at least ", min_samples());
  }
  if (num_samples > max_samples()) {
    return InvalidArgument("a sound of ", num_samples, " samples at ", kAudioSampleRate,
                           " Hz, want at most ", max_samples(), " in a clip");
  }
  return OkStatus();
}

Result<std::vector<SoundPiece>> AudioConfig::Split(size_t num_samples) const {
  if (num_samples < min_samples()) return CheckLength(num_samples);
  const size_t longest = max_samples(), shortest = shortest_piece();
  std::vector<SoundPiece> pieces;
  for (size_t begin = 0; begin < num_samples;) {
    const size_t left = num_samples - begin;
    size_t taken = std::min(left, longest);
    if (left > taken && left - taken < shortest) taken = left - shortest;
    pieces.push_back({begin, begin + taken});
    begin += taken;
  }
  return pieces;
}

Result<AudioConfig> ReadAudioConfig(const ContainerReader& reader) {
  const TowerConfig& tower = reader.header().audio;
  if (!tower.present || reader.FindSection(SectionKind::kAudio) == nullptr) {
    return NotFound("the container has no audio tower");
  }
  AudioConfig config;
  RETURN_IF_ERROR(ReadMel(tower, &config.mel));
  RETURN_IF_ERROR(ReadTower(tower, &config));
  config.hidden_size = reader.header().text.hidden_size;
  config.num_positions = tower.soft_tokens;
  if (config.size % config.num_heads != 0 || config.size % 2 != 0) {
    return BadModel("audio tower: \"hidden_size\" is ", config.size, ", want an even multiple of ",
                    config.num_heads, " heads");
  }
  config.head_dim = config.size / config.num_heads;
  RETURN_IF_ERROR(CheckTensors(reader, &config));
  if (config.hard_embeddings != tower.vocab_size) {
    return BadModel("tensor \"", audio_names::kHardEmbedding, "\": ", config.hard_embeddings,
                    " rows, want one for each of ", tower.vocab_size, " ids");
  }
  if (config.num_positions == 0 || config.num_positions > kMaxSize ||
      config.max_samples() < config.min_samples()) {
    return BadModel("audio tower: ", config.num_positions,
                    " soft tokens for a clip, want at least 1 and at most ", kMaxSize);
  }
  return config;
}

namespace audio_names {

std::string Layer(size_t layer, const char* name) {
  return StrCat("audio_tower.conformer.", layer, ".", name);
}

std::string Subsample(const char* name) {
  return StrCat("audio_tower.subsample_conv_projection.", name);
}

}  // namespace audio_names

}  // namespace nestling
