// SPDX-License-Identifier: Apache-2.0
#include "runtime/session.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "runtime/decoder.h"
#include "runtime/scratch.h"

namespace nestling {
namespace {

using Clock = std::chrono::steady_clock;

double SecondsSince(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

}  // namespace

Session::Session(const Engine& engine) : engine_(engine) {}
Session::~Session() {
  if (reserved_bytes_ == 0) return;
  engine_.RemoveHolder(*this);
  const uint64_t bytes = reserved_bytes_;
  decoder_.reset();  // before others may take its memory
  engine_.ReleaseSession(bytes);
}

uint64_t Session::FixedBytes(const TextConfig& config) {
  // The sampler's candidates, and logits after the penalty.
  constexpr uint64_t kSamplerBytes = sizeof(TokenProbability) + sizeof(float);
  return LmHead::Bytes(config) + config.hidden_size * sizeof(float) +
         config.vocab_size * kSamplerBytes;
}

Result<std::unique_ptr<Session>> Session::Create(const Engine& engine,
                                                 const SessionOptions& options) {
  const TextConfig& config = engine.text_config();
  ASSIGN_OR_RETURN(const uint32_t context, ResolveContextTokens(config, options.context_tokens));
  if (options.chunk_tokens > engine.wanted_chunk_tokens()) {
    return InvalidArgument("chunk of ", options.chunk_tokens, " tokens, the engine's is ",
                           engine.wanted_chunk_tokens());
  }
  std::unique_ptr<Session> session(new Session(engine));
  session->context_tokens_ = context;
  const uint32_t wanted =
      options.chunk_tokens != 0 ? options.chunk_tokens : engine.wanted_chunk_tokens();
  uint32_t chunk = std::min(wanted, engine.chunk_tokens());
  while (true) {
    ASSIGN_OR_RETURN(session->decoder_, Decoder::Create(engine, session->context_tokens_, chunk,
                                                        engine.ResolveKvType(options.kv)));
    session->counters_.kv_bytes = session->decoder_->kv().capacity_bytes();
    const uint64_t bytes = session->counters_.kv_bytes + FixedBytes(config);
    const Status reserved = engine.ReserveSession(bytes);
    if (reserved.ok()) {
      session->reserved_bytes_ = bytes;
      break;
    }
    // Sliding layers keep a window and a chunk: with smaller chunks, it may still fit.
    if (chunk <= kMinChunkTokens) return reserved;
    chunk = std::max<uint32_t>(kMinChunkTokens, chunk / 2);
  }
  session->tokens_.reserve(session->context_tokens_);
  session->embeddings_.reserve(chunk);
  engine.AddHolder(*session);
  return session;
}

void Session::VisitMemory(VisitMemoryGroup visit) const { decoder_->VisitMemory(visit); }

uint32_t Session::chunk_tokens() const {
  return std::min(decoder_->chunk_tokens(), engine_.chunk_tokens());
}

Status Session::CheckTokens(std::span<const int32_t> tokens, const SoftRows& rows) const {
  const HeaderFields& header = engine_.header();
  const uint32_t vocab = header.text.vocab_size;
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (tokens[i] < 0 || static_cast<uint32_t>(tokens[i]) >= vocab) {
      return InvalidArgument("token ", i, " is ", tokens[i], ", the vocabulary has ", vocab);
    }
    const bool image = header.vision.present && tokens[i] == header.special_tokens.image_soft;
    const bool sound = header.audio.present && tokens[i] == header.special_tokens.audio_soft;
    if ((image || sound) && rows.Find(i) == nullptr) {
      return InvalidArgument("token ", i, " is the placeholder of ", image ? "an image" : "a sound",
                             ", and none was given for it");
    }
  }
  const size_t room = context_tokens_ - tokens_.size();
  if (tokens.size() > room) {
    return ContextFull(tokens.size(), " tokens do not fit: ", tokens_.size(), " of ",
                       context_tokens_, " are used, ", room, " are free");
  }
  return OkStatus();
}

Status Session::RunPending(Want want, LogitsRow row) {
  if (num_cached_ == tokens_.size()) return OkStatus();
  ASSIGN_OR_RETURN(const ScratchLease scratch, ScratchLease::Take(engine_.scratch_pool()));
  const size_t first = num_cached_;
  ForgetLogits();
  const size_t most = std::min<size_t>(decoder_->chunk_tokens(), scratch->max_tokens);
  const auto chunk_at = [&](size_t position) {
    const size_t left = tokens_.size() - position;
    return std::span<const int32_t>(tokens_).subspan(position, std::min(most, left));
  };
  const TrimPleAtEnd trim(*decoder_);
  decoder_->Prefetch(chunk_at(num_cached_));
  while (num_cached_ < tokens_.size()) {
    const std::span<const int32_t> chunk = chunk_at(num_cached_);
    const size_t count = chunk.size();
    const bool last_chunk = num_cached_ + count == tokens_.size();
    if (!last_chunk) decoder_->Prefetch(chunk_at(num_cached_ + count));
    const Want chunk_want = want == Want::kLast && !last_chunk ? Want::kNone : want;
    const size_t begin = num_cached_;
    const auto sink = [&](size_t index, std::span<const float> logits) -> Status {
      if (begin + index + 1 == tokens_.size()) logits_ = logits;
      return row ? row(begin + index - first, logits) : OkStatus();
    };
    RETURN_IF_ERROR(RunChunk(*scratch, chunk, begin, chunk_want, sink));
    num_cached_ += count;
  }
  row_valid_ = want != Want::kNone;
  ForgetSoftRows();
  return OkStatus();
}

void Session::ForgetSoftRows() {
  if (soft_rows_.empty()) return;
  // A position that is done is run again only as the last one that Truncate keeps.
  soft_rows_.Forget([this](size_t last) {
    return !decoder_->kv().CanTruncate(static_cast<uint32_t>(num_written_),
                                       static_cast<uint32_t>(last));
  });
}

Status Session::RunChunk(Scratch& scratch, std::span<const int32_t> tokens, size_t position,
                         Want want, LogitsRow row) {
  Decoder::Want decoder_want = Decoder::Want::kNone;
  if (want == Want::kAll) decoder_want = Decoder::Want::kAll;
  if (want == Want::kLast) decoder_want = Decoder::Want::kLast;
  RETURN_IF_ERROR(FindEmbeddings(tokens, position));
  num_written_ = std::max(num_written_, position + tokens.size());  // even if it fails half-way
  const Status status = decoder_->Run(scratch, tokens, embeddings_, static_cast<uint32_t>(position),
                                      decoder_want, row, cancelled_);
  UpdateCounters();
  RETURN_IF_ERROR(status);
  counters_.ple_rows_read += tokens.size();
  return OkStatus();
}

Status Session::FindEmbeddings(std::span<const int32_t> tokens, size_t position) {
  HardEmbeddings& hard = engine_.towers().hard_embeddings();
  embeddings_.clear();
  hard_rows_.clear();
  for (size_t i = 0; i < tokens.size(); ++i) {
    const float* row = soft_rows_.Find(position + i);
    if (row == nullptr && hard.TowerOf(tokens[i])) {
      ASSIGN_OR_RETURN(HardEmbeddings::Vector vector, hard.Get(tokens[i]));
      row = vector->data();
      hard_rows_.push_back(std::move(vector));
    }
    embeddings_.push_back(row);
  }
  return OkStatus();
}

void Session::UpdateCounters() {
  const PleCounters ple = decoder_->ple_counters();
  counters_.ple_bytes_read = ple.bytes_read;
  counters_.ple_hits = ple.hits;
  counters_.ple_misses = ple.misses;
  counters_.ple_wait_seconds = static_cast<double>(ple.wait_ns) * 1e-9;
  counters_.weight_bytes_read = decoder_->work().bytes;
  counters_.weight_products = decoder_->work().products;
}

Status Session::Prefill(std::span<const int32_t> tokens, const SoftRows& rows) {
  RETURN_IF_ERROR(CheckTokens(tokens, rows));
  if (tokens.empty()) return OkStatus();
  const RunningCall running(*this);
  return AppendAndRun(tokens, rows, Want::kLast, {});
}

Status Session::PrefillWithLogits(std::span<const int32_t> tokens, LogitsRow row,
                                  const SoftRows& rows) {
  RETURN_IF_ERROR(CheckTokens(tokens, rows));
  if (tokens.empty()) return OkStatus();
  const RunningCall running(*this);
  // A token that was generated but not run yet has no row of its own here.
  RETURN_IF_ERROR(RunPending(Want::kNone, {}));
  return AppendAndRun(tokens, rows, Want::kAll, row);
}

Status Session::AppendAndRun(std::span<const int32_t> tokens, const SoftRows& rows, Want want,
                             LogitsRow row) {
  const Clock::time_point start = Clock::now();
  const size_t cached_before = num_cached_, size_before = tokens_.size();
  tokens_.insert(tokens_.end(), tokens.begin(), tokens.end());
  soft_rows_.Append(rows, size_before);
  const Status status = RunPending(want, row);
  // New tokens that did not run are not part of the session.
  if (!status.ok()) {
    tokens_.resize(std::max(num_cached_, size_before));
    soft_rows_.Truncate(tokens_.size());
  }
  counters_.prefill_tokens += num_cached_ - cached_before;
  counters_.prefill_seconds += SecondsSince(start);
  return status;
}

Result<std::span<const float>> Session::Logits() {
  if (tokens_.empty()) return FailedPrecondition("the session has no tokens yet");
  if (!row_valid_) RETURN_IF_ERROR(Refresh());
  if (logits_.empty()) {
    ASSIGN_OR_RETURN(logits_, decoder_->LastLogits());
    UpdateCounters();
  }
  return logits_;
}

void Session::ForgetLogits() {
  row_valid_ = false;
  logits_ = {};
}

Status Session::Refresh() {
  // All tokens are cached but their last logits were not kept (an interrupted or truncated
  // history): the last token is run again, which writes the same keys and values.
  if (num_cached_ == tokens_.size()) --num_cached_;
  return RunPending(Want::kLast, {});
}

void Session::Reset() {
  tokens_.clear();
  soft_rows_ = SoftRows();
  num_cached_ = 0;
  num_written_ = 0;
  ForgetLogits();
}

Status Session::Truncate(uint32_t num_tokens) {
  if (num_tokens > tokens_.size()) {
    return InvalidArgument("cannot keep ", num_tokens, " tokens of ", tokens_.size());
  }
  if (num_tokens == tokens_.size()) return OkStatus();
  // The last kept token runs again for its logits, so the window before it must be there.
  const uint32_t next = num_tokens == 0 ? 0 : num_tokens - 1;
  // Positions beyond num_cached_ count: what was cut off or rejected took older ones' places.
  if (!decoder_->kv().CanTruncate(static_cast<uint32_t>(num_written_), next)) {
    return FailedPrecondition("cannot go back from ", tokens_.size(), " to ", num_tokens,
                              " tokens: sliding layers keep only the last ",
                              engine_.text_config().sliding_window, " and one chunk");
  }
  tokens_.resize(num_tokens);
  soft_rows_.Truncate(num_tokens);
  num_cached_ = std::min<size_t>(num_cached_, num_tokens);
  ForgetLogits();
  return OkStatus();
}

Status Session::SetSlice(const SliceConfig& slice) {
  RETURN_IF_ERROR(decoder_->SetSlice(slice));
  ForgetLogits();
  return OkStatus();
}

const SliceConfig& Session::slice() const { return decoder_->slice(); }

void Session::Cancel() {
  if (running_.load()) cancelled_.store(true);
}

}  // namespace nestling
