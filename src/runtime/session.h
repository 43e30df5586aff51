// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/function_ref.h"
#include "base/status.h"
#include "runtime/engine.h"
#include "runtime/soft_rows.h"
#include "sampling/sampler.h"

namespace nestling {

class Decoder;
class Scratch;

struct SessionOptions {
  uint32_t context_tokens = 0;  // 0: min(4096, the model's limit)
  KvChoice kv = KvChoice::kAuto;
  uint32_t chunk_tokens = 0;  // 0: the engine's; at most the engine's
};

struct SessionCounters {
  uint64_t prefill_tokens = 0;
  uint64_t decode_tokens = 0;
  double prefill_seconds = 0;
  double decode_seconds = 0;
  double first_token_seconds = 0;  // of the last Generate: from its call to its first token
  uint64_t draft_tokens = 0;       // drafted, and of those accepted
  uint64_t accepted_tokens = 0;
  uint64_t kv_bytes = 0;           // capacity of the kv cache
  uint64_t ple_rows_read = 0;      // rows that tokens needed, one each
  uint64_t ple_bytes_read = 0;     // from storage or the system's page cache
  uint64_t ple_hits = 0;           // distinct rows of a chunk that the cache had
  uint64_t ple_misses = 0;         // and those that were read
  double ple_wait_seconds = 0;     // in which a step had to wait for its rows
  uint64_t weight_bytes_read = 0;  // weights that steps read, once a step
  uint64_t weight_products = 0;    // multiply-accumulates with them
};

enum class StopReason {
  kMaxTokens,
  kStopToken,
  kStopString,
  kContextFull,
  kCancelled,
  kCallback,  // the callback asked to stop
};

struct GenerateOptions {
  uint32_t max_tokens = 0;  // 0: until a stop or a full context
  SamplingOptions sampling;
  std::vector<int32_t> stop_tokens;       // the model's when empty
  std::vector<std::string> stop_strings;  // need a tokenizer
  bool ignore_stop_tokens = false;        // benchmarks
  // Self-speculative decoding: this slice (as EngineOptions.slice) drafts tokens, the session's
  // slice verifies them in one batch. Greedy output stays the same, sampled output keeps its
  // distribution (not its random numbers). Empty: off.
  std::string draft_slice;
  uint32_t draft_tokens = 0;  // most drafts of a round; 0: kDefaultDraftTokens
};

// One generated token. `text` is complete UTF-8 and may be empty while a character or a possible
// stop string is incomplete; empty without a tokenizer. Valid during the call. A stop token is not
// reported. Text that was held back when the reply ended comes last, with id -1.
struct GeneratedToken {
  int32_t id;
  std::string_view text;
};

struct GenerateResult {
  StopReason reason = StopReason::kMaxTokens;
  uint32_t num_tokens = 0;  // generated, the stop token included
  uint32_t num_drafted = 0;
  uint32_t num_accepted = 0;  // of the drafts
};

// A conversation: kv cache, position, sampler. One thread at a time, but Cancel() from any.
// `engine` must outlive it. A failed call leaves the session as its comment says.
class Session final : public MemoryHolder {
 public:
  static Result<std::unique_ptr<Session>> Create(const Engine& engine,
                                                 const SessionOptions& options);
  ~Session() override;

  // Most bytes of a session that do not depend on its context: logits, where all are asked for, and
  // what sampling needs.
  static uint64_t FixedBytes(const TextConfig& config);

  // Appends tokens to the kv cache; `rows` are those of their placeholders. kInvalidArgument (an id
  // out of range, a placeholder of an image or a sound without a row) and kContextFull leave the
  // session unchanged; kCancelled and kIoError keep the tokens of finished chunks.
  Status Prefill(std::span<const int32_t> tokens, const SoftRows& rows = {});

  // Like Prefill, but calls `row` with the logits of every token, in order; they are valid
  // during the call. No shortcut is taken: every layer runs for every position.
  using LogitsRow = FunctionRef<Status(size_t index, std::span<const float> logits)>;
  Status PrefillWithLogits(std::span<const int32_t> tokens, LogitsRow row,
                           const SoftRows& rows = {});

  // Generates from the last token; the sampler's random sequence begins anew. kFailedPrecondition
  // when the session is empty. The callback returns false to stop. Afterwards the kv cache holds
  // every generated token but the last, which the next call feeds first; the caller does not
  // notice.
  using TokenCallback = FunctionRef<bool(const GeneratedToken&)>;
  Result<GenerateResult> Generate(const GenerateOptions& options, TokenCallback callback);

  // Soft-capped logits [vocab] that the next token is sampled from, computed by the first call
  // after a change. kFailedPrecondition when the session is empty. Valid until the next call.
  Result<std::span<const float>> Logits();

