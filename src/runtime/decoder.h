// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "base/aligned_buffer.h"
#include "base/function_ref.h"
#include "base/status.h"
#include "kv/kv_cache.h"
#include "ple/ple_batch.h"
#include "runtime/engine.h"
#include "runtime/lm_head.h"
#include "runtime/scratch.h"
#include "runtime/slice_work.h"

namespace nestling {

struct FfnShell;

// The forward pass of one session: chunks of tokens through the layers of a slice. Formulas and
// their numbers are those of gemma3n.md section 2. One thread at a time.
class Decoder {
 public:
  // `engine` is borrowed. A chunk has at most `chunk_tokens` tokens.
  static Result<std::unique_ptr<Decoder>> Create(const Engine& engine, uint32_t context_tokens,
                                                 uint32_t chunk_tokens, kernels::KvType kv_type);

  // Which positions of a chunk need logits.
  enum class Want {
    kNone,  // only keys and values
    kLast,  // the last token's, when LastLogits or LastCandidates asks for them
    kAll,   // every token's, now: no shortcut is taken
  };
  // Called for kAll with the logits [vocab], soft-capped, of token `index` of the chunk; they are
  // valid until the next call of the decoder that computes logits.
  using LogitsSink = FunctionRef<Status(size_t index, std::span<const float> logits)>;

  // Asks storage for the PLE rows of tokens that a later Run will be given, at most a chunk. Two
  // such wishes are kept; it never blocks for long, and never fails: Run does.
  void Prefetch(std::span<const int32_t> tokens);
  // Waits for rows that were asked for and gives the memory of large chunks back. What was
  // prefetched must have come before a call returns: its thread may end.
  void TrimPle();
  PleCounters ple_counters() const;
  // Of every Run so far; `bytes` once a Run, however many tokens it has.
  const WeightWork& work() const { return work_; }

  // Runs tokens at positions position, position + 1, ...; 1 <= tokens.size() <= chunk_tokens.
  // `embeddings`, one [hidden] row or null for each token, replace those of the table, as they are:
  // the table's are scaled, these are not.
  // After an error or a cancellation the cache holds nothing that a repetition from `position`
  // would trip over.
  Status Run(Scratch& scratch, std::span<const int32_t> tokens,
             std::span<const float* const> embeddings, uint32_t position, Want want,
             LogitsSink sink, const std::atomic<bool>& cancelled);

  // What follows the last token of the last Run, which wanted logits and succeeded. As LmHead says.
  Result<std::span<const float>> LastLogits();
  bool has_candidates() const { return head_->has_candidates(); }
  Candidates LastCandidates(const CandidateQuery& query, size_t limit);

  // One kept layer of a slice.
  struct Step {
    uint32_t layer;  // in the whole model
    uint32_t ffn_width;
  };
  // A slice whose weights are loaded, ready to run.
  struct Plan {
    SliceConfig slice;
    std::vector<Step> steps;
    PleSelection ple_selection;  // of the slice's layers
    SliceWork work;
  };
  // kInvalidArgument for a slice that the model cannot run; else loads what it needs.
  Result<Plan> MakePlan(const SliceConfig& slice);
  // Exchanges the plan of the next Run with another one of this decoder. Allocates nothing.
  void SwapPlan(Plan& plan) { std::swap(plan_, plan); }

  // The slice of the next Run: MakePlan and SwapPlan.
  Status SetSlice(const SliceConfig& slice);
  const SliceConfig& slice() const { return plan_.slice; }

  KvCache& kv() { return *kv_; }
  // Calls visit(group, memory) for what only this decoder uses.
  void VisitMemory(VisitMemoryGroup visit) const;
  uint32_t chunk_tokens() const { return chunk_tokens_; }

 private:
  explicit Decoder(const Engine& engine);

  // Where a Run is: `rows` tokens from `position` on, in the first rows of the scratch.
  struct Pass {
    Scratch& s;
    size_t rows;
    uint32_t position;
    PleBatch& ple;
    size_t first_ple = 0;  // the batch's row of this pass's first token
  };

  // The number of the batch that holds the tokens' PLE rows, or will.
  size_t FindPleBatch(std::span<const int32_t> tokens);
  void Embed(Pass& pass, std::span<const int32_t> tokens, std::span<const float* const> embeddings);
  Status InitStreams(Pass& pass);
  void ComputeRope(Pass& pass);
  Status RunLayer(Pass& pass, const Step& step);
  // The last owner of keys and values when only the last token (or none) needs logits.
  Status RunLastOwner(Pass& pass, const Step& step, Want want);
  void PredictAndNorm(Pass& pass, const Step& step);
  // keys and values from scratch k, v into the cache.
  void StoreKv(Pass& pass, const Step& step);
  // Everything of a layer after its keys and values are stored and q and LAuReL projected.
  Status FinishLayer(Pass& pass, const Step& step);
  void Attend(Pass& pass, const Step& step);
  Status FeedForward(Pass& pass, const Step& step);
  // Where the gate of token t of a sparse layer lets neurons pass; `shells` are the slice's.
  float GateCut(const Pass& pass, const Step& step, std::span<const FfnShell> shells,
                size_t t) const;
  void RunSparseFfn(Pass& pass, const Step& step, std::span<const FfnShell> shells);
  void Correct(Pass& pass, const Step& step);
  Status AddPle(Pass& pass, const Step& step);
  static void KeepLastRow(Pass& pass, const TextConfig& config);
  Status Merge(Pass& pass);
  // Of all tokens of the chunk.
  Status EmitLogits(Pass& pass, LogitsSink sink);
  // Counts the layers of a Run, and the output head for so many tokens.
  void CountLayers(size_t num_tokens, Want want);
  void CountHead(size_t num_tokens);

  const Engine& engine_;
  const TextConfig& config_;
  DecoderBlocks& blocks_;
  std::unique_ptr<KvCache> kv_;
  uint32_t chunk_tokens_ = 0;
  Plan plan_;
  WeightWork work_;
  std::unique_ptr<PleBatch> ple_[2];         // this chunk's rows and the next one's
  size_t replace_ple_ = 0;                   // whose rows are needed no more
  std::vector<float> inverse_frequency_[2];  // by LayerType, [head_dim / 2]
  std::vector<float> sparsity_z_;            // by layer: deviations of the Gaussian top-k's cut
  std::unique_ptr<LmHead> head_;
  AlignedBuffer<float> last_row_;  // [hidden], final activations of the last token of the last Run
};

// However a call ends, nothing is being read for it afterwards.
class TrimPleAtEnd {
 public:
  explicit TrimPleAtEnd(Decoder& decoder) : decoder_(decoder) {}
  ~TrimPleAtEnd() { decoder_.TrimPle(); }
  TrimPleAtEnd(const TrimPleAtEnd&) = delete;
  TrimPleAtEnd& operator=(const TrimPleAtEnd&) = delete;

 private:
  Decoder& decoder_;
};

}  // namespace nestling
