// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "base/file.h"
#include "base/function_ref.h"
#include "base/status.h"
#include "base/thread_pool.h"
#include "container/reader.h"
#include "graph/packed_weights.h"
#include "kernels/attention/attention.h"
#include "modality/towers.h"
#include "model/weights.h"
#include "ple/ple_store.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace nestling {

class DecoderBlocks;
class MemoryBudget;
class PleCacheReclaimer;
class ScratchPool;
class TowerReclaimer;
struct SliceChoice;

// What a session asks for; kAuto: Engine::ResolveKvType.
enum class KvChoice { kAuto, kF32, kF16, kInt8 };

// Defaults and limits of what engines and sessions are asked for; 0 is the default.
Result<uint32_t> ResolveChunkTokens(uint32_t wanted);
Result<uint32_t> ResolveContextTokens(const TextConfig& config, uint32_t wanted);
// `slice`: empty, a name in the container, or the path of a JSON file.
Result<SliceConfig> ResolveSlice(const HeaderFields& header, const std::string& slice);

struct EngineOptions {
  uint32_t num_threads = 0;  // 0: one for each performance core
  uint64_t cpu_mask = 0;     // see ThreadPool::Create
  // Most tokens of one prefill step; scratch memory grows with it. 0: the default.
  uint32_t chunk_tokens = 0;
  // Name of a slice in the container, or the path of a slice's JSON file; empty: the whole model.
  // Sessions start with it; skipped layers and unused shells are not loaded unless a session asks.
  std::string slice = {};
  // Resident bytes of this library, file pages included, that the engine and its sessions may take
  // by estimate; 0: no limit. What cannot fit is refused, after the PLE cache and then the chunks
  // got as small as they can (MemoryBudget). Without `slice`, the engine chooses the best one that
  // fits (SliceLimits).
  uint64_t memory_budget_bytes = 0;
  // Tokens per second that the chosen slice should decode by estimate; 0: no wish.
  double target_decode_rate = 0;
  uint32_t budget_context_tokens = 0;  // of the session that the budget reckons with; 0: default
  PleMode ple_mode = PleMode::kStream;
  uint64_t ple_cache_bytes = 0;  // of kStream; 0: the default
  TowersOptions towers = {};
  StorageCalls* ple_storage = nullptr;  // borrowed; for tests, which put faults in between
  // Where packed weights are kept between runs.
  PackedCacheOptions packed_cache = {};
};

// What memory is for.
enum class MemoryGroup {
  kTextWeights,  // mapped from the container
  kEmbedding,    // likewise: token embedding and LM head
  kPackedWeights,
  kPleTable,  // resident or mapped
  kPleCache,
  kKv,
  kScratch,  // activations, PLE rows of chunks
  kLogits,
  kVision,
  kAudio,
};
inline constexpr size_t kNumMemoryGroups = 10;

using VisitMemoryGroup = FunctionRef<void(MemoryGroup group, std::span<const std::byte> memory)>;

// A session, as its engine sees it.
class MemoryHolder {
 public:
  virtual ~MemoryHolder() = default;
  // From any thread; the memory stays where it is as long as the holder lives.
  virtual void VisitMemory(VisitMemoryGroup visit) const = 0;
};

// Counters of the engine's memory in bytes; groups do not overlap.
struct EngineMemory {
  uint64_t mapped = 0;          // containers' sections mapped from storage (address space)
  uint64_t packed_weights = 0;  // XNNPACK's layout, not of the container; packed_info() says more
  uint64_t scratch = 0;         // activations of running and finished calls, kept for the next
  uint64_t loaded_parameters = 0;  // of the text decoder
  uint64_t ple_cache = 0;          // most that cached rows will take
  uint64_t ple_resident = 0;       // the whole PLE table, PleMode::kResident
  uint64_t vision = 0;             // the tower's weights, while it is ready
  uint64_t audio = 0;
  uint64_t media_cache = 0;  // soft tokens of images and sounds that may come again
  uint64_t kv_cache = 0;     // of all sessions at full context
  // The loaded part of the text decoder as models' sizes are published: with the key and value
  // weights of layers that use others', which nobody needs and containers do not have.
  uint64_t effective_parameters = 0;
  uint64_t embedding_parameters = 0;
  uint64_t vision_parameters = 0;  // of ready towers
  uint64_t audio_parameters = 0;
  uint64_t ple_parameters = 0;  // kResident and kMmap: the table; kStream: none
};

