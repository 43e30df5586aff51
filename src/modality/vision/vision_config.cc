// SPDX-License-Identifier: Apache-2.0
#include "modality/vision/vision_config.h"

#include <nlohmann/json.hpp>

#include <cmath>
#include <set>
#include <string_view>
#include <utility>

namespace nestling {
namespace {

using Json = nlohmann::json;
using Shape = std::vector<uint64_t>;

constexpr size_t kMaxSide = 4096;          // of an image, in pixels
constexpr size_t kMaxChannels = 1 << 16;
constexpr size_t kMaxKernel = 7;
constexpr size_t kMaxStages = 8;
constexpr size_t kMaxBlocks = 256;         // of a stage
constexpr size_t kMaxJsonBytes = 1 << 20;
constexpr size_t kDefaultSide = 768;       // what the architecture's name implies
constexpr size_t kDefaultResolution = 16;

std::string ShapeText(const Shape& shape) {
  std::string text = "[";
  for (const uint64_t size : shape) text += StrCat(text.size() > 1 ? ", " : "", size);
  return text + "]";
}

// The tensors of the VISION section by name, and which of them have been asked for.
class Tensors {
 public:
  explicit Tensors(const ContainerReader& reader) : reader_(reader) {}

  bool Has(const std::string& name) const { return Find(name) != nullptr; }

  // The shape of a tensor that must be there with this rank and sizes within limits.
  Result<Shape> Get(const std::string& name, size_t rank) {
    const TensorInfo* tensor = Find(name);
    if (tensor == nullptr) {
      return BadModel("tensor \"", name, "\" is missing from the vision tower");
    }
    used_.insert(name);
    if (tensor->shape.size() != rank) {
      return BadModel("tensor \"", name, "\": shape ", ShapeText(tensor->shape), ", want ", rank,
                      " dimensions");
    }
    for (const uint64_t size : tensor->shape) {
      if (size == 0 || size > kMaxChannels) {
        return BadModel("tensor \"", name, "\": shape ", ShapeText(tensor->shape),
                        ", want sizes of 1 to ", kMaxChannels);
      }
    }
    return tensor->shape;
  }

  Status Want(const std::string& name, const Shape& shape) {
    ASSIGN_OR_RETURN(const Shape found, Get(name, shape.size()));
    if (found == shape) return OkStatus();
    return BadModel("tensor \"", name, "\": shape ", ShapeText(found), ", want ",
                    ShapeText(shape));
  }

  // A square kernel [out, in, k, k]; *kernel becomes k.
  Result<Shape> GetKernel(const std::string& name, size_t* kernel) {
    ASSIGN_OR_RETURN(Shape shape, Get(name, 4));
    if (shape[2] != shape[3] || shape[2] > kMaxKernel) {
      return BadModel("tensor \"", name, "\": shape ", ShapeText(shape),
                      ", want a square kernel of at most ", kMaxKernel);
    }
    *kernel = shape[2];
    return shape;
  }

  // [channels, 1, k, k].
  Status WantDepthwise(const std::string& name, size_t channels, size_t* kernel) {
    ASSIGN_OR_RETURN(const Shape shape, GetKernel(name, kernel));
    if (shape[0] == channels && shape[1] == 1) return OkStatus();
    return BadModel("tensor \"", name, "\": shape ", ShapeText(shape), ", want [", channels,
                    ", 1, k, k]");
  }

  // A 1x1 convolution [out, in, 1, 1] whose inputs are known.
  Result<size_t> GetPointwise(const std::string& name, size_t in) {
    ASSIGN_OR_RETURN(const Shape shape, Get(name, 4));
    if (shape[1] == in && shape[2] == 1 && shape[3] == 1) return static_cast<size_t>(shape[0]);
    return BadModel("tensor \"", name, "\": shape ", ShapeText(shape), ", want [out, ", in,
                    ", 1, 1]");
  }

  // A tensor of the tower that nothing asked for means that it is another kind of tower.
  Status CheckAllUsed() const {
    for (const TensorInfo& tensor : reader_.tensors()) {
      if (tensor.section != SectionKind::kVision || used_.contains(tensor.name) ||
          !tensor.name.starts_with(kVisionPrefix)) {
        continue;
      }
      return Unsupported("tensor \"", tensor.name, "\" ", ShapeText(tensor.shape),
                         " is not one of a MobileNet-V5 encoder");
    }
    return OkStatus();
  }

 private:
  const TensorInfo* Find(const std::string& name) const {
    const TensorInfo* tensor = reader_.FindTensor(name);
    return tensor != nullptr && tensor->section == SectionKind::kVision ? tensor : nullptr;
  }

