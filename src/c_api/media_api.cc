// SPDX-License-Identifier: Apache-2.0
// Towers, images and sounds of an engine, and sounds that are being recorded.
#include <algorithm>
#include <memory>
#include <mutex>
#include <utility>

#include "c_api/arguments.h"
#include "c_api/guard.h"
#include "c_api/handles.h"
#include "c_api/media_parts.h"
#include "modality/sound_recording.h"

namespace nestling {
namespace {

#define NESTLING_CHECK_STATE(c_state, state) \
  static_assert(c_state == static_cast<nestling_tower_state>(TowerState::state))
NESTLING_CHECK_STATE(NESTLING_TOWER_ABSENT, kAbsent);
NESTLING_CHECK_STATE(NESTLING_TOWER_UNLOADED, kUnloaded);
NESTLING_CHECK_STATE(NESTLING_TOWER_MAPPED, kLoading);
NESTLING_CHECK_STATE(NESTLING_TOWER_READY, kReady);
#undef NESTLING_CHECK_STATE

Result<TowerKind> ReadTower(nestling_tower tower) {
  if (tower == NESTLING_TOWER_VISION) return TowerKind::kVision;
  if (tower == NESTLING_TOWER_AUDIO) return TowerKind::kAudio;
  return InvalidArgument("tower: ", tower, ", want NESTLING_TOWER_VISION or _AUDIO");
}

nestling_tower_info DescribeTower(const Engine& engine, TowerKind kind) {
  const TowerInfo tower = engine.towers().Info(kind);
  const MediaShape& shape = engine.towers().shape();
  const SpecialTokens& tokens = engine.header().special_tokens;
  nestling_tower_info info{};
  info.state = static_cast<nestling_tower_state>(tower.state);
  if (kind == TowerKind::kVision) {
    info.num_positions = shape.image_tokens;
    info.image_width = shape.image_width;
    info.image_height = shape.image_height;
    info.placeholder_token = tokens.image_soft;
  } else {
    info.num_positions = shape.audio_tokens;
    info.placeholder_token = tokens.audio_soft;
    info.min_samples = shape.min_samples;
    info.clip_samples = shape.max_samples;
  }
  info.load_status = static_cast<nestling_status>(tower.load_status);
  info.weight_bytes = tower.weight_bytes;
  info.num_loads = tower.counters.loads;
  info.num_encodes = tower.counters.encodes;
  info.load_seconds = tower.counters.load_seconds;
  info.encode_seconds = tower.counters.encode_seconds;
  return info;
}

// Guard for calls on a stream. Body: (nestling_audio_stream&) -> Status.
template <typename Body>
nestling_status GuardStream(const nestling_audio_stream* stream, Body&& body) noexcept {
  return Guard([&]() -> Status {
    RETURN_IF_ERROR(RequireNotNull(stream, "stream"));
    auto& handle = const_cast<nestling_audio_stream&>(*stream);
    const std::unique_lock lock(handle.in_use, std::try_to_lock);
    if (!lock.owns_lock()) return FailedPrecondition("stream: another thread is using it");
    return body(handle);
  });
}

}  // namespace
}  // namespace nestling

using nestling::Guard;
using nestling::GuardStream;
using nestling::OkStatus;
using nestling::Status;