  // Number of tokens in the session (prefilled and generated), and room.
  uint32_t num_tokens() const { return static_cast<uint32_t>(tokens_.size()); }
  uint32_t context_tokens() const { return context_tokens_; }
  // Of soft tokens that the session keeps, and may share with others.
  uint64_t soft_token_bytes() const { return soft_rows_.bytes(); }
  // Most tokens of a prefill step that begins now.
  uint32_t chunk_tokens() const;
  // Every token so far.
  std::span<const int32_t> tokens() const { return tokens_; }

  // Forgets everything; keeps memory.
  void Reset();
  // Keeps the first `num_tokens` tokens. kInvalidArgument when there are fewer;
  // kFailedPrecondition when a sliding layer no longer holds the window before that point (the
  // session is then unchanged; use Reset and prefill again).
  Status Truncate(uint32_t num_tokens);

  // The slice of the next calls; the kv cache is kept. kInvalidArgument for a slice that the
  // container's shells cannot run.
  Status SetSlice(const SliceConfig& slice);
  const SliceConfig& slice() const;

  // Marks a running call, so that Cancel() without one has no effect on the next. For callers that
  // do work of their own for the session.
  class RunningCall {
   public:
    explicit RunningCall(Session& session) : session_(session) {
      session_.cancelled_.store(false);
      session_.running_.store(true);
    }
    ~RunningCall() { session_.running_.store(false); }
    RunningCall(const RunningCall&) = delete;
    RunningCall& operator=(const RunningCall&) = delete;
    bool cancelled() const { return session_.cancelled_.load(); }

   private:
    Session& session_;
  };

  // From any thread: the running call returns kCancelled (Prefill) or StopReason::kCancelled
  // (Generate) after its current layer. Without a running call it does nothing.
  void Cancel();

  const SessionCounters& counters() const { return counters_; }
  void VisitMemory(VisitMemoryGroup visit) const override;
  const Engine& engine() const { return engine_; }

 private:
  enum class Want { kNone, kLast, kAll };  // whose logits

  explicit Session(const Engine& engine);

  // Ids in the vocabulary, rows for placeholders, and room for all.
  Status CheckTokens(std::span<const int32_t> tokens, const SoftRows& rows) const;
  // Runs the tokens that the kv cache does not hold yet, chunk by chunk. `row` may be empty.
  Status RunPending(Want want, LogitsRow row);
  // Appends and runs; tokens that could not be run are taken off again.
  Status AppendAndRun(std::span<const int32_t> tokens, const SoftRows& rows, Want want,
                      LogitsRow row);
  void UpdateCounters();
  // Makes the decoder's last row the last token's.
  Status Refresh();
  // What was computed for the last token no longer holds.
  void ForgetLogits();
  // The token after the last one, from as few logits as the sampler needs.
  Result<int32_t> SampleNext(Sampler& sampler);
  // Lets go of the rows of positions that cannot be run again.
  void ForgetSoftRows();
  // Fills embeddings_ for tokens from `position` on.
  Status FindEmbeddings(std::span<const int32_t> tokens, size_t position);
  // One chunk through the decoder: tokens from `position` on. `row` is called for kAll only.
  Status RunChunk(Scratch& scratch, std::span<const int32_t> tokens, size_t position, Want want,
                  LogitsRow row);

  // What drafts tokens during a Generate.
  struct Drafting;
  Result<std::unique_ptr<Drafting>> MakeDrafting(const GenerateOptions& options);
  // The next tokens of the sequence, one or more but at most `most`, which `sampler` has accepted.
  // They are not appended yet; of several, all but the last are in the kv cache.
  Result<std::span<const int32_t>> NextTokens(Sampler& sampler, Drafting* drafting, size_t most);
  // A round of at most `most_drafts` drafts and their verification.
  Status Speculate(Sampler& sampler, Drafting& drafting, size_t most_drafts);

  const Engine& engine_;
  std::unique_ptr<Decoder> decoder_;
  uint32_t context_tokens_ = 0;
  std::vector<int32_t> tokens_;
  SoftRows soft_rows_;                             // of placeholders among tokens_
  std::vector<const float*> embeddings_;           // of a chunk, see Decoder::Run
  std::vector<HardEmbeddings::Vector> hard_rows_;  // those of embeddings_ that are not soft
  uint64_t reserved_bytes_ = 0;                    // of the engine's memory budget
  size_t num_cached_ = 0;                          // tokens whose keys and values are in the cache
  size_t num_written_ = 0;         // positions that were ever written since the last Reset
  int32_t next_token_ = 0;         // NextTokens' result when it is a single one
  bool row_valid_ = false;         // the decoder's last row is the last token's
  std::span<const float> logits_;  // [vocab], what follows from it; empty: not computed
  std::atomic<bool> running_{false};
  std::atomic<bool> cancelled_{false};
  SessionCounters counters_;
};

}  // namespace nestling
