// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/file.h"
#include "base/thread_pool.h"
#include "c_api/arguments.h"
#include "c_api/guard.h"
#include "c_api/handles.h"
#include "runtime/memory_budget.h"
#include "runtime/prepare.h"
#include "runtime/prepare_in_place.h"
#include "runtime/slice_choice.h"
#include "text/chat_template.h"
#include "text/utf8.h"

namespace nestling {
namespace {

constexpr double kMaxIdleSeconds = 1e9;

Result<TowerPrecision> ReadTowerPrecision(nestling_tower_precision precision) {
  switch (precision) {
    case NESTLING_TOWER_AUTO:
      return TowerPrecision::kAuto;
    case NESTLING_TOWER_F32:
      return TowerPrecision::kF32;
    case NESTLING_TOWER_INT8:
      return TowerPrecision::kInt8;
    default:
      return InvalidArgument("options.tower_precision: ", precision,
                             ", want NESTLING_TOWER_AUTO, _F32 or _INT8");
  }
}

Result<EngineOptions> ReadEngineOptions(const nestling_engine_options* options) {
  nestling_engine_options read;
  RETURN_IF_ERROR(ReadOptions(options, "options", &read));
  if (read.num_threads > kMaxPoolThreads) {
    return InvalidArgument("options.num_threads: ", read.num_threads, ", want at most ",
                           kMaxPoolThreads);
  }
  EngineOptions result;
  result.num_threads = read.num_threads;
  result.cpu_mask = read.cpu_mask;
  result.chunk_tokens = read.chunk_tokens;
  if (read.slice != nullptr) result.slice = read.slice;
  if (!(read.target_decode_rate >= 0)) {
    return InvalidArgument("options.target_decode_rate: ", read.target_decode_rate,
                           ", want a number of at least 0");
  }
  result.memory_budget_bytes = read.memory_budget_bytes;
  result.target_decode_rate = read.target_decode_rate;
  result.budget_context_tokens = read.budget_context_tokens;
  ASSIGN_OR_RETURN(result.ple_mode, ReadPleMode(read.ple_mode));
  result.ple_cache_bytes = read.ple_cache_bytes;
  if (!(read.tower_idle_seconds >= 0 && read.tower_idle_seconds <= kMaxIdleSeconds)) {
    return InvalidArgument("options.tower_idle_seconds: ", read.tower_idle_seconds, ", want 0 to ",
                           kMaxIdleSeconds);
  }
  result.towers.idle_seconds = read.tower_idle_seconds;
  if (read.soft_token_cache_bytes != 0) result.towers.cache_bytes = read.soft_token_cache_bytes;
  ASSIGN_OR_RETURN(result.towers.precision, ReadTowerPrecision(read.tower_precision));
  if (read.cache_dir != nullptr) result.packed_cache.folder = read.cache_dir;
  return result;
}

Result<EngineOptions> ReadPrepareOptions(const nestling_prepare_options& read) {
  if (read.num_threads > kMaxPoolThreads) {
    return InvalidArgument("options.num_threads: ", read.num_threads, ", want at most ",
                           kMaxPoolThreads);
  }
  EngineOptions result;
  result.num_threads = read.num_threads;
  if (read.slice != nullptr) result.slice = read.slice;
  if (read.cache_dir != nullptr) result.packed_cache.folder = read.cache_dir;
  ASSIGN_OR_RETURN(result.towers.precision, ReadTowerPrecision(read.tower_precision));
  return result;
}

Status RequireAbsent(const char* text, const char* option, const char* why) {
  if (text == nullptr || *text == '\0') return OkStatus();
  return InvalidArgument("options.", option, ": ", why);
}

// The options are those of files of packed weights but for a few.
Status PrepareContainerInPlace(const char* path, const nestling_prepare_options& read,
                               const EngineOptions& prepare,
                               FunctionRef<void(uint64_t, uint64_t)> progress,
                               nestling_prepare_outcome* outcome) {
  RETURN_IF_ERROR(RequireAbsent(read.slice, "slice", "in place, the whole model is packed"));
  RETURN_IF_ERROR(RequireAbsent(read.cache_dir, "cache_dir", "in place, no files are made"));
  InPlaceOptions options;
  if (read.output != nullptr) options.output = read.output;
  options.tower_precision = prepare.towers.precision;
  options.num_threads = prepare.num_threads;
  ASSIGN_OR_RETURN(const InPlaceOutcome made, PrepareInPlace(path, options, progress));
  static_assert(NESTLING_PREPARE_DONE == static_cast<int>(InPlaceOutcome::kPacked));
  static_assert(NESTLING_PREPARE_NOTHING == static_cast<int>(InPlaceOutcome::kNothing));
  static_assert(NESTLING_PREPARE_ALREADY == static_cast<int>(InPlaceOutcome::kAlready));
  *outcome = static_cast<nestling_prepare_outcome>(made);
  return OkStatus();
}

void FillPacked(PackedCacheState state, uint64_t mapped_bytes, uint64_t anonymous_bytes,
                std::string_view note, nestling_packed_info* info) {
  static_assert(NESTLING_PACKED_FAILED == static_cast<int>(PackedCacheState::kFailed));
  static_assert(NESTLING_PACKED_HELD == static_cast<int>(PackedCacheState::kHeld));
  info->state = static_cast<nestling_packed_state>(state);
  info->mapped_bytes = mapped_bytes;
  info->anonymous_bytes = anonymous_bytes;
  std::copy_n(note.data(), std::min(note.size(), sizeof info->note - 1), info->note);
}

Status CreateEngine(Result<std::unique_ptr<Engine>> created, nestling_engine** out_engine) {
  ASSIGN_OR_RETURN(std::unique_ptr<Engine> engine, std::move(created));
  *out_engine = new nestling_engine{std::move(engine)};
  return OkStatus();
}

Result<const Tokenizer*> RequireTokenizer(const nestling_engine* engine) {
  RETURN_IF_ERROR(RequireNotNull(engine, "engine"));
  const Tokenizer* tokenizer = engine->engine->tokenizer();
  if (tokenizer == nullptr) {
    return FailedPrecondition("the container has no tokenizer: only token ids work");
  }
  return tokenizer;
}

// A prompt in which placeholders of images and sounds stand for all that their content takes.
Result<std::vector<int32_t>> EncodeExpanded(const Engine& engine, std::string_view text,
                                            bool add_bos) {
  if (const size_t at = FindInvalidUtf8(text); at != std::string_view::npos) {
    return InvalidArgument("text: not UTF-8 at byte ", at);
  }
  ASSIGN_OR_RETURN(const Prompt prompt, RenderRaw(text, engine.placeholder_counts()));
  return EncodePrompt(*engine.tokenizer(), prompt, add_bos);
}

nestling_engine_info DescribeEngine(const Engine& engine) {
  const HeaderFields& header = engine.header();
  nestling_engine_info info{};
  info.vocab_size = header.text.vocab_size;
  info.max_context_tokens = header.text.max_position_embeddings;
  info.num_layers = header.text.num_layers();
  info.hidden_size = header.text.hidden_size;
  info.num_slices = static_cast<uint32_t>(header.slices.size());
  info.num_threads = static_cast<uint32_t>(engine.pool().num_threads());
  info.chunk_tokens = engine.chunk_tokens();
  info.has_tokenizer = engine.tokenizer() != nullptr ? 1 : 0;
  info.has_vision = header.vision.present ? 1 : 0;
  info.has_audio = header.audio.present ? 1 : 0;
  info.bos_token = header.special_tokens.bos;
  info.eos_token = header.special_tokens.eos;
  info.pad_token = header.special_tokens.pad;
  info.do_sample = header.generation.do_sample ? 1 : 0;
  info.temperature = header.generation.temperature;
  info.top_k = header.generation.top_k;
  info.top_p = header.generation.top_p;
  info.num_stop_tokens = static_cast<uint32_t>(header.generation.stop_tokens.size());
  info.stop_tokens = header.generation.stop_tokens.data();
  info.quantisation = header.provenance.quantisation.c_str();
  info.source = header.provenance.source.c_str();
  return info;
}

}  // namespace
}  // namespace nestling

