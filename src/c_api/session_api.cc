// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "c_api/arguments.h"
#include "c_api/guard.h"
#include "c_api/handles.h"
#include "c_api/media_parts.h"
#include "runtime/memory_estimate.h"
#include "runtime/speculative.h"
#include "sampling/random.h"

namespace nestling {
namespace {

using Clock = std::chrono::steady_clock;
using Inside = SessionUse::Inside;

constexpr size_t kMaxStops = 4096;  // stop tokens, stop strings

#define NESTLING_CHECK_REASON(c_reason, reason) \
  static_assert(c_reason == static_cast<nestling_stop_reason>(StopReason::reason))
NESTLING_CHECK_REASON(NESTLING_STOP_MAX_TOKENS, kMaxTokens);
NESTLING_CHECK_REASON(NESTLING_STOP_TOKEN, kStopToken);
NESTLING_CHECK_REASON(NESTLING_STOP_STRING, kStopString);
NESTLING_CHECK_REASON(NESTLING_STOP_CONTEXT_FULL, kContextFull);
NESTLING_CHECK_REASON(NESTLING_STOP_CANCELLED, kCancelled);
NESTLING_CHECK_REASON(NESTLING_STOP_CALLBACK, kCallback);
#undef NESTLING_CHECK_REASON

#define NESTLING_CHECK_KV(c_type, type) \
  static_assert(c_type == static_cast<nestling_kv_type>(KvChoice::type))
NESTLING_CHECK_KV(NESTLING_KV_AUTO, kAuto);
NESTLING_CHECK_KV(NESTLING_KV_F32, kF32);
NESTLING_CHECK_KV(NESTLING_KV_F16, kF16);
NESTLING_CHECK_KV(NESTLING_KV_INT8, kInt8);
#undef NESTLING_CHECK_KV

Result<KvChoice> ReadKvType(nestling_kv_type type) {
  if (type < NESTLING_KV_AUTO || type > NESTLING_KV_INT8) {
    return InvalidArgument("options.kv_type: ", type, ", want a NESTLING_KV_ value");
  }
  return static_cast<KvChoice>(type);
}

Result<SessionOptions> ReadSessionOptions(const nestling_session_options* options) {
  nestling_session_options read;
  RETURN_IF_ERROR(ReadOptions(options, "options", &read));
  SessionOptions result;
  ASSIGN_OR_RETURN(result.kv, ReadKvType(read.kv_type));
  result.context_tokens = read.context_tokens;
  result.chunk_tokens = read.chunk_tokens;
  return result;
}

nestling_kv_type ToC(kernels::KvType type) {
  switch (type) {
    case kernels::KvType::kF32:
      return NESTLING_KV_F32;
    case kernels::KvType::kF16:
      return NESTLING_KV_F16;
    case kernels::KvType::kInt8:
      break;
  }
  return NESTLING_KV_INT8;
}

// Different for calls at the same time and for processes: not a secret, only not a repetition.
uint64_t NewSeed() {
  static std::atomic<uint64_t> calls{0};
  const auto now = static_cast<uint64_t>(Clock::now().time_since_epoch().count());
  const uint64_t seed = Random(now ^ (calls.fetch_add(1) << 48)).Next();
  return seed != 0 ? seed : 1;
}

Result<SamplingOptions> ReadSampling(const nestling_generate_options& options,
                                     const GenerationConfig& model) {
  nestling_sampling mode = options.sampling;
  if (mode == NESTLING_SAMPLING_DEFAULT) {
    mode = model.do_sample ? NESTLING_SAMPLING_RANDOM : NESTLING_SAMPLING_GREEDY;
  }
  SamplingOptions result;
  if (options.repetition_penalty != 0) result.repetition_penalty = options.repetition_penalty;
  if (options.repetition_window != 0) result.repetition_window = options.repetition_window;
  result.seed = options.seed != 0 ? options.seed : NewSeed();
  switch (mode) {
    case NESTLING_SAMPLING_GREEDY:
      result.temperature = 0;
      break;
    case NESTLING_SAMPLING_RANDOM:
      if (options.top_k < NESTLING_TOP_K_OFF) {
        return InvalidArgument("options.top_k: ", options.top_k, ", want ", NESTLING_TOP_K_OFF,
                               " or more");
      }
      result.temperature = options.temperature != 0 ? options.temperature : model.temperature;
      result.top_k = options.top_k == 0                    ? model.top_k
                     : options.top_k == NESTLING_TOP_K_OFF ? 0
                                                           : static_cast<uint32_t>(options.top_k);
      result.top_p = options.top_p != 0 ? options.top_p : model.top_p;
      result.min_p = options.min_p;
      break;
    default:
      return InvalidArgument("options.sampling: ", mode, ", want a NESTLING_SAMPLING_ value");
  }
  RETURN_IF_ERROR(ValidateSamplingOptions(result));
  return result;
}

Status CheckStopCount(size_t count, const void* array, const char* name) {
  if (count == 0) return OkStatus();
  if (array == nullptr)
    return InvalidArgument("options.", name, ": NULL, with ", count, " of them");
  if (count > kMaxStops) {
    return InvalidArgument("options.num_", name, ": ", count, ", want at most ", kMaxStops);
  }
  return OkStatus();
}

Result<GenerateOptions> ReadGenerateOptions(const nestling_generate_options* options,
                                            const Engine& engine) {
  nestling_generate_options read;
  RETURN_IF_ERROR(ReadOptions(options, "options", &read));
  GenerateOptions result;
  result.max_tokens = read.max_tokens;
  result.ignore_stop_tokens = read.ignore_stop_tokens != 0;
  ASSIGN_OR_RETURN(result.sampling, ReadSampling(read, engine.header().generation));
  RETURN_IF_ERROR(CheckStopCount(read.num_stop_tokens, read.stop_tokens, "stop_tokens"));
  const uint32_t vocab_size = engine.text_config().vocab_size;
  for (size_t i = 0; i < read.num_stop_tokens; ++i) {
    const int32_t id = read.stop_tokens[i];
    if (id < 0 || static_cast<uint32_t>(id) >= vocab_size) {
      return InvalidArgument("options.stop_tokens[", i, "]: ", id, ", want [0, ", vocab_size, ")");
    }
    result.stop_tokens.push_back(id);
  }
  RETURN_IF_ERROR(CheckStopCount(read.num_stop_strings, read.stop_strings, "stop_strings"));
  for (size_t i = 0; i < read.num_stop_strings; ++i) {
    if (read.stop_strings[i] == nullptr) {
      return InvalidArgument("options.stop_strings[", i, "]: NULL");
    }
    result.stop_strings.emplace_back(read.stop_strings[i]);
  }
  if (read.draft_slice != nullptr) result.draft_slice = read.draft_slice;
  if (read.draft_tokens > kMaxDraftTokens) {
    return InvalidArgument("options.draft_tokens: ", read.draft_tokens, ", want at most ",
                           kMaxDraftTokens);
  }
  result.draft_tokens = read.draft_tokens;
  return result;
}

// For calls that take the session for a plain sequence of tokens.
Status RequireNoMessages(const nestling_session& handle) {
  if (!handle.conversation.started()) return OkStatus();
  return FailedPrecondition("session: it holds messages; raw tokens need one without, or a reset");
}

// Placeholders that parts take.
struct Placeholders {
  size_t images = 0;
  size_t sounds = 0;
};

// Checks all images and sounds before the first is encoded, which may take seconds.
Result<Placeholders> MeasureParts(const nestling_session& handle,
                                  std::span<const nestling_part> parts, const char* name) {
  const Engine& engine = *handle.engine;
  Placeholders taken;
  for (size_t i = 0; i < parts.size(); ++i) {
    if (parts[i].type == NESTLING_PART_TEXT) continue;
    ASSIGN_OR_RETURN(const MediaSize size,
                     MeasurePart(engine.towers(), engine.text_config().hidden_size, parts[i],
                                 StrCat(name, "[", i, "]")));
    const nestling_part_type type = parts[i].type;
    const bool image = type == NESTLING_PART_IMAGE || type == NESTLING_PART_PREPARED_IMAGE ||
                       type == NESTLING_PART_IMAGE_TOKENS;
    (image ? taken.images : taken.sounds) += size.positions;
  }
  const Session& session = *handle.session;
  const size_t room = session.context_tokens() - session.num_tokens();
  if (taken.images + taken.sounds <= room) return taken;
  return ContextFull(name, ": they take ", taken.images + taken.sounds,
                     " tokens, the context has room for ", room, " of ", session.context_tokens());
}

Status CheckCount(std::span<const int32_t> tokens, int32_t id, size_t taken, const char* what) {
  const auto count = id < 0 ? 0 : std::count(tokens.begin(), tokens.end(), id);
  if (static_cast<size_t>(count) == taken) return OkStatus();
  return InvalidArgument("tokens: ", count, " placeholders of ", what, "s, those in media take ",
                         taken);
}

// Encodes the images and sounds among `parts`, by their index; texts are left out.
Result<std::vector<std::optional<Media>>> EncodeParts(nestling_session& handle,
                                                      std::span<const nestling_part> parts,
                                                      const char* name) {
  const Engine& engine = *handle.engine;
  const Session::RunningCall running(*handle.session);
  std::vector<std::optional<Media>> media;
  for (const nestling_part& part : parts) {
    std::optional<Media>& encoded = media.emplace_back();
    if (part.type == NESTLING_PART_TEXT) continue;
    if (running.cancelled())
      return Cancelled("cancelled before all images and sounds were encoded");
    ASSIGN_OR_RETURN(encoded, EncodePart(engine.towers(), engine.text_config().hidden_size, part,
                                         StrCat(name, "[", media.size() - 1, "]")));
  }
  return media;
}

// The rows of placeholders among `tokens`.
Result<SoftRows> AssignMedia(nestling_session& handle, std::span<const int32_t> tokens,
                             const nestling_part* media, size_t num_media) {
  ASSIGN_OR_RETURN(const std::vector<nestling_part> parts, ReadParts(media, num_media, "media"));
  for (size_t i = 0; i < parts.size(); ++i) {
    if (parts[i].type == NESTLING_PART_TEXT) {
      return InvalidArgument("media[", i, "].type: a text, want an image or a sound");
    }
  }
  if (parts.empty()) return SoftRows();  // the session finds placeholders without content
  ASSIGN_OR_RETURN(const Placeholders taken, MeasureParts(handle, parts, "media"));
  const Engine& engine = *handle.engine;
  const SpecialTokens& special = engine.header().special_tokens;
  RETURN_IF_ERROR(CheckCount(tokens, special.image_soft, taken.images, "image"));
  RETURN_IF_ERROR(CheckCount(tokens, special.audio_soft, taken.sounds, "sound"));
  ASSIGN_OR_RETURN(const auto encoded, EncodeParts(handle, parts, "media"));
  std::vector<Media> all;
  for (const std::optional<Media>& one : encoded) all.push_back(*one);
  return SoftRows::Assign(tokens, special, all, engine.container().content_hash(),
                          engine.text_config().hidden_size);
}

Result<Role> ReadRole(nestling_role role) {
  switch (role) {
    case NESTLING_ROLE_USER:
      return Role::kUser;
    case NESTLING_ROLE_ASSISTANT:
      return Role::kAssistant;
    case NESTLING_ROLE_SYSTEM:
      return Role::kSystem;
    default:
      return InvalidArgument("role: ", role, ", want a NESTLING_ROLE_ value");
  }
}

// Before the ids are looked at: a length that is a mistake must not be read through.
Status CheckRoom(const Session& session, size_t num_tokens) {
  const size_t room = session.context_tokens() - session.num_tokens();
  if (num_tokens <= room) return OkStatus();
  return ContextFull("num_tokens: ", num_tokens, ", the context has room for ", room, " of ",
                     session.context_tokens());
}

// The ids of a call that takes the session for a plain sequence of tokens.
Status ReadSequence(const nestling_session& handle, const int32_t* tokens, size_t num_tokens,
                    std::span<const int32_t>* ids) {
  RETURN_IF_ERROR(RequireNoMessages(handle));
  if (num_tokens == 0) return OkStatus();
  RETURN_IF_ERROR(RequireNotNull(tokens, "tokens"));
  RETURN_IF_ERROR(CheckRoom(*handle.session, num_tokens));
  *ids = {tokens, num_tokens};
  return OkStatus();
}

Status EvalTokens(nestling_session& handle, std::span<const int32_t> ids, const SoftRows& rows,
                  nestling_logits_callback callback, void* user) {
  return handle.session->PrefillWithLogits(
      ids,
      [&](size_t index, std::span<const float> logits) {
        if (callback(user, index, logits.data(), logits.size()) == 0) return OkStatus();
        return Cancelled("the callback stopped after token ", index);
      },
      rows);
}

}  // namespace
}  // namespace nestling