  const ContainerReader& reader_;
  std::set<std::string> used_;
};

// ---- JSON: all fields may be absent or null ----

Result<Json> Parse(const std::string& text, const char* what) {
  if (text.empty()) return Json::object();
  Json json = text.size() > kMaxJsonBytes ? Json() : Json::parse(text, nullptr, false);
  if (json.is_object()) return json;
  return BadModel(what, " of the vision tower is not a JSON object of at most ", kMaxJsonBytes,
                  " bytes");
}

// Null if there is no such field.
const Json& Field(const Json& json, const char* name) {
  static const Json null;
  if (!json.is_object()) return null;
  const auto it = json.find(name);
  return it == json.end() ? null : *it;
}

Result<size_t> SizeField(const Json& json, const char* name, size_t otherwise, size_t most) {
  const Json& field = Field(json, name);
  if (field.is_null()) return otherwise;
  if (field.is_number_integer() && field >= 1 && field <= most) return field.get<size_t>();
  return BadModel("vision tower: \"", name, "\" is ", field.dump().substr(0, 40),
                  ", want a whole number of 1 to ", most);
}

// ---- Preprocessing ----

Status ReadImageSize(const Json& preprocessor, VisionConfig* config) {
  const Json& size = Field(preprocessor, "size");
  ASSIGN_OR_RETURN(config->image_height, SizeField(size, "height", kDefaultSide, kMaxSide));
  ASSIGN_OR_RETURN(config->image_width, SizeField(size, "width", kDefaultSide, kMaxSide));
  // What PrepareImage does.
  if (Field(preprocessor, "do_normalize") == true) {
    return Unsupported("vision tower: \"do_normalize\" is true, want false");
  }
  const Json& resample = Field(preprocessor, "resample");
  if (!resample.is_null() && resample != 2) {
    return Unsupported("vision tower: \"resample\" is ", resample.dump().substr(0, 40),
                       ", want 2 (bilinear)");
  }
  const Json& factor = Field(preprocessor, "rescale_factor");
  if (!factor.is_null() &&
      !(factor.is_number() && std::abs(factor.get<double>() * 255.0 - 1.0) < 1e-6)) {
    return Unsupported("vision tower: \"rescale_factor\" is ", factor.dump().substr(0, 40),
                       ", want 1 / 255");
  }
  return OkStatus();
}

// ---- Blocks ----

size_t CeilDivide(size_t a, size_t b) { return (a + b - 1) / b; }

Status ReadEdgeResidual(Tensors* tensors, VisionBlockConfig* block) {
  const std::string& p = block->prefix;
  block->kind = VisionBlockConfig::Kind::kEdgeResidual;
  ASSIGN_OR_RETURN(const Shape shape, tensors->GetKernel(p + "conv_exp", &block->kernel));
  if (shape[1] != block->in) {
    return BadModel("tensor \"", p, "conv_exp\": shape ", ShapeText(shape), ", want [out, ",
                    block->in, ", k, k]");
  }
  block->middle = shape[0];
  RETURN_IF_ERROR(tensors->Want(p + "bn1", {block->middle}));
  ASSIGN_OR_RETURN(block->out, tensors->GetPointwise(p + "conv_pwl", block->middle));
  return tensors->Want(p + "bn2", {block->out});
}

Status ReadInvertedBottleneck(Tensors* tensors, VisionBlockConfig* block) {
  const std::string& p = block->prefix;
  block->kind = VisionBlockConfig::Kind::kInvertedBottleneck;
  if (tensors->Has(p + "dw_start.conv")) {
    RETURN_IF_ERROR(
        tensors->WantDepthwise(p + "dw_start.conv", block->in, &block->start_kernel));
    RETURN_IF_ERROR(tensors->Want(p + "dw_start.bn", {block->in}));
  }
  ASSIGN_OR_RETURN(block->middle, tensors->GetPointwise(p + "pw_exp.conv", block->in));
  RETURN_IF_ERROR(tensors->Want(p + "pw_exp.bn", {block->middle}));
  if (tensors->Has(p + "dw_mid.conv")) {
    RETURN_IF_ERROR(
        tensors->WantDepthwise(p + "dw_mid.conv", block->middle, &block->middle_kernel));
    RETURN_IF_ERROR(tensors->Want(p + "dw_mid.bn", {block->middle}));
  } else if (block->stride > 1) {
    return BadModel("tensor \"", p, "dw_mid.conv\" is missing: the first block of a stage needs ",
                    "it for its stride of 2");
  }
  ASSIGN_OR_RETURN(block->out, tensors->GetPointwise(p + "pw_proj.conv", block->middle));
  RETURN_IF_ERROR(tensors->Want(p + "pw_proj.bn", {block->out}));
  return tensors->Want(p + "layer_scale.gamma", {block->out});
}

Status ReadAttention(Tensors* tensors, VisionBlockConfig* block) {
  const std::string& p = block->prefix;
  block->kind = VisionBlockConfig::Kind::kAttention;
  if (block->stride != 1) {
    return BadModel("tensor \"", p, "attn.query.proj\": the first block of a stage is an "
                    "attention, want a convolution of stride 2");
  }
  RETURN_IF_ERROR(tensors->Want(p + "norm", {block->in}));
  if (tensors->Has(p + "attn.key.down_conv")) {
    block->kv_stride = 2;
    RETURN_IF_ERROR(
        tensors->WantDepthwise(p + "attn.key.down_conv", block->in, &block->kv_kernel));
    RETURN_IF_ERROR(tensors->Want(p + "attn.value.down_conv",
                                  {block->in, 1, block->kv_kernel, block->kv_kernel}));
    RETURN_IF_ERROR(tensors->Want(p + "attn.key.norm", {block->in}));
    RETURN_IF_ERROR(tensors->Want(p + "attn.value.norm", {block->in}));
  }
  ASSIGN_OR_RETURN(block->middle, tensors->GetPointwise(p + "attn.query.proj", block->in));
  ASSIGN_OR_RETURN(block->head_dim, tensors->GetPointwise(p + "attn.key.proj", block->in));
  RETURN_IF_ERROR(tensors->Want(p + "attn.value.proj", {block->head_dim, block->in, 1, 1}));
  if (block->middle % block->head_dim != 0) {
    return BadModel("tensor \"", p, "attn.query.proj\": ", block->middle,
                    " outputs, want a multiple of the ", block->head_dim, " of the key");
  }
  block->num_heads = block->middle / block->head_dim;
  RETURN_IF_ERROR(
      tensors->Want(p + "attn.output.proj", {block->in, block->middle, 1, 1}));
  block->out = block->in;
  return tensors->Want(p + "layer_scale.gamma", {block->out});
}

Status ReadBlock(Tensors* tensors, VisionBlockConfig* block) {
  if (tensors->Has(block->prefix + "conv_exp")) return ReadEdgeResidual(tensors, block);
  if (tensors->Has(block->prefix + "attn.query.proj")) return ReadAttention(tensors, block);
  return ReadInvertedBottleneck(tensors, block);
}

bool HasBlock(const Tensors& tensors, const std::string& prefix) {
  for (const char* name : {"conv_exp", "attn.query.proj", "pw_exp.conv"}) {
    if (tensors.Has(prefix + name)) return true;
  }
  return false;
}

Status ReadStages(Tensors* tensors, VisionConfig* config) {
  size_t channels = config->stem, height = config->stem_height, width = config->stem_width;
  for (size_t s = 0; s < kMaxStages; ++s) {
    std::vector<VisionBlockConfig> blocks;
    for (size_t b = 0; b < kMaxBlocks; ++b) {
      VisionBlockConfig block;
      block.prefix = StrCat(kVisionPrefix, "blocks.", s, ".", b, ".");
      if (!HasBlock(*tensors, block.prefix)) break;
      block.in = channels;
      block.stride = b == 0 ? 2 : 1;
      block.in_height = height;
      block.in_width = width;
      block.out_height = CeilDivide(height, block.stride);
      block.out_width = CeilDivide(width, block.stride);
      RETURN_IF_ERROR(ReadBlock(tensors, &block));
      block.residual = block.stride == 1 && block.in == block.out;
      channels = block.out;
      height = block.out_height;
      width = block.out_width;
      blocks.push_back(std::move(block));
    }
    if (blocks.empty()) break;
    config->stages.push_back(std::move(blocks));
  }
  if (config->stages.size() >= 2) return OkStatus();
  return BadModel("tensor \"", kVisionPrefix, "blocks.", config->stages.size(),
                  ".0.*\" is missing: the vision tower has ", config->stages.size(),
                  " stages, want at least 2");
}

// The configuration may repeat what the tensors say.
Status CheckBlockArgs(const Json& model_args, const VisionConfig& config) {
  const Json& stages = Field(model_args, "block_args");
  if (!stages.is_array()) return OkStatus();
  if (stages.size() != config.stages.size()) {
    return BadModel("vision tower: ", stages.size(), " stages in \"block_args\", the tensors have ",
                    config.stages.size());
  }
  for (size_t s = 0; s < stages.size(); ++s) {
    if (!stages[s].is_array() || stages[s].size() != config.stages[s].size()) {
      return BadModel("vision tower: \"block_args\"[", s, "] is not a list of the ",
                      config.stages[s].size(), " blocks that the tensors have");
    }
    for (size_t b = 0; b < stages[s].size(); ++b) {
      const VisionBlockConfig& block = config.stages[s][b];
      const std::pair<const char*, size_t> wanted[] = {
          {"stride", block.stride}, {"kv_stride", block.kv_stride}, {"out_chs", block.out},
          {"num_heads", block.num_heads}};
      for (const auto& [name, want] : wanted) {
        const Json& field = Field(stages[s][b], name);
        if (field.is_null() || field == want) continue;
        return BadModel("vision tower: \"block_args\"[", s, "][", b, "]: \"", name, "\" is ",
                        field.dump().substr(0, 40), ", the tensors say ", want);
      }
    }
  }
  return OkStatus();
}

Status ReadStem(Tensors* tensors, VisionConfig* config) {
  const std::string name = StrCat(kVisionPrefix, "conv_stem.conv");
  ASSIGN_OR_RETURN(const Shape shape, tensors->GetKernel(name, &config->stem_kernel));
  if (shape[1] != 3) {
    return BadModel("tensor \"", name, "\": shape ", ShapeText(shape),
                    ", want 3 input channels");
  }
  config->stem = shape[0];
  config->stem_height = CeilDivide(config->image_height, 2);
  config->stem_width = CeilDivide(config->image_width, 2);
  config->stem_bias = tensors->Has(name + ".bias");
  if (config->stem_bias) RETURN_IF_ERROR(tensors->Want(name + ".bias", {config->stem}));
  return tensors->Want(StrCat(kVisionPrefix, "conv_stem.bn"), {config->stem});
}

// The fusion adapter joins the last two stages.
Status ReadFusion(Tensors* tensors, VisionConfig* config) {
  const std::string p = StrCat(kVisionPrefix, "msfa.");
  const VisionBlockConfig& low = config->stages.back().back();
  const VisionBlockConfig& high = config->stages[config->stages.size() - 2].back();
  ASSIGN_OR_RETURN(config->fusion_middle,
                   tensors->GetPointwise(p + "ffn.pw_exp.conv", high.out + low.out));
  RETURN_IF_ERROR(tensors->Want(p + "ffn.pw_exp.bn", {config->fusion_middle}));
  ASSIGN_OR_RETURN(config->features,
                   tensors->GetPointwise(p + "ffn.pw_proj.conv", config->fusion_middle));
  RETURN_IF_ERROR(tensors->Want(p + "ffn.pw_proj.bn", {config->features}));
  RETURN_IF_ERROR(tensors->Want(p + "norm", {config->features}));
  const size_t resolution = config->output_resolution;
  if (high.out_height % resolution != 0 || high.out_width % resolution != 0) {
    return Unsupported("vision tower: feature map of ", high.out_height, " x ", high.out_width,
                       ", want multiples of the output resolution ", resolution);
  }
  return OkStatus();
}

Status ReadEmbedder(Tensors* tensors, size_t hidden_size, VisionConfig* config) {
  config->hidden_size = hidden_size;
  RETURN_IF_ERROR(tensors->Want("embed_vision.soft_embedding_norm", {config->features}));
  return tensors->Want("embed_vision.embedding_projection", {hidden_size, config->features});
}

}  // namespace

SamePadding SamePaddingOf(size_t n, size_t kernel, size_t stride) {
  const size_t covered = (CeilDivide(n, stride) - 1) * stride + kernel;
  const size_t total = covered > n ? covered - n : 0;
  return {total / 2, total - total / 2};
}

Result<VisionConfig> ReadVisionConfig(const ContainerReader& reader) {
  const HeaderFields& header = reader.header();
  if (!header.vision.present || reader.FindSection(SectionKind::kVision) == nullptr) {
    return NotFound("the container has no vision tower");
  }
  ASSIGN_OR_RETURN(const Json json, Parse(header.vision.config_json, "configuration"));
  ASSIGN_OR_RETURN(const Json preprocessor,
                   Parse(header.vision.preprocessor_json, "preprocessor configuration"));
  const Json& model_args = Field(json, "model_args");
  VisionConfig config;
  RETURN_IF_ERROR(ReadImageSize(preprocessor, &config));
  ASSIGN_OR_RETURN(config.output_resolution, SizeField(model_args, "msfa_output_resolution",
                                                       kDefaultResolution, kMaxSide));
  const Json& eps = Field(json, "rms_norm_eps");
  if (eps.is_number()) config.embedder_eps = eps.get<float>();

  Tensors tensors(reader);
  RETURN_IF_ERROR(ReadStem(&tensors, &config));
  RETURN_IF_ERROR(ReadStages(&tensors, &config));
  RETURN_IF_ERROR(CheckBlockArgs(model_args, config));
  RETURN_IF_ERROR(ReadFusion(&tensors, &config));
  RETURN_IF_ERROR(ReadEmbedder(&tensors, header.text.hidden_size, &config));
  RETURN_IF_ERROR(tensors.CheckAllUsed());
  if (header.vision.soft_tokens != config.num_soft_tokens()) {
    return BadModel("vision tower: ", header.vision.soft_tokens,
                    " soft tokens an image in the header, its output resolution says ",
                    config.num_soft_tokens());
  }
  return config;
}

}  // namespace nestling