// A loaded model: weights packed once and shared by all sessions. Immutable after Create and
// thread-safe; outlives its sessions.
class Engine {
 public:
  static Result<std::unique_ptr<Engine>> Create(std::unique_ptr<File> file,
                                                const EngineOptions& options);
  static Result<std::unique_ptr<Engine>> Create(const std::string& path,
                                                const EngineOptions& options);
  ~Engine();
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  const ContainerReader& container() const { return *container_; }
  const HeaderFields& header() const { return container_->header(); }
  const TextConfig& text_config() const { return container_->header().text; }
  // Soft tokens that stand for an image and for a clip of sound; 0 without the tower.
  PlaceholderCounts placeholder_counts() const {
    return {towers_->shape().image_tokens, towers_->shape().audio_tokens};
  }
  // nullptr when the container has no tokenizer: text calls then fail, token calls work.
  const Tokenizer* tokenizer() const { return tokenizer_.get(); }
  const ThreadPool& pool() const { return *pool_; }
  // Most tokens of a prefill step that sessions may ask for, and of one that begins now: less after
  // a shortage of memory.
  uint32_t wanted_chunk_tokens() const;
  uint32_t chunk_tokens() const;
  const SliceConfig& default_slice() const { return default_slice_; }
  // Why `default_slice`, and what the engine takes with one session, by estimate.
  const SliceChoice& slice_choice() const { return *choice_; }
  // `slice` as in EngineOptions, checked against this model.
  Result<SliceConfig> ChooseSlice(const std::string& slice) const;
  EngineMemory memory() const;
  // How the decoder's packed weights are held. The note lives as long as the engine.
  PackedCacheInfo packed_info() const;
  // Bytes of each group that are resident now. 0 where the system does not say.
  std::array<uint64_t, kNumMemoryGroups> ResidentByGroup() const;

  // For sessions.
  DecoderBlocks& blocks() const { return *blocks_; }
  PleStore& ple() const { return *ple_; }
  Towers& towers() const { return *towers_; }
  const ModelWeights& weights() const { return *weights_; }
  ScratchPool& scratch_pool() const { return *scratch_pool_; }
  MemoryBudget& budget() const { return *budget_; }
  kernels::KvType ResolveKvType(KvChoice wanted) const;
  // Takes what a session may make resident from the memory budget: its own bytes, and scratch for a
  // call. kOutOfMemory has the number that would do.
  Status ReserveSession(uint64_t bytes) const;
  void ReleaseSession(uint64_t bytes) const;
  // Sessions, for ResidentByGroup.
  void AddHolder(const MemoryHolder& holder) const;
  void RemoveHolder(const MemoryHolder& holder) const;
  // Makes the weights of a slice usable. kInvalidArgument for a slice that the model cannot run;
  // kOutOfMemory for one whose weights go beyond the budget.
  Status LoadSlice(const SliceConfig& slice) const;

 private:
  Engine();
  // All that sessions have loaded so far.
  SliceConfig LoadedSlice() const;
  Status AdmitTower(TowerKind kind) const;
  Status StartBudget(const EngineOptions& options, uint64_t missing_cache_bytes);
  // Bytes of weights per second that a decode step reads, measured on the output head.
  Result<double> MeasureWeightRate() const;

  std::unique_ptr<ContainerReader> container_;
  std::unique_ptr<ThreadPool> pool_;
  std::unique_ptr<ModelWeights> weights_;
  std::unique_ptr<DecoderBlocks> blocks_;
  std::unique_ptr<PleStore> ple_;
  std::unique_ptr<ScratchPool> scratch_pool_;
  std::unique_ptr<Tokenizer> tokenizer_;
  // Before the towers, whose loads may run until they are destroyed and ask the budget.
  std::unique_ptr<MemoryBudget> budget_;
  std::unique_ptr<Towers> towers_;
  SliceConfig default_slice_;
  std::unique_ptr<SliceChoice> choice_;
  std::unique_ptr<PleCacheReclaimer> ple_cache_reclaimer_;
  std::unique_ptr<TowerReclaimer> tower_reclaimer_;
  // Neurons of each layer whose memory was granted; changed under the budget's lock.
  mutable std::vector<uint32_t> loaded_widths_;
  mutable uint64_t granted_weight_bytes_ = 0;
  uint64_t media_cache_bytes_ = 0;
  mutable uint64_t num_admitted_ = 0;  // towers, ever
  mutable std::mutex holders_mutex_;
  mutable std::vector<const MemoryHolder*> holders_;
};

}  // namespace nestling