using nestling::GuardSession;
using nestling::Inside;
using nestling::OkStatus;
using nestling::Status;

extern "C" {

nestling_status nestling_estimate_memory(const char* path, const nestling_estimate_options* options,
                                         nestling_memory_estimate* out_estimate) {
  return nestling::Guard([&]() -> Status {
    RETURN_IF_ERROR(nestling::RequireNotNull(path, "path"));
    RETURN_IF_ERROR(nestling::CheckOutStruct("out_estimate", out_estimate));
    nestling_estimate_options read;
    RETURN_IF_ERROR(nestling::ReadOptions(options, "options", &read));
    nestling::MemoryQuery query;
    ASSIGN_OR_RETURN(query.kv, nestling::ReadKvType(read.kv_type));
    query.context_tokens = read.context_tokens;
    query.chunk_tokens = read.chunk_tokens;
    query.vision = read.with_vision != 0;
    query.audio = read.with_audio != 0;
    ASSIGN_OR_RETURN(query.ple_mode, nestling::ReadPleMode(read.ple_mode));
    query.ple_cache_bytes = read.ple_cache_bytes;
    ASSIGN_OR_RETURN(const auto container, nestling::ContainerReader::Open(std::string(path)));
    ASSIGN_OR_RETURN(
        const nestling::SliceConfig slice,
        nestling::ResolveSlice(container->header(), read.slice != nullptr ? read.slice : ""));
    ASSIGN_OR_RETURN(const nestling::MemoryEstimate estimate,
                     nestling::EstimateMemory(*container, slice, query));
    nestling_memory_estimate filled{};
    filled.mapped_weight_bytes = estimate.mapped_weights;
    filled.packed_weight_bytes = estimate.packed_weights;
    filled.kv_bytes = estimate.kv_cache;
    filled.scratch_bytes = estimate.scratch;
    filled.ple_bytes = estimate.ple;
    filled.vision_bytes = estimate.vision;
    filled.audio_bytes = estimate.audio;
    filled.other_bytes = estimate.other;
    filled.total_bytes = estimate.total();
    return nestling::WriteStruct(filled, "out_estimate", out_estimate);
  });
}

nestling_status nestling_session_create(nestling_engine* engine,
                                        const nestling_session_options* options,
                                        nestling_session** out_session) {
  return nestling::Guard([&]() -> Status {
    RETURN_IF_ERROR(nestling::RequireNotNull(out_session, "out_session"));
    *out_session = nullptr;
    RETURN_IF_ERROR(nestling::RequireNotNull(engine, "engine"));
    ASSIGN_OR_RETURN(const nestling::SessionOptions read, nestling::ReadSessionOptions(options));
    ASSIGN_OR_RETURN(std::unique_ptr<nestling::Session> session,
                     nestling::Session::Create(*engine->engine, read));
    auto handle = std::make_unique<nestling_session>(engine->engine, std::move(session));
    handle->kv_type = nestling::ToC(engine->engine->ResolveKvType(read.kv));
    *out_session = handle.release();
    return OkStatus();
  });
}

void nestling_session_destroy(nestling_session* session) {
  if (session == nullptr) return;
  if (session->user.load() == std::this_thread::get_id()) {  // inside a callback
    session->destroy_when_unused = true;
    session->session->Cancel();
    return;
  }
  // Again and again: the first one may come before the other thread's call has begun to listen.
  while (!session->in_use.try_lock()) {
    session->session->Cancel();
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  session->in_use.unlock();
  delete session;
}

nestling_status nestling_session_get_info(const nestling_session* session,
                                          nestling_session_info* out_info) {
  return GuardSession(session, Inside::kAllowed, [&](nestling_session& handle) {
    nestling_session_info info{};
    info.context_tokens = handle.session->context_tokens();
    info.chunk_tokens = handle.session->chunk_tokens();
    info.kv_type = handle.kv_type;
    info.num_tokens = handle.session->num_tokens() +
                      static_cast<uint32_t>(handle.conversation.num_pending_tokens());
    info.kv_bytes = handle.session->counters().kv_bytes;
    info.slice = handle.session->slice().name.c_str();
    info.soft_token_bytes = handle.session->soft_token_bytes();
    return nestling::WriteStruct(info, "out_info", out_info);
  });
}

nestling_status nestling_session_get_counters(const nestling_session* session,
                                              nestling_session_counters* out_counters) {
  return GuardSession(session, Inside::kAllowed, [&](nestling_session& handle) {
    const nestling::SessionCounters& counters = handle.session->counters();
    nestling_session_counters filled{};
    filled.prefill_tokens = counters.prefill_tokens;
    filled.decode_tokens = counters.decode_tokens;
    filled.prefill_seconds = counters.prefill_seconds;
    filled.decode_seconds = counters.decode_seconds;
    filled.first_token_seconds = handle.first_token_seconds;
    filled.draft_tokens = counters.draft_tokens;
    filled.accepted_tokens = counters.accepted_tokens;
    filled.ple_rows_read = counters.ple_rows_read;
    filled.ple_bytes_read = counters.ple_bytes_read;
    filled.ple_hits = counters.ple_hits;
    filled.ple_misses = counters.ple_misses;
    filled.ple_wait_seconds = counters.ple_wait_seconds;
    filled.weight_bytes_read = counters.weight_bytes_read;
    filled.weight_products = counters.weight_products;
    return nestling::WriteStruct(filled, "out_counters", out_counters);
  });
}

nestling_status nestling_session_reset(nestling_session* session) {
  return GuardSession(session, Inside::kForbidden, [&](nestling_session& handle) {
    handle.session->Reset();
    handle.conversation.Reset();
    return OkStatus();
  });
}

void nestling_session_cancel(nestling_session* session) {
  // No Guard: signal handlers may not touch thread-local strings.
  if (session != nullptr) session->session->Cancel();
}

nestling_status nestling_session_set_slice(nestling_session* session, const char* slice) {
  return GuardSession(session, Inside::kForbidden, [&](nestling_session& handle) -> Status {
    ASSIGN_OR_RETURN(const nestling::SliceConfig config,
                     handle.engine->ChooseSlice(slice != nullptr ? slice : ""));
    return handle.session->SetSlice(config);
  });
}

nestling_status nestling_session_prefill(nestling_session* session, const int32_t* tokens,
                                         size_t num_tokens) {
  return GuardSession(session, Inside::kForbidden, [&](nestling_session& handle) -> Status {
    std::span<const int32_t> ids;
    RETURN_IF_ERROR(nestling::ReadSequence(handle, tokens, num_tokens, &ids));
    return handle.session->Prefill(ids);
  });
}

nestling_status nestling_session_eval(nestling_session* session, const int32_t* tokens,
                                      size_t num_tokens, nestling_logits_callback callback,
                                      void* user) {
  return GuardSession(session, Inside::kForbidden, [&](nestling_session& handle) -> Status {
    if (callback == nullptr) return nestling::InvalidArgument("callback: NULL");
    std::span<const int32_t> ids;
    RETURN_IF_ERROR(nestling::ReadSequence(handle, tokens, num_tokens, &ids));
    return nestling::EvalTokens(handle, ids, {}, callback, user);
  });
}

nestling_status nestling_session_prefill_media(nestling_session* session, const int32_t* tokens,
                                               size_t num_tokens, const nestling_part* media,
                                               size_t num_media) {
  return GuardSession(session, Inside::kForbidden, [&](nestling_session& handle) -> Status {
    std::span<const int32_t> ids;
    RETURN_IF_ERROR(nestling::ReadSequence(handle, tokens, num_tokens, &ids));
    ASSIGN_OR_RETURN(const nestling::SoftRows rows,
                     nestling::AssignMedia(handle, ids, media, num_media));
    return handle.session->Prefill(ids, rows);
  });
}

nestling_status nestling_session_eval_media(nestling_session* session, const int32_t* tokens,
                                            size_t num_tokens, const nestling_part* media,
                                            size_t num_media, nestling_logits_callback callback,
                                            void* user) {
  return GuardSession(session, Inside::kForbidden, [&](nestling_session& handle) -> Status {
    if (callback == nullptr) return nestling::InvalidArgument("callback: NULL");
    std::span<const int32_t> ids;
    RETURN_IF_ERROR(nestling::ReadSequence(handle, tokens, num_tokens, &ids));
    ASSIGN_OR_RETURN(const nestling::SoftRows rows,
                     nestling::AssignMedia(handle, ids, media, num_media));
    return nestling::EvalTokens(handle, ids, rows, callback, user);
  });
}

nestling_status nestling_session_get_logits(nestling_session* session, const float** out_logits,
                                            size_t* out_vocab_size) {
  return GuardSession(session, Inside::kForbidden, [&](nestling_session& handle) -> Status {
    RETURN_IF_ERROR(nestling::RequireNotNull(out_logits, "out_logits"));
    RETURN_IF_ERROR(nestling::RequireNoMessages(handle));
    ASSIGN_OR_RETURN(const std::span<const float> logits, handle.session->Logits());
    *out_logits = logits.data();
    if (out_vocab_size != nullptr) *out_vocab_size = logits.size();
    return OkStatus();
  });
}

nestling_status nestling_session_truncate(nestling_session* session, size_t num_tokens) {
  return GuardSession(session, Inside::kForbidden, [&](nestling_session& handle) -> Status {
    RETURN_IF_ERROR(nestling::RequireNoMessages(handle));
    if (num_tokens > handle.session->num_tokens()) {
      return nestling::InvalidArgument("num_tokens: ", num_tokens, ", the session has ",
                                       handle.session->num_tokens());
    }
    return handle.session->Truncate(static_cast<uint32_t>(num_tokens));
  });
}

nestling_status nestling_session_add_message(nestling_session* session, nestling_role role,
                                             const char* text, size_t text_bytes) {
  return GuardSession(session, Inside::kForbidden, [&](nestling_session& handle) -> Status {
    std::string_view view;
    RETURN_IF_ERROR(nestling::ReadText(text, text_bytes, "text", &view));
    ASSIGN_OR_RETURN(const nestling::Role its_role, nestling::ReadRole(role));
    return handle.conversation.AddMessage(its_role, view);
  });
}

nestling_status nestling_session_add_message_parts(nestling_session* session, nestling_role role,
                                                   const nestling_part* parts, size_t num_parts) {
  return GuardSession(session, Inside::kForbidden, [&](nestling_session& handle) -> Status {
    ASSIGN_OR_RETURN(const nestling::Role its_role, nestling::ReadRole(role));
    ASSIGN_OR_RETURN(const std::vector<nestling_part> read,
                     nestling::ReadParts(parts, num_parts, "parts"));
    if (read.empty()) return nestling::InvalidArgument("num_parts: 0, want at least 1");
    // What needs no encoding is checked before it.
    std::vector<nestling::MessagePart> message(read.size());
    for (size_t i = 0; i < read.size(); ++i) {
      if (read[i].type == NESTLING_PART_TEXT) {
        const std::string name = nestling::StrCat("parts[", i, "].data");
        RETURN_IF_ERROR(nestling::ReadText(static_cast<const char*>(read[i].data), read[i].size,
                                           name.c_str(), &message[i].text));
      } else if (its_role != nestling::Role::kUser) {
        return nestling::InvalidArgument("parts[", i, "].type: an image or a sound in a message ",
                                         "that is not the user's");
      }
    }
    RETURN_IF_ERROR(handle.conversation.CheckMessage(its_role));
    RETURN_IF_ERROR(nestling::MeasureParts(handle, read, "parts").status());
    ASSIGN_OR_RETURN(const auto media, nestling::EncodeParts(handle, read, "parts"));
    for (size_t i = 0; i < read.size(); ++i) {
      if (media[i]) message[i].media = &*media[i];
    }
    return handle.conversation.AddMessage(its_role, message);
  });
}

nestling_status nestling_session_generate(nestling_session* session,
                                          const nestling_generate_options* options,
                                          nestling_token_callback callback, void* user,
                                          nestling_generate_result* out_result) {
  const auto start = nestling::Clock::now();
  return GuardSession(session, Inside::kForbidden, [&](nestling_session& handle) -> Status {
    if (out_result != nullptr) {
      RETURN_IF_ERROR(nestling::CheckOutStruct("out_result", out_result));
    }
    ASSIGN_OR_RETURN(const nestling::GenerateOptions read,
                     nestling::ReadGenerateOptions(options, *handle.engine));
    bool first = true;
    const auto note_first_token = [&] {
      if (!std::exchange(first, false)) return;
      handle.first_token_seconds =
          std::chrono::duration<double>(nestling::Clock::now() - start).count();
    };
    const auto on_token = [&](const nestling::GeneratedToken& token) {
      note_first_token();
      if (callback == nullptr) return true;
      nestling_token c_token{};
      c_token.struct_size = sizeof(c_token);
      c_token.id = token.id;
      c_token.text = token.text.empty() ? "" : token.text.data();
      c_token.text_bytes = token.text.size();
      return callback(user, &c_token) == 0;
    };
    ASSIGN_OR_RETURN(const nestling::GenerateResult result,
                     handle.conversation.started() ? handle.conversation.Reply(read, on_token)
                                                   : handle.session->Generate(read, on_token));
    note_first_token();  // stop tokens are not reported
    if (out_result == nullptr) return OkStatus();
    nestling_generate_result filled{};
    filled.stop_reason = static_cast<nestling_stop_reason>(result.reason);
    filled.num_tokens = result.num_tokens;
    filled.seed = read.sampling.seed;
    filled.num_drafted = result.num_drafted;
    filled.num_accepted = result.num_accepted;
    return nestling::WriteStruct(filled, "out_result", out_result);
  });
}

const char* nestling_stop_reason_name(nestling_stop_reason reason) {
  switch (reason) {
    case NESTLING_STOP_MAX_TOKENS:
      return "max_tokens";
    case NESTLING_STOP_TOKEN:
      return "stop_token";
    case NESTLING_STOP_STRING:
      return "stop_string";
    case NESTLING_STOP_CONTEXT_FULL:
      return "context_full";
    case NESTLING_STOP_CANCELLED:
      return "cancelled";
    case NESTLING_STOP_CALLBACK:
      return "callback";
    default:
      return "unknown";
  }
}

}  // extern "C"
