// SPDX-License-Identifier: Apache-2.0
#include "runtime/prepare.h"

#include <filesystem>
#include <memory>

#include "modality/towers.h"

namespace nestling {
namespace {

Status CheckPart(const char* part, PackedCacheState state, const std::string& note) {
  if (state != PackedCacheState::kFailed) return OkStatus();
  return IoError("packed weights of ", part, " are not kept: ", note);
}

}  // namespace

Status Prepare(const std::string& path, EngineOptions options,
               FunctionRef<void(uint64_t, uint64_t)> progress) {
  PackedCacheOptions& cache = options.packed_cache;
  cache.verify = true;
  if (cache.folder.empty()) {
    const std::filesystem::path folder = std::filesystem::path(path).parent_path();
    cache.folder = folder.empty() ? "." : folder.string();
  }
  ASSIGN_OR_RETURN(const std::unique_ptr<Engine> engine, Engine::Create(path, options));
  const auto bytes_of = [&](SectionKind kind) -> uint64_t {
    const SectionInfo* section = engine->container().FindSection(kind);
    return section == nullptr ? 0 : section->bytes;
  };
  const uint64_t total =
      bytes_of(SectionKind::kText) + bytes_of(SectionKind::kVision) + bytes_of(SectionKind::kAudio);
  uint64_t done = 0;
  const auto advance = [&](SectionKind kind) {
    done += bytes_of(kind);
    if (progress) progress(done, total);
  };
  const PackedCacheInfo text = engine->packed_info();
  RETURN_IF_ERROR(CheckPart("the decoder", text.state, text.note));
  advance(SectionKind::kText);
  struct Part {
    TowerKind tower;
    SectionKind section;
    const char* name;
  };
  for (const Part& part : {Part{TowerKind::kVision, SectionKind::kVision, "the vision tower"},
                           Part{TowerKind::kAudio, SectionKind::kAudio, "the audio tower"}}) {
    if (bytes_of(part.section) == 0) continue;
    RETURN_IF_ERROR(engine->towers().Load(part.tower, /*in_background=*/false));
    const TowerInfo info = engine->towers().Info(part.tower);
    RETURN_IF_ERROR(CheckPart(part.name, info.packed_state, info.packed_note));
    engine->towers().Unload(part.tower);
    advance(part.section);
  }
  return OkStatus();
}

}  // namespace nestling
