// SPDX-License-Identifier: Apache-2.0
#include "pack/tower_tensors.h"

#include <utility>

#include "base/status.h"

namespace nestling {
namespace {

// One block of the vision tower; channels into it are those out of the one before.
struct Block {
  enum class Kind { kEdgeResidual, kInvertedBottleneck, kAttention };
  Kind kind;
  uint64_t out;
  uint64_t middle;        // expanded channels; attention: all heads together
  uint64_t start_kernel;  // depthwise convolutions; 0: none
  uint64_t middle_kernel;
  uint64_t head = 0;             // attention: channels of a head
  bool downsamples_kv = false;   // attention: keys and values have half the resolution
};

constexpr Block EdgeResidual(uint64_t out, uint64_t middle) {
  return {Block::Kind::kEdgeResidual, out, middle, 0, 0};
}
constexpr Block Bottleneck(uint64_t out, uint64_t middle, uint64_t start, uint64_t mid = 0) {
  return {Block::Kind::kInvertedBottleneck, out, middle, start, mid};
}
constexpr Block Attention(uint64_t out, uint64_t heads, uint64_t head, bool downsamples_kv) {
  return {Block::Kind::kAttention, out, heads * head, 0, 0, head, downsamples_kv};
}

std::vector<std::vector<Block>> VisionStages() {
  std::vector<std::vector<Block>> stages(4);
  stages[0] = {EdgeResidual(128, 256), EdgeResidual(128, 512), EdgeResidual(128, 512)};
  stages[1] = {Bottleneck(256, 768, 3, 5), Bottleneck(256, 1024, 5), Bottleneck(256, 1024, 3),
               Bottleneck(256, 1024, 5), Bottleneck(256, 1024, 3)};
  stages[2] = {Bottleneck(640, 1536, 5, 5)};
  for (int i = 0; i < 7; ++i) stages[2].push_back(Bottleneck(640, 2560, 5));
  stages[2].push_back(Bottleneck(640, 640, 0));
  for (int i = 0; i < 14; ++i) {
    stages[2].push_back(Attention(640, 12, 64, /*downsamples_kv=*/true));
    stages[2].push_back(Bottleneck(640, 1280, 0));
  }
  stages[3] = {Bottleneck(1280, 3840, 5, 5)};
  for (int i = 0; i < 19; ++i) {
    stages[3].push_back(Attention(1280, 16, 96, /*downsamples_kv=*/false));
    stages[3].push_back(Bottleneck(1280, 2560, 0));
  }
  return stages;
}

class TensorList {
 public:
  explicit TensorList(std::string prefix) : prefix_(std::move(prefix)) {}

  void Add(const std::string& name, std::vector<uint64_t> shape) {
    tensors_.push_back({prefix_ + name, std::move(shape)});
  }
  void set_prefix(std::string prefix) { prefix_ = std::move(prefix); }
  std::vector<TowerTensor> Take() { return std::move(tensors_); }