extern "C" {

nestling_status nestling_engine_create(const char* path, const nestling_engine_options* options,
                                       nestling_engine** out_engine) {
  return nestling::Guard([&]() -> nestling::Status {
    RETURN_IF_ERROR(nestling::RequireNotNull(out_engine, "out_engine"));
    *out_engine = nullptr;
    RETURN_IF_ERROR(nestling::RequireNotNull(path, "path"));
    ASSIGN_OR_RETURN(const nestling::EngineOptions read, nestling::ReadEngineOptions(options));
    return nestling::CreateEngine(nestling::Engine::Create(std::string(path), read), out_engine);
  });
}

nestling_status nestling_engine_create_from_fd(int fd, uint64_t offset, uint64_t length,
                                               const nestling_engine_options* options,
                                               nestling_engine** out_engine) {
  return nestling::Guard([&]() -> nestling::Status {
    RETURN_IF_ERROR(nestling::RequireNotNull(out_engine, "out_engine"));
    *out_engine = nullptr;
    if (fd < 0) return nestling::InvalidArgument("fd: ", fd, ", want an open descriptor");
    ASSIGN_OR_RETURN(const nestling::EngineOptions read, nestling::ReadEngineOptions(options));
    ASSIGN_OR_RETURN(std::unique_ptr<nestling::File> file,
                     nestling::File::FromDescriptor(fd, offset, length));
    return nestling::CreateEngine(nestling::Engine::Create(std::move(file), read), out_engine);
  });
}

void nestling_engine_destroy(nestling_engine* engine) { delete engine; }

nestling_status nestling_engine_get_info(const nestling_engine* engine,
                                         nestling_engine_info* out_info) {
  return nestling::Guard([&]() -> nestling::Status {
    RETURN_IF_ERROR(nestling::RequireNotNull(engine, "engine"));
    return nestling::WriteStruct(nestling::DescribeEngine(*engine->engine), "out_info", out_info);
  });
}

nestling_status nestling_engine_get_slice(const nestling_engine* engine, size_t index,
                                          nestling_slice_info* out_slice) {
  return nestling::Guard([&]() -> nestling::Status {
    RETURN_IF_ERROR(nestling::RequireNotNull(engine, "engine"));
    const std::vector<nestling::SliceConfig>& slices = engine->engine->header().slices;
    if (index >= slices.size()) {
      return nestling::InvalidArgument("index: ", index, ", the container has ", slices.size(),
                                       " slices");
    }
    nestling_slice_info info{};
    info.name = slices[index].name.c_str();
    info.description = slices[index].description.c_str();
    info.effective_parameters = slices[index].effective_parameters;
    info.published_accuracy = slices[index].published_accuracy;
    info.num_layers = static_cast<uint32_t>(slices[index].ffn.size());
    return nestling::WriteStruct(info, "out_slice", out_slice);
  });
}

nestling_status nestling_engine_get_choice(const nestling_engine* engine,
                                           nestling_engine_choice* out_choice) {
  return nestling::Guard([&]() -> nestling::Status {
    RETURN_IF_ERROR(nestling::RequireNotNull(engine, "engine"));
    const nestling::SliceChoice& choice = engine->engine->slice_choice();
    nestling_engine_choice filled{};
    filled.slice = choice.slice.name.c_str();
    filled.reason = choice.reason.c_str();
    filled.estimated_bytes = choice.memory.total();
    filled.estimated_decode_rate = choice.decode_rate;
    return nestling::WriteStruct(filled, "out_choice", out_choice);
  });
}

nestling_status nestling_engine_get_packed(const nestling_engine* engine, nestling_packed_part part,
                                           nestling_packed_info* out_info) {
  return nestling::Guard([&]() -> nestling::Status {
    RETURN_IF_ERROR(nestling::RequireNotNull(engine, "engine"));
    nestling_packed_info filled{};
    if (part == NESTLING_PACKED_DECODER) {
      const nestling::PackedCacheInfo info = engine->engine->packed_info();
      nestling::FillPacked(info.state, info.mapped_bytes, info.anonymous_bytes, info.note, &filled);
    } else if (part == NESTLING_PACKED_VISION || part == NESTLING_PACKED_AUDIO) {
      const bool vision = part == NESTLING_PACKED_VISION;
      const nestling::TowerInfo info = engine->engine->towers().Info(
          vision ? nestling::TowerKind::kVision : nestling::TowerKind::kAudio);
      nestling::FillPacked(info.packed_state, info.packed_mapped_bytes, info.anonymous_bytes,
                           info.packed_note, &filled);
    } else {
      return nestling::InvalidArgument("part: ", part,
                                       ", want NESTLING_PACKED_DECODER, _VISION or ", "_AUDIO");
    }
    return nestling::WriteStruct(filled, "out_info", out_info);
  });
}

nestling_status nestling_prepare(const char* path, const nestling_prepare_options* options) {
  return nestling::Guard([&]() -> nestling::Status {
    RETURN_IF_ERROR(nestling::RequireNotNull(path, "path"));
    nestling_prepare_options read;
    RETURN_IF_ERROR(nestling::ReadOptions(options, "options", &read));
    ASSIGN_OR_RETURN(const nestling::EngineOptions prepare, nestling::ReadPrepareOptions(read));
    const auto report = [&](uint64_t done, uint64_t total) {
      read.progress(read.user, done, total);
    };
    nestling::FunctionRef<void(uint64_t, uint64_t)> progress;
    if (read.progress != nullptr) progress = report;
    nestling_prepare_outcome outcome = NESTLING_PREPARE_DONE;
    if (read.in_place != 0) {
      RETURN_IF_ERROR(nestling::PrepareContainerInPlace(path, read, prepare, progress, &outcome));
    } else {
      RETURN_IF_ERROR(nestling::RequireAbsent(read.output, "output", "only with in_place"));
      RETURN_IF_ERROR(nestling::Prepare(path, prepare, progress));
    }
    if (read.out_outcome != nullptr) *read.out_outcome = outcome;
    return nestling::OkStatus();
  });
}

nestling_status nestling_engine_get_memory(const nestling_engine* engine,
                                           nestling_engine_memory* out_memory) {
  return nestling::Guard([&]() -> nestling::Status {
    RETURN_IF_ERROR(nestling::RequireNotNull(engine, "engine"));
    const nestling::EngineMemory memory = engine->engine->memory();
    nestling_engine_memory filled{};
    filled.mapped_bytes = memory.mapped;
    filled.packed_weight_bytes = memory.packed_weights;
    filled.scratch_bytes = memory.scratch;
    filled.loaded_parameters = memory.loaded_parameters;
    filled.ple_cache_bytes = memory.ple_cache;
    filled.ple_resident_bytes = memory.ple_resident;
    filled.vision_bytes = memory.vision;
    filled.audio_bytes = memory.audio;
    filled.soft_token_cache_bytes = memory.media_cache;
    filled.kv_bytes = memory.kv_cache;
    filled.text_parameters = memory.effective_parameters;
    filled.embedding_parameters = memory.embedding_parameters;
    filled.ple_parameters = memory.ple_parameters;
    filled.vision_parameters = memory.vision_parameters;
    filled.audio_parameters = memory.audio_parameters;
    const nestling::MemoryBudget& budget = engine->engine->budget();
    filled.budget_bytes = budget.limit_bytes();
    filled.budgeted_bytes = budget.used_bytes();
    const nestling::MemoryBudget::Counters counters = budget.counters();
    const auto step = [&counters](nestling::ReclaimStep which, uint64_t* times, uint64_t* bytes) {
      *times = counters.times[static_cast<size_t>(which)];
      *bytes = counters.bytes[static_cast<size_t>(which)];
    };
    step(nestling::ReclaimStep::kPleCache, &filled.ple_cache_shrinks,
         &filled.ple_cache_shrunk_bytes);
    step(nestling::ReclaimStep::kTowers, &filled.tower_drops, &filled.tower_dropped_bytes);
    step(nestling::ReclaimStep::kChunk, &filled.chunk_reductions, &filled.chunk_reduced_bytes);
    return nestling::WriteStruct(filled, "out_memory", out_memory);
  });
}

nestling_status nestling_engine_get_residency(const nestling_engine* engine,
                                              nestling_engine_residency* out_residency) {
  return nestling::Guard([&]() -> nestling::Status {
    RETURN_IF_ERROR(nestling::RequireNotNull(engine, "engine"));
    RETURN_IF_ERROR(nestling::CheckOutStruct("out_residency", out_residency));
    const auto resident = engine->engine->ResidentByGroup();
    const auto of = [&resident](nestling::MemoryGroup group) {
      return resident[static_cast<size_t>(group)];
    };
    nestling_engine_residency filled{};
    filled.text_weight_bytes = of(nestling::MemoryGroup::kTextWeights);
    filled.embedding_bytes = of(nestling::MemoryGroup::kEmbedding);
    filled.packed_weight_bytes = of(nestling::MemoryGroup::kPackedWeights);
    filled.ple_table_bytes = of(nestling::MemoryGroup::kPleTable);
    filled.ple_cache_bytes = of(nestling::MemoryGroup::kPleCache);
    filled.kv_bytes = of(nestling::MemoryGroup::kKv);
    filled.scratch_bytes = of(nestling::MemoryGroup::kScratch);
    filled.logits_bytes = of(nestling::MemoryGroup::kLogits);
    return nestling::WriteStruct(filled, "out_residency", out_residency);
  });
}

nestling_status nestling_engine_tokenize(const nestling_engine* engine, const char* text,
                                         size_t text_bytes, uint32_t flags, int32_t* tokens,
                                         size_t capacity, size_t* out_num_tokens) {
  return nestling::Guard([&]() -> nestling::Status {
    ASSIGN_OR_RETURN(const nestling::Tokenizer* tokenizer, nestling::RequireTokenizer(engine));
    std::string_view view;
    RETURN_IF_ERROR(nestling::ReadText(text, text_bytes, "text", &view));
    constexpr uint32_t kKnown = NESTLING_TOKENIZE_ADD_BOS | NESTLING_TOKENIZE_PARSE_SPECIAL |
                                NESTLING_TOKENIZE_EXPAND_MEDIA;
    if ((flags & ~kKnown) != 0) {
      return nestling::InvalidArgument("flags: ", flags, " has bits beyond ", kKnown);
    }
    RETURN_IF_ERROR(nestling::CheckCopyOut(tokens, capacity, out_num_tokens, "out_num_tokens"));
    nestling::EncodeOptions options;
    options.add_bos = (flags & NESTLING_TOKENIZE_ADD_BOS) != 0;
    options.parse_special = (flags & NESTLING_TOKENIZE_PARSE_SPECIAL) != 0;
    const bool expand = (flags & NESTLING_TOKENIZE_EXPAND_MEDIA) != 0;
    if (expand && !options.parse_special) {
      return nestling::InvalidArgument("flags: ", flags, " expands media without parsing specials");
    }
    ASSIGN_OR_RETURN(const std::vector<int32_t> ids,
                     expand ? nestling::EncodeExpanded(*engine->engine, view, options.add_bos)
                            : tokenizer->Encode(view, options));
    return nestling::CopyOutTokens(ids, tokens, capacity, out_num_tokens);
  });
}

nestling_status nestling_engine_detokenize(const nestling_engine* engine, const int32_t* tokens,
                                           size_t num_tokens, int32_t show_special, char* buffer,
                                           size_t capacity, size_t* out_needed) {
  return nestling::Guard([&]() -> nestling::Status {
    ASSIGN_OR_RETURN(const nestling::Tokenizer* tokenizer, nestling::RequireTokenizer(engine));
    RETURN_IF_ERROR(nestling::CheckCopyOut(buffer, capacity, out_needed, "out_needed"));
    std::span<const int32_t> ids;
    RETURN_IF_ERROR(nestling::ReadTokens(tokens, num_tokens, "tokens", &ids));
    nestling::DecodeOptions options;
    options.skip_special = show_special == 0;
    ASSIGN_OR_RETURN(const std::string text, tokenizer->Decode(ids, options));
    return nestling::CopyOutText(text, buffer, capacity, out_needed);
  });
}

nestling_status nestling_engine_token_piece(const nestling_engine* engine, int32_t token,
                                            char* buffer, size_t capacity, size_t* out_needed) {
  return nestling::Guard([&]() -> nestling::Status {
    ASSIGN_OR_RETURN(const nestling::Tokenizer* tokenizer, nestling::RequireTokenizer(engine));
    RETURN_IF_ERROR(nestling::CheckCopyOut(buffer, capacity, out_needed, "out_needed"));
    ASSIGN_OR_RETURN(const std::string_view piece, tokenizer->PieceText(token));
    return nestling::CopyOutText(piece, buffer, capacity, out_needed);
  });
}

}  // extern "C"
