// SPDX-License-Identifier: Apache-2.0
#include "runtime/engine.h"

#include <algorithm>
#include <chrono>
#include <limits>
#include <utility>
#include <vector>

#include "base/aligned_buffer.h"
#include "base/memory_info.h"
#include "graph/decoder_blocks.h"
#include "model/slices.h"
#include "model/tensor_names.h"
#include "runtime/memory_budget.h"
#include "runtime/memory_estimate.h"
#include "runtime/reclaimers.h"
#include "runtime/scratch.h"
#include "runtime/slice_choice.h"

namespace nestling {
namespace {

constexpr uint32_t kDefaultChunkTokens = 256;
constexpr uint32_t kMaxChunkTokens = 8192;
constexpr uint32_t kDefaultContextTokens = 4096;
constexpr uint64_t kMaxSliceFileBytes = 1 << 20;

Result<std::unique_ptr<Tokenizer>> LoadTokenizer(const ContainerReader& container) {
  const SectionInfo* section = container.FindSection(SectionKind::kTokenizer);
  if (section == nullptr || section->bytes == 0) return std::unique_ptr<Tokenizer>();
  ASSIGN_OR_RETURN(const MappedRegion region, container.MapSection(SectionKind::kTokenizer));
  return Tokenizer::Create(region.bytes(), container.header().special_tokens);
}

// The slices that may be chosen: those within the budget, or the one that was named.
Result<FittingSlices> ListFitting(const ContainerReader& container, const EngineOptions& options,
                                  const SliceLimits& limits) {
  const bool choose =
      options.slice.empty() && (limits.memory_budget_bytes != 0 || limits.target_decode_rate > 0);
  std::vector<SliceConfig> candidates;
  if (choose) {
    candidates = CandidateSlices(container.header());
  } else {
    ASSIGN_OR_RETURN(SliceConfig named, ResolveSlice(container.header(), options.slice));
    candidates.push_back(std::move(named));
  }
  MemoryQuery query;
  query.context_tokens = options.budget_context_tokens;
  query.chunk_tokens = options.chunk_tokens;
  query.ple_mode = options.ple_mode;
  query.ple_cache_bytes = options.ple_cache_bytes;
  return FindFittingSlices(container, candidates, limits, query);
}

// Bytes that are taken as long as the engine lives, weights and PLE cache aside.
uint64_t FixedBytes(const MemoryEstimate& estimate, PleMode mode) {
  return estimate.other + (mode != PleMode::kStream ? estimate.ple : 0);
}

}  // namespace

Result<SliceConfig> ResolveSlice(const HeaderFields& header, const std::string& slice) {
  if (slice.empty()) return WholeModelSlice(header.text);
  Result<SliceConfig> named = FindSlice(header, slice);
  if (named.ok() || !slice.ends_with(".json")) return named;
  ASSIGN_OR_RETURN(const std::string json, ReadFile(slice, kMaxSliceFileBytes));
  return ParseSliceJson(json, header.text);
}

Result<uint32_t> ResolveChunkTokens(uint32_t wanted) {
  if (wanted > kMaxChunkTokens) {
    return InvalidArgument("chunk of ", wanted, " tokens, at most ", kMaxChunkTokens);
  }
  return wanted != 0 ? wanted : kDefaultChunkTokens;
}

Result<uint32_t> ResolveContextTokens(const TextConfig& config, uint32_t wanted) {
  const uint32_t limit = config.max_position_embeddings;
  if (wanted > limit) {
    return InvalidArgument("context of ", wanted, " tokens, the model has ", limit);
  }
  return wanted != 0 ? wanted : std::min(kDefaultContextTokens, limit);
}

Engine::Engine() = default;
Engine::~Engine() {
  if (towers_ == nullptr) return;
  // A load that still runs asks the budget.
  towers_->Unload(TowerKind::kVision);
  towers_->Unload(TowerKind::kAudio);
}

Result<std::unique_ptr<Engine>> Engine::Create(const std::string& path,
                                               const EngineOptions& options) {
  ASSIGN_OR_RETURN(auto file, File::Open(path));
  return Create(std::move(file), options);
}

Result<std::unique_ptr<Engine>> Engine::Create(std::unique_ptr<File> file,
                                               const EngineOptions& options) {
  std::unique_ptr<Engine> engine(new Engine);
  ASSIGN_OR_RETURN(const uint32_t wanted_chunk, ResolveChunkTokens(options.chunk_tokens));
  ASSIGN_OR_RETURN(engine->container_, ContainerReader::Open(std::move(file)));
  const ContainerReader& container = *engine->container_;
  // Before anything is loaded: what cannot fit costs nothing.
  const SliceLimits limits = {options.memory_budget_bytes, options.target_decode_rate};
  ASSIGN_OR_RETURN(FittingSlices fitting, ListFitting(container, options, limits));
  ASSIGN_OR_RETURN(engine->pool_, ThreadPool::Create(options.num_threads, options.cpu_mask));
  ASSIGN_OR_RETURN(engine->weights_, ModelWeights::Create(container));
  ASSIGN_OR_RETURN(engine->tokenizer_, LoadTokenizer(container));
  TowersOptions towers = options.towers;
  towers.packed_cache = options.packed_cache;
  towers.admit = [engine = engine.get()](TowerKind kind) { return engine->AdmitTower(kind); };
  engine->towers_ = std::make_unique<Towers>(container, *engine->pool_, std::move(towers));
  ASSIGN_OR_RETURN(engine->blocks_,
                   DecoderBlocks::Create(*engine->weights_, *engine->pool_, options.packed_cache));
  const bool streamed = options.ple_mode == PleMode::kStream;
  engine->scratch_pool_ =
      std::make_unique<ScratchPool>(container.header().text, wanted_chunk, PleRowBytes(container));
  engine->scratch_pool_->SetMaxTokens(fitting.query.chunk_tokens);
  double rate = 0;
  if (limits.target_decode_rate > 0) {
    ASSIGN_OR_RETURN(rate, engine->MeasureWeightRate());
  }
  ASSIGN_OR_RETURN(SliceChoice choice,
                   BestSlice(container, std::move(fitting.slices), limits, rate));
  // A cache that had to go to make the slice fit takes what is left.
  const uint64_t wanted_cache =
      options.ple_cache_bytes != 0 ? options.ple_cache_bytes : kDefaultPleCacheBytes;
  uint64_t cache = wanted_cache;
  if (streamed && fitting.query.ple_cache_bytes != options.ple_cache_bytes) {
    const uint64_t others = choice.memory.total() - choice.memory.ple;
    cache = std::clamp(limits.memory_budget_bytes - others, kNoPleCache, wanted_cache);
    choice.memory.ple = RowCache::CapacityBytes(cache, PleRowBytes(container),
                                                container.header().text.ple_vocab_size);
  }
  ASSIGN_OR_RETURN(engine->ple_, PleStore::Create(container, {.mode = options.ple_mode,
                                                              .cache_bytes = cache,
                                                              .calls = options.ple_storage}));
  engine->choice_ = std::make_unique<SliceChoice>(std::move(choice));
  engine->default_slice_ = engine->choice_->slice;
  RETURN_IF_ERROR(engine->StartBudget(options, wanted_cache - cache));
  RETURN_IF_ERROR(engine->LoadSlice(engine->default_slice_));
  return engine;
}

Status Engine::StartBudget(const EngineOptions& options, uint64_t missing_cache_bytes) {
  budget_ = std::make_unique<MemoryBudget>(options.memory_budget_bytes);
  media_cache_bytes_ = options.towers.cache_bytes;
  loaded_widths_.resize(text_config().num_layers());
  if (options.ple_mode == PleMode::kStream) {
    ple_cache_reclaimer_ = std::make_unique<PleCacheReclaimer>(ple_->cache());
    budget_->SetReclaimer(ReclaimStep::kPleCache, ple_cache_reclaimer_.get());
  }
  tower_reclaimer_ = std::make_unique<TowerReclaimer>(*towers_);
  budget_->SetReclaimer(ReclaimStep::kTowers, tower_reclaimer_.get());
  budget_->SetReclaimer(ReclaimStep::kChunk, scratch_pool_.get());
  if (missing_cache_bytes != 0) budget_->CountStep(ReclaimStep::kPleCache, missing_cache_bytes);
  const ScratchPool& pool = *scratch_pool_;
  if (pool.max_tokens() != pool.wanted_tokens()) {
    const auto bytes = [&](size_t tokens) {
      return ScratchPool::CallBytes(text_config(), tokens, PleRowBytes(*container_));
    };
    budget_->CountStep(ReclaimStep::kChunk, bytes(pool.wanted_tokens()) - bytes(pool.max_tokens()));
  }
  const uint64_t bytes = FixedBytes(choice_->memory, options.ple_mode);
  return budget_->Grow(
      "what is always there", [bytes](uint64_t& fixed) { fixed += bytes; },
      [bytes](uint64_t& fixed) { fixed -= bytes; });
}

Result<double> Engine::MeasureWeightRate() const {
  const TextConfig& config = text_config();
  ASSIGN_OR_RETURN(const ScratchLease scratch, ScratchLease::Take(*scratch_pool_));
  ASSIGN_OR_RETURN(AlignedBuffer<float> logits, AlignedBuffer<float>::Create(config.vocab_size));
  std::fill_n(scratch->u, config.hidden_size, 0.0f);
  const float* inputs[] = {scratch->u};
  float* outputs[] = {logits.data()};
  double best = std::numeric_limits<double>::infinity();
  for (int i = 0; i < 4; ++i) {  // the first one reads storage
    const auto start = std::chrono::steady_clock::now();
    RETURN_IF_ERROR(blocks_->lm_head().Run(1, inputs, outputs, scratch->linear));
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    if (i > 0) best = std::min(best, seconds.count());
  }
  const TensorInfo& head = *container_->FindTensor(names::kEmbedTokens);
  return static_cast<double>(head.bytes + head.scales_bytes) / std::max(best, 1e-9);
}

uint32_t Engine::wanted_chunk_tokens() const {
  return static_cast<uint32_t>(scratch_pool_->wanted_tokens());
}

uint32_t Engine::chunk_tokens() const { return static_cast<uint32_t>(scratch_pool_->max_tokens()); }

Status Engine::ReserveSession(uint64_t bytes) const {
  return budget_->Grow(
      "this session",
      [&](uint64_t& fixed) {
        fixed += bytes;
        scratch_pool_->Join();
      },
      [&](uint64_t& fixed) {
        fixed -= bytes;
        scratch_pool_->Leave();
      });
}

void Engine::ReleaseSession(uint64_t bytes) const {
  budget_->Shrink([&](uint64_t& fixed) {
    fixed -= bytes;
    scratch_pool_->Leave();
  });
}

Status Engine::AdmitTower(TowerKind kind) const {
  const bool vision = kind == TowerKind::kVision;
  const uint64_t bytes =
      TowerBytes(*container_, vision ? SectionKind::kVision : SectionKind::kAudio);
  return budget_->Grow(
      vision ? "the vision tower" : "the audio tower",
      [&](uint64_t& fixed) {
        tower_reclaimer_->SetBytes(kind, bytes);
        // Soft tokens outlive their tower.
        if (++num_admitted_ == 1) fixed += media_cache_bytes_;
      },
      [&](uint64_t& fixed) {
        tower_reclaimer_->SetBytes(kind, 0);
        if (--num_admitted_ == 0) fixed -= media_cache_bytes_;
      });
}

Status Engine::LoadSlice(const SliceConfig& slice) const {
  RETURN_IF_ERROR(ValidateSlice(text_config(), slice));
  // What was loaded stays: the union of all slices so far.
  std::vector<uint32_t> widths = SliceWidths(text_config(), slice);
  uint64_t before = 0, after = 0;
  const auto take = [&](uint64_t& fixed) {
    for (size_t i = 0; i < widths.size(); ++i) widths[i] = std::max(widths[i], loaded_widths_[i]);
    if (widths == loaded_widths_) return;
    const WeightBytes new_bytes = LoadedWeightBytes(*container_, widths);
    before = granted_weight_bytes_;
    after = new_bytes.mapped + new_bytes.packed;
    fixed += after - before;
    granted_weight_bytes_ = after;
    loaded_widths_.swap(widths);
  };
  const auto undo = [&](uint64_t& fixed) {
    fixed -= after - before;
    granted_weight_bytes_ = before;
    loaded_widths_.swap(widths);
  };
  RETURN_IF_ERROR(budget_->Grow("the weights of another slice", take, undo));
  return blocks_->Load(slice);
}

Result<SliceConfig> Engine::ChooseSlice(const std::string& slice) const {
  return ResolveSlice(header(), slice);
}

kernels::KvType Engine::ResolveKvType(KvChoice wanted) const {
  return nestling::ResolveKvType(*container_, wanted);
}

PackedCacheInfo Engine::packed_info() const { return blocks_->packed_info(); }

EngineMemory Engine::memory() const {
  EngineMemory memory;
  for (const SectionKind kind : {SectionKind::kText, SectionKind::kEmbed}) {
    if (const SectionInfo* section = container_->FindSection(kind)) memory.mapped += section->bytes;
  }
  // Packed weights in the container are pages of it like all others.
  memory.mapped += blocks_->held().size();
  if (blocks_->held().empty()) memory.packed_weights = blocks_->packed_bytes();
  memory.scratch = scratch_pool_->capacity_bytes();
  memory.loaded_parameters = blocks_->loaded_parameters();
  memory.mapped += ple_->mapped_bytes();
  memory.ple_cache = ple_->cache_bytes();
  memory.ple_resident = ple_->resident_bytes();
  const TowerInfo vision = towers_->Info(TowerKind::kVision);
  const TowerInfo audio = towers_->Info(TowerKind::kAudio);
  memory.vision = vision.weight_bytes;
  memory.audio = audio.weight_bytes;
  if (vision.state == TowerState::kReady) memory.vision_parameters = vision.parameters;
  if (audio.state == TowerState::kReady) memory.audio_parameters = audio.parameters;
  memory.media_cache = towers_->cache_counters().bytes;
  {
    const std::lock_guard lock(holders_mutex_);
    for (const MemoryHolder* holder : holders_) {
      holder->VisitMemory([&memory](MemoryGroup group, std::span<const std::byte> part) {
        if (group == MemoryGroup::kKv) memory.kv_cache += part.size();
      });
    }
  }
  const TextConfig& config = text_config();
  memory.effective_parameters = EffectiveParameters(config, LoadedSlice());
  memory.embedding_parameters = uint64_t{config.vocab_size} * config.hidden_size;
  if (ple_->all_rows() != nullptr) {
    memory.ple_parameters = uint64_t{config.ple_vocab_size} * config.num_layers() * config.ple_dim;
  }
  return memory;
}

SliceConfig Engine::LoadedSlice() const {
  SliceConfig loaded;
  budget_->Look([&] {
    for (uint32_t layer = 0; layer < loaded_widths_.size(); ++layer) {
      if (loaded_widths_[layer] == 0) {
        loaded.skip_layers.push_back(layer);
      } else {
        loaded.ffn.push_back(loaded_widths_[layer]);
      }
    }
  });
  return loaded;
}

std::array<uint64_t, kNumMemoryGroups> Engine::ResidentByGroup() const {
  std::array<uint64_t, kNumMemoryGroups> resident{};
  const auto add = [&resident](MemoryGroup group, std::span<const std::byte> memory) {
    resident[static_cast<size_t>(group)] += ResidentBytes(memory);
  };
  add(MemoryGroup::kTextWeights, weights_->text());
  add(MemoryGroup::kTextWeights, blocks_->held());
  add(MemoryGroup::kEmbedding, weights_->embed());
  add(MemoryGroup::kPleTable, ple_->table_memory());
  if (ple_->mode() == PleMode::kStream) add(MemoryGroup::kPleCache, ple_->cache().memory());
  scratch_pool_->ForIdle(
      [&add](std::span<const std::byte> memory) { add(MemoryGroup::kScratch, memory); });
  // Packing has touched all of it.
  if (blocks_->held().empty()) {
    resident[static_cast<size_t>(MemoryGroup::kPackedWeights)] = blocks_->packed_bytes();
  }
  const std::lock_guard lock(holders_mutex_);
  for (const MemoryHolder* holder : holders_) holder->VisitMemory(add);
  return resident;
}

void Engine::AddHolder(const MemoryHolder& holder) const {
  const std::lock_guard lock(holders_mutex_);
  holders_.push_back(&holder);
}

void Engine::RemoveHolder(const MemoryHolder& holder) const {
  const std::lock_guard lock(holders_mutex_);
  std::erase(holders_, &holder);
}

}  // namespace nestling