 private:
  std::string prefix_;
  std::vector<TowerTensor> tensors_;
};

void AddEdgeResidual(const Block& block, uint64_t in, TensorList* list) {
  list->Add("conv_exp", {block.middle, in, 3, 3});
  list->Add("bn1", {block.middle});
  list->Add("conv_pwl", {block.out, block.middle, 1, 1});
  list->Add("bn2", {block.out});
}

void AddBottleneck(const Block& block, uint64_t in, TensorList* list) {
  if (block.start_kernel != 0) {
    list->Add("dw_start.conv", {in, 1, block.start_kernel, block.start_kernel});
    list->Add("dw_start.bn", {in});
  }
  list->Add("pw_exp.conv", {block.middle, in, 1, 1});
  list->Add("pw_exp.bn", {block.middle});
  if (block.middle_kernel != 0) {
    list->Add("dw_mid.conv", {block.middle, 1, block.middle_kernel, block.middle_kernel});
    list->Add("dw_mid.bn", {block.middle});
  }
  list->Add("pw_proj.conv", {block.out, block.middle, 1, 1});
  list->Add("pw_proj.bn", {block.out});
  list->Add("layer_scale.gamma", {block.out});
}

void AddAttention(const Block& block, uint64_t in, TensorList* list) {
  list->Add("norm", {in});
  list->Add("attn.query.proj", {block.middle, in, 1, 1});
  for (const char* part : {"attn.key.", "attn.value."}) {
    if (block.downsamples_kv) {
      list->Add(StrCat(part, "down_conv"), {in, 1, 3, 3});
      list->Add(StrCat(part, "norm"), {in});
    }
    list->Add(StrCat(part, "proj"), {block.head, in, 1, 1});
  }
  list->Add("attn.output.proj", {block.out, block.middle, 1, 1});
  list->Add("layer_scale.gamma", {block.out});
}

void AddEmbedder(uint64_t tower_size, uint64_t hidden_size, TensorList* list) {
  list->Add("embedding", {128, tower_size});
  list->Add("hard_embedding_norm", {tower_size});
  list->Add("soft_embedding_norm", {tower_size});
  list->Add("embedding_projection", {hidden_size, tower_size});
}

void AddFeedForward(const std::string& name, uint64_t size, TensorList* list) {
  list->Add(name + ".pre_layer_norm", {size});
  list->Add(name + ".ffw_layer_1", {4 * size, size});
  list->Add(name + ".ffw_layer_2", {size, 4 * size});
  list->Add(name + ".post_layer_norm", {size});
}

void AddConformer(uint64_t size, uint64_t head, TensorList* list) {
  AddFeedForward("ffw_layer_start", size, list);
  list->Add("attention.pre_attn_norm", {size});
  for (const char* part : {"q_proj", "k_proj", "v_proj"}) {
    list->Add(StrCat("attention.attn.", part), {size, size});
  }
  list->Add("attention.attn.per_dim_scale", {head});
  list->Add("attention.attn.relative_position_embedding.pos_proj", {size, size});
  list->Add("attention.post", {size, size});
  list->Add("attention.post_norm", {size});
  list->Add("lconv1d.pre_layer_norm", {size});
  list->Add("lconv1d.linear_start", {2 * size, size});
  list->Add("lconv1d.depthwise_conv1d", {size, 1, 5});
  list->Add("lconv1d.conv_norm", {size});
  list->Add("lconv1d.linear_end", {size, size});
  AddFeedForward("ffw_layer_end", size, list);
  list->Add("norm", {size});
}

}  // namespace

std::vector<TowerTensor> VisionTensors(uint64_t hidden_size) {
  constexpr uint64_t kStem = 64;
  constexpr uint64_t kFeatures = 2048;
  const std::string tower = "vision_tower.timm_model.";
  TensorList list(tower);
  list.Add("conv_stem.conv", {kStem, 3, 3, 3});
  list.Add("conv_stem.conv.bias", {kStem});
  list.Add("conv_stem.bn", {kStem});
  const std::vector<std::vector<Block>> stages = VisionStages();
  uint64_t channels = kStem;
  for (size_t s = 0; s < stages.size(); ++s) {
    for (size_t b = 0; b < stages[s].size(); ++b) {
      const Block& block = stages[s][b];
      list.set_prefix(StrCat(tower, "blocks.", s, ".", b, "."));
      switch (block.kind) {
        case Block::Kind::kEdgeResidual: AddEdgeResidual(block, channels, &list); break;
        case Block::Kind::kInvertedBottleneck: AddBottleneck(block, channels, &list); break;
        case Block::Kind::kAttention: AddAttention(block, channels, &list); break;
      }
      channels = block.out;
    }
  }
  const uint64_t fused = stages[2].back().out + stages[3].back().out;
  list.set_prefix(tower + "msfa.");
  list.Add("ffn.pw_exp.conv", {2 * fused, fused, 1, 1});
  list.Add("ffn.pw_exp.bn", {2 * fused});
  list.Add("ffn.pw_proj.conv", {kFeatures, 2 * fused, 1, 1});
  list.Add("ffn.pw_proj.bn", {kFeatures});
  list.Add("norm", {kFeatures});
  list.set_prefix("embed_vision.");
  AddEmbedder(kFeatures, hidden_size, &list);
  return list.Take();
}

std::vector<TowerTensor> AudioTensors(uint64_t hidden_size) {
  constexpr uint64_t kSize = 1536;
  constexpr uint64_t kHead = 192;
  constexpr int kNumBlocks = 12;
  TensorList list("audio_tower.subsample_conv_projection.");
  list.Add("conv_0.conv", {128, 1, 3, 3});
  list.Add("conv_0.norm", {128});
  list.Add("conv_1.conv", {32, 128, 3, 3});
  list.Add("conv_1.norm", {32});
  list.Add("input_proj_linear", {kSize, 1024});  // 32 frequencies x 32 channels
  for (int i = 0; i < kNumBlocks; ++i) {
    list.set_prefix(StrCat("audio_tower.conformer.", i, "."));
    AddConformer(kSize, kHead, &list);
  }
  list.set_prefix("embed_audio.");
  AddEmbedder(kSize, hidden_size, &list);
  return list.Take();
}

}  // namespace nestling