extern "C" {

nestling_status nestling_engine_get_tower_info(const nestling_engine* engine, nestling_tower tower,
                                               nestling_tower_info* out_info) {
  return Guard([&]() -> Status {
    RETURN_IF_ERROR(nestling::RequireNotNull(engine, "engine"));
    ASSIGN_OR_RETURN(const nestling::TowerKind kind, nestling::ReadTower(tower));
    return nestling::WriteStruct(nestling::DescribeTower(*engine->engine, kind), "out_info",
                                 out_info);
  });
}

nestling_status nestling_engine_load_tower(nestling_engine* engine, nestling_tower tower,
                                           uint32_t flags) {
  return Guard([&]() -> Status {
    RETURN_IF_ERROR(nestling::RequireNotNull(engine, "engine"));
    ASSIGN_OR_RETURN(const nestling::TowerKind kind, nestling::ReadTower(tower));
    if ((flags & ~uint32_t{NESTLING_LOAD_IN_BACKGROUND}) != 0) {
      return nestling::InvalidArgument("flags: ", flags, " has bits beyond ",
                                       int{NESTLING_LOAD_IN_BACKGROUND});
    }
    return engine->engine->towers().Load(kind, (flags & NESTLING_LOAD_IN_BACKGROUND) != 0);
  });
}

nestling_status nestling_engine_unload_tower(nestling_engine* engine, nestling_tower tower) {
  return Guard([&]() -> Status {
    RETURN_IF_ERROR(nestling::RequireNotNull(engine, "engine"));
    ASSIGN_OR_RETURN(const nestling::TowerKind kind, nestling::ReadTower(tower));
    engine->engine->towers().Unload(kind);
    return OkStatus();
  });
}

nestling_status nestling_engine_get_soft_token_cache_info(
    const nestling_engine* engine, nestling_soft_token_cache_info* out_info) {
  return Guard([&]() -> Status {
    RETURN_IF_ERROR(nestling::RequireNotNull(engine, "engine"));
    const nestling::Towers& towers = engine->engine->towers();
    const nestling::MediaCacheCounters counters = towers.cache_counters();
    nestling_soft_token_cache_info info{};
    info.capacity_bytes = towers.cache_max_bytes();
    info.used_bytes = counters.bytes;
    info.num_entries = counters.entries;
    info.hits = counters.hits;
    info.misses = counters.misses;
    return nestling::WriteStruct(info, "out_info", out_info);
  });
}

nestling_status nestling_engine_clear_soft_token_cache(nestling_engine* engine) {
  return Guard([&]() -> Status {
    RETURN_IF_ERROR(nestling::RequireNotNull(engine, "engine"));
    engine->engine->towers().ClearCache();
    return OkStatus();
  });
}

nestling_status nestling_engine_measure_media(const nestling_engine* engine,
                                              const nestling_part* media,
                                              nestling_media_size* out_size) {
  return Guard([&]() -> Status {
    RETURN_IF_ERROR(nestling::RequireNotNull(engine, "engine"));
    RETURN_IF_ERROR(nestling::CheckOutStruct("out_size", out_size));
    ASSIGN_OR_RETURN(const nestling_part part, nestling::ReadPart(media, "media"));
    const nestling::Engine& its = *engine->engine;
    ASSIGN_OR_RETURN(
        const nestling::MediaSize size,
        nestling::MeasurePart(its.towers(), its.text_config().hidden_size, part, "media"));
    nestling_media_size filled{};
    filled.num_clips = static_cast<uint32_t>(size.clips);
    filled.num_soft_tokens = static_cast<uint32_t>(size.soft_tokens);
    filled.num_positions = static_cast<uint32_t>(size.positions);
    return nestling::WriteStruct(filled, "out_size", out_size);
  });
}

nestling_status nestling_engine_encode(nestling_engine* engine, const nestling_part* media,
                                       float* buffer, size_t capacity, size_t* out_num_values) {
  return Guard([&]() -> Status {
    RETURN_IF_ERROR(nestling::RequireNotNull(engine, "engine"));
    RETURN_IF_ERROR(nestling::CheckCopyOut(buffer, capacity, out_num_values, "out_num_values"));
    ASSIGN_OR_RETURN(const nestling_part part, nestling::ReadPart(media, "media"));
    const nestling::Engine& its = *engine->engine;
    const size_t hidden_size = its.text_config().hidden_size;
    ASSIGN_OR_RETURN(const nestling::MediaSize size,
                     nestling::MeasurePart(its.towers(), hidden_size, part, "media"));
    *out_num_values = size.soft_tokens * hidden_size;
    if (buffer == nullptr) return OkStatus();
    if (capacity < *out_num_values) {
      return nestling::InvalidArgument("capacity: ", capacity, " values, want ", *out_num_values);
    }
    ASSIGN_OR_RETURN(const nestling::Media encoded,
                     nestling::EncodePart(its.towers(), hidden_size, part, "media"));
    for (const nestling::SharedSoftTokens& piece : encoded.pieces) {
      buffer = std::copy(piece->values.begin(), piece->values.end(), buffer);
    }
    return OkStatus();
  });
}

nestling_status nestling_audio_stream_create(nestling_engine* engine,
                                             nestling_audio_stream** out_stream) {
  return Guard([&]() -> Status {
    RETURN_IF_ERROR(nestling::RequireNotNull(out_stream, "out_stream"));
    *out_stream = nullptr;
    RETURN_IF_ERROR(nestling::RequireNotNull(engine, "engine"));
    auto handle = std::make_unique<nestling_audio_stream>();
    handle->engine = engine->engine;
    ASSIGN_OR_RETURN(handle->recording, nestling::SoundRecording::Create(engine->engine->towers()));
    *out_stream = handle.release();
    return OkStatus();
  });
}

nestling_status nestling_audio_stream_push(nestling_audio_stream* stream, const float* samples,
                                           size_t num_samples) {
  return GuardStream(stream, [&](nestling_audio_stream& handle) -> Status {
    if (handle.recording == nullptr) {
      return nestling::FailedPrecondition("stream: it is finished");
    }
    if (num_samples == 0) return OkStatus();
    RETURN_IF_ERROR(nestling::RequireNotNull(samples, "samples"));
    if (num_samples > nestling::kMaxTokenCount) {
      return nestling::InvalidArgument("num_samples: ", num_samples, ", want at most ",
                                       nestling::kMaxTokenCount);
    }
    return handle.recording->Push({samples, num_samples});
  });
}

nestling_status nestling_audio_stream_finish(nestling_audio_stream* stream) {
  return GuardStream(stream, [&](nestling_audio_stream& handle) -> Status {
    if (handle.recording == nullptr) {
      return nestling::FailedPrecondition("stream: it is finished");
    }
    ASSIGN_OR_RETURN(handle.media, handle.recording->Finish());
    handle.num_samples = handle.recording->num_samples();
    handle.recording = nullptr;  // and its hold on the tower
    return OkStatus();
  });
}

nestling_status nestling_audio_stream_get_info(const nestling_audio_stream* stream,
                                               nestling_audio_stream_info* out_info) {
  return GuardStream(stream, [&](nestling_audio_stream& handle) -> Status {
    nestling_audio_stream_info info{};
    info.num_samples =
        handle.recording != nullptr ? handle.recording->num_samples() : handle.num_samples;
    if (handle.media) {
      info.num_clips = static_cast<uint32_t>(handle.media->pieces.size());
      info.num_soft_tokens = static_cast<uint32_t>(handle.media->num_soft_tokens());
    }
    return nestling::WriteStruct(info, "out_info", out_info);
  });
}

void nestling_audio_stream_destroy(nestling_audio_stream* stream) { delete stream; }

}  // extern "C"
