// SPDX-License-Identifier: Apache-2.0
#include "modality/vision/vision_tower.h"

#include <xnnpack.h>

#include <algorithm>
#include <functional>
#include <string>
#include <utility>

#include "graph/graph_context.h"
#include "modality/vision/vision_weights.h"

namespace nestling {
namespace {

constexpr uint64_t kMaxActivationBytes = 4ull << 30;

Result<VisionPrecision> PrecisionOf(const ContainerReader& reader, const VisionOptions& options) {
  switch (options.compute) {
    case VisionOptions::Compute::kF32:
      return VisionPrecision::kF32;
    case VisionOptions::Compute::kInt8:
      return VisionPrecision::kInt8;
    case VisionOptions::Compute::kAuto:
      break;
  }
  ASSIGN_OR_RETURN(const std::string held, HeldCompute(reader, SectionKind::kVision));
  if (!held.empty()) return held == "int8" ? VisionPrecision::kInt8 : VisionPrecision::kF32;
  const bool int8 =
      std::any_of(reader.tensors().begin(), reader.tensors().end(), [](const TensorInfo& tensor) {
        return tensor.section == SectionKind::kVision && tensor.dtype == DType::kQ8C &&
               tensor.name.starts_with(kVisionPrefix);
      });
  return int8 ? VisionPrecision::kInt8 : VisionPrecision::kF32;
}

// Rows beyond a map that a convolution on it may read.
size_t MarginOf(const VisionConfig& config) {
  size_t margin = 0;
  for (const auto& stage : config.stages) {
    for (const VisionBlockConfig& block : stage) {
      margin = std::max({margin, block.kernel, block.start_kernel});
    }
  }
  return margin;
}

}  // namespace

Result<std::unique_ptr<VisionTower>> VisionTower::Create(const ContainerReader& reader,
                                                         const ThreadPool& pool,
                                                         const VisionOptions& options) {
  RETURN_IF_ERROR(XnnStatus(xnn_initialize(/*allocator=*/nullptr), "initialise"));
  ASSIGN_OR_RETURN(VisionConfig config, ReadVisionConfig(reader));
  ASSIGN_OR_RETURN(const VisionPrecision precision, PrecisionOf(reader, options));
  std::unique_ptr<VisionTower> tower(new VisionTower(pool, std::move(config), precision));
  RETURN_IF_ERROR(tower->Load(reader, options));
  RETURN_IF_ERROR(tower->PlanMemory());
  return tower;
}

Status VisionTower::Load(const ContainerReader& reader, const VisionOptions& options) {
  ASSIGN_OR_RETURN(packed_,
                   PackedWeights::Create(reader, "vision", int8() ? "int8" : "f32", options.cache));
  ASSIGN_OR_RETURN(const VisionWeights weights, VisionWeights::Create(reader, *packed_));
  const VisionBuild build = {weights, precision_, pool_.num_threads(), options.band_bytes};
  std::vector<std::function<Status()>> tasks;
  tasks.push_back([&]() -> Status {
    ASSIGN_OR_RETURN(head_, MakeVisionHead(build, config_));
    return OkStatus();
  });
  stages_.resize(config_.stages.size());
  for (size_t s = config_.stages.size(); s-- > 0;) {  // the largest first
    stages_[s].resize(config_.stages[s].size());
    for (size_t b = 0; b < stages_[s].size(); ++b) {
      tasks.push_back([&, s, b]() -> Status {
        const VisionBlockConfig& config = config_.stages[s][b];
        ASSIGN_OR_RETURN(stages_[s][b], MakeVisionBlock(build, config));
        weights.ReleasePages(config.prefix);
        return OkStatus();
      });
    }
  }
  tasks.push_back([&]() -> Status {
    ASSIGN_OR_RETURN(stem_, MakeVisionStem(build, config_));
    return OkStatus();
  });
  std::vector<Status> statuses(tasks.size());
  pool_.ParallelFor(tasks.size(), [&](size_t i) {
    try {
      statuses[i] = tasks[i]();
    } catch (const std::bad_alloc&) {
      statuses[i] = Status(StatusCode::kOutOfMemory, {});
    }
  });
  for (Status& status : statuses) RETURN_IF_ERROR(std::move(status));
  packed_->Commit();
  return OkStatus();
}

Status VisionTower::PlanMemory() {
  margin_ = MarginOf(config_);
  const auto floats = [this](size_t height, size_t width, size_t channels) {
    return (height + 2 * margin_) * width * channels;
  };
  // Blocks write the two maps in turn, the stem the first one.
  size_t map[2] = {floats(config_.stem_height, config_.stem_width, config_.stem), 0};
  size_t turn = 0;
  size_t scratch = std::max(stem_->scratch_bytes(), head_->scratch_bytes());
  for (size_t s = 0; s < config_.stages.size(); ++s) {
    for (size_t b = 0; b < config_.stages[s].size(); ++b) {
      const VisionBlockConfig& block = config_.stages[s][b];
      turn = 1 - turn;
      map[turn] = std::max(map[turn], floats(block.out_height, block.out_width, block.out));
      scratch = std::max(scratch, stages_[s][b]->scratch_bytes());
    }
  }
  const VisionBlockConfig& high = config_.stages[config_.stages.size() - 2].back();
  ScratchPlan plan;
  for (size_t i = 0; i < 2; ++i) maps_[i] = plan.Add<float>(map[i]);
  high_ = plan.Add<float>(floats(high.out_height, high.out_width, high.out));
  features_ = plan.Add<float>(config_.num_soft_tokens() * config_.features);
  scratch_ = plan.Add<std::byte>(scratch);
  if (plan.bytes() > kMaxActivationBytes) {
    return Unsupported("vision tower: activations of ", plan.bytes(), " bytes, want at most ",
                       kMaxActivationBytes);
  }
  ASSIGN_OR_RETURN(memory_, LazyMemory::Create(plan.bytes()));
  return OkStatus();
}

FeatureMap VisionTower::MapAt(size_t offset, size_t height, size_t width, size_t channels) const {
  FeatureMap map = {nullptr, height, width, channels, margin_};
  map.data = reinterpret_cast<float*>(memory_.data() + offset) + margin_ * map.row_floats();
  map.ZeroMargins();
  return map;
}

Result<std::vector<float>> VisionTower::Encode(std::span<const float> pixels, Observer observer) {
  const size_t want = 3 * image_height() * image_width();
  if (pixels.size() != want) {
    return InvalidArgument("image of ", pixels.size(), " values, want ", want, " (3 x ",
                           image_height(), " x ", image_width(), ")");
  }
  std::vector<float> soft_tokens(num_soft_tokens() * hidden_size());
  const std::lock_guard lock(mutex_);
  const Status status = Run(pixels, observer, soft_tokens);
  memory_.Release();
  if (!status.ok()) return status;
  return soft_tokens;
}

Status VisionTower::Run(std::span<const float> pixels, Observer observer,
                        std::span<float> soft_tokens) {
  const auto observe = [&](const std::string& stage, const FeatureMap& map) {
    if (observer) observer(stage, map);
  };
  const VisionRun run = {pool_, memory_.data() + scratch_};
  FeatureMap map = MapAt(maps_[0], config_.stem_height, config_.stem_width, config_.stem);
  RETURN_IF_ERROR(stem_->Run(run, pixels.data(), map));
  observe("stem", map);
  FeatureMap high;
  size_t turn = 0;
  for (size_t s = 0; s < stages_.size(); ++s) {
    for (size_t b = 0; b < stages_[s].size(); ++b) {
      const VisionBlockConfig& block = config_.stages[s][b];
      const bool last_of_high = s + 2 == stages_.size() && b + 1 == stages_[s].size();
      turn = 1 - turn;
      const FeatureMap out =
          MapAt(last_of_high ? high_ : maps_[turn], block.out_height, block.out_width, block.out);
      RETURN_IF_ERROR(stages_[s][b]->Run(run, map, out));
      if (observer) observe(StrCat("block.", s, ".", b), out);
      map = out;
      if (last_of_high) high = out;
    }
    if (observer) observe(StrCat("stage", s), map);
  }
  float* features = reinterpret_cast<float*>(memory_.data() + features_);
  RETURN_IF_ERROR(head_->Run(run, high, map, features, soft_tokens.data()));
  observe("msfa",
          {features, config_.output_resolution, config_.output_resolution, config_.features, 0});
  return OkStatus();
}

}  // namespace nestling
