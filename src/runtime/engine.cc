// SPDX-License-Identifier: Apache-2.0
#include "runtime/engine.h"

#include <algorithm>
#include <chrono>
#include <limits>
#include <utility>
#include <vector>

#include "base/aligned_buffer.h"
#include "graph/decoder_blocks.h"
#include "model/slices.h"
#include "model/tensor_names.h"
#include "runtime/memory_estimate.h"
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
Result<std::vector<SliceChoice>> ListFitting(const ContainerReader& container,
                                             const EngineOptions& options,
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
  return FittingSlices(container, candidates, limits, query);
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
Engine::~Engine() = default;

Result<std::unique_ptr<Engine>> Engine::Create(const std::string& path,
                                               const EngineOptions& options) {
  ASSIGN_OR_RETURN(auto file, File::Open(path));
  return Create(std::move(file), options);
}

Result<std::unique_ptr<Engine>> Engine::Create(std::unique_ptr<File> file,
                                               const EngineOptions& options) {
  std::unique_ptr<Engine> engine(new Engine);
  ASSIGN_OR_RETURN(engine->chunk_tokens_, ResolveChunkTokens(options.chunk_tokens));
  ASSIGN_OR_RETURN(engine->container_, ContainerReader::Open(std::move(file)));
  const ContainerReader& container = *engine->container_;
  // Before anything is loaded: what cannot fit costs nothing.
  const SliceLimits limits = {options.memory_budget_bytes, options.target_decode_rate};
  ASSIGN_OR_RETURN(std::vector<SliceChoice> fitting, ListFitting(container, options, limits));
  ASSIGN_OR_RETURN(engine->pool_, ThreadPool::Create(options.num_threads));
  ASSIGN_OR_RETURN(engine->weights_, ModelWeights::Create(container));
  ASSIGN_OR_RETURN(engine->ple_,
                   PleStore::Create(container, {.mode = options.ple_mode,
                                                .cache_bytes = options.ple_cache_bytes,
                                                .calls = options.ple_storage}));
  ASSIGN_OR_RETURN(engine->tokenizer_, LoadTokenizer(container));
  TowersOptions towers = options.towers;
  towers.packed_cache = options.packed_cache;
  engine->towers_ = std::make_unique<Towers>(container, *engine->pool_, std::move(towers));
  ASSIGN_OR_RETURN(engine->blocks_, DecoderBlocks::Create(*engine->weights_, *engine->pool_,
                                                          options.packed_cache));
  engine->scratch_pool_ =
      std::make_unique<ScratchPool>(container.header().text, engine->chunk_tokens_);
  double rate = 0;
  if (limits.target_decode_rate > 0) {
    ASSIGN_OR_RETURN(rate, engine->MeasureWeightRate());
  }
  ASSIGN_OR_RETURN(SliceChoice choice, BestSlice(container, std::move(fitting), limits, rate));
  engine->choice_ = std::make_unique<SliceChoice>(std::move(choice));
  engine->default_slice_ = engine->choice_->slice;
  engine->memory_budget_bytes_ = options.memory_budget_bytes;
  RETURN_IF_ERROR(engine->blocks_->Load(engine->default_slice_));
  return engine;
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

Status Engine::ReserveSession(uint64_t kv_bytes) const {
  const uint64_t taken = session_bytes_.fetch_add(kv_bytes);
  if (memory_budget_bytes_ == 0) return OkStatus();
  const uint64_t needed = choice_->memory.total() - choice_->memory.kv_cache + taken + kv_bytes;
  if (needed <= memory_budget_bytes_) return OkStatus();
  ReleaseSession(kv_bytes);
  return OutOfMemory("memory_budget_bytes: ", memory_budget_bytes_,
                     ", with this session's kv cache (", kv_bytes, ") the engine needs ", needed);
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
  memory.packed_weights = blocks_->packed_bytes();
  memory.scratch = scratch_pool_->capacity_bytes();
  memory.loaded_parameters = blocks_->loaded_parameters();
  memory.mapped += ple_->mapped_bytes();
  memory.ple_cache = ple_->cache_bytes();
  memory.ple_resident = ple_->resident_bytes();
  memory.vision = towers_->Info(TowerKind::kVision).weight_bytes;
  memory.audio = towers_->Info(TowerKind::kAudio).weight_bytes;
  memory.media_cache = towers_->cache_counters().bytes;
  return memory;
}

}  // namespace nestling
