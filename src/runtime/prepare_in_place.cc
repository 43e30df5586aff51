// SPDX-License-Identifier: Apache-2.0
#include "runtime/prepare_in_place.h"

#include <sys/stat.h>

#include <filesystem>
#include <memory>
#include <system_error>
#include <unordered_set>
#include <utility>

#include "base/file.h"
#include "base/thread_pool.h"
#include "container/packed_file.h"
#include "container/reader.h"
#include "container/rewriter.h"
#include "graph/decoder_blocks.h"
#include "graph/packed_weights.h"
#include "modality/hard_embeddings.h"
#include "model/slices.h"
#include "model/weights.h"

namespace nestling {
namespace {

namespace fs = std::filesystem;

// Loads a part of the model whole, as an engine would, and lets it go.
Status LoadPart(const ContainerReader& reader, const PackedPart& part, const ThreadPool& pool,
                TowerPrecision precision, PackedSectionTarget* target) {
  const PackedCacheOptions cache = {.off = true, .target = target};
  if (part.section == SectionKind::kText) {
    ASSIGN_OR_RETURN(const auto weights, ModelWeights::Create(reader));
    ASSIGN_OR_RETURN(const auto blocks, DecoderBlocks::Create(*weights, pool, cache));
    RETURN_IF_ERROR(blocks->Load(WholeModelSlice(reader.header().text)));
    const PackedCacheInfo info = blocks->packed_info();
    return info.state == PackedCacheState::kFailed ? IoError(info.note) : OkStatus();
  }
  const TowerKind kind =
      part.section == SectionKind::kVision ? TowerKind::kVision : TowerKind::kAudio;
  TowersOptions options;
  options.precision = precision;
  options.packed_cache = cache;
  Towers towers(reader, pool, std::move(options));
  RETURN_IF_ERROR(towers.Load(kind, /*in_background=*/false));
  const TowerInfo info = towers.Info(kind);
  return info.packed_state == PackedCacheState::kFailed ? IoError(info.packed_note) : OkStatus();
}

// Whether the container holds packed weights. An error: others than are asked for.
Result<bool> IsInPlace(const ContainerReader& reader, TowerPrecision precision) {
  bool in_place = false;
  for (const PackedPart& part : kPackedParts) {
    ASSIGN_OR_RETURN(std::string compute, HeldCompute(reader, part.section));
    if (compute.empty()) continue;
    in_place = true;
    if (part.section != SectionKind::kText && precision != TowerPrecision::kAuto) {
      compute = precision == TowerPrecision::kF32 ? "f32" : "int8";
    }
    RETURN_IF_ERROR(PackedWeights::Create(reader, part.name, compute, {}).status());
  }
  return in_place;
}

// Counts what was read of the container.
class InPlaceProgress {
 public:
  InPlaceProgress(const ContainerReader& reader, FunctionRef<void(uint64_t, uint64_t)> progress)
      : progress_(progress) {
    for (const SectionInfo& section : reader.sections()) total_ += section.bytes;
    // Parts are read for packing, and what is left of them to be copied.
    for (const PackedPart& part : kPackedParts) {
      if (const SectionInfo* section = reader.FindSection(part.section)) total_ += section->bytes;
    }
  }
  void Add(uint64_t bytes) {
    done_ += bytes;
    if (progress_) progress_(done_, total_);
  }
  void End() { Add(total_ - done_); }

 private:
  FunctionRef<void(uint64_t, uint64_t)> progress_;
  uint64_t done_ = 0, total_ = 0;
};

// Packs a part behind what the copy has so far. False: nothing of it has to be packed.
Result<bool> PackPart(const ContainerReader& reader, const PackedPart& part, const ThreadPool& pool,
                      TowerPrecision precision, ContainerRewriter& rewriter) {
  PackedSectionTarget target = {.file = &rewriter.file(), .offset = rewriter.next_offset()};
  RETURN_IF_ERROR(LoadPart(reader, part, pool, precision, &target));
  if (target.bytes == 0) return false;
  std::unordered_set<std::string> tensors;
  for (std::string& name : target.tensors) {
    if (!HardEmbeddings::Reads(name)) tensors.insert(std::move(name));
  }
  RETURN_IF_ERROR(rewriter.AddPacked(part, target.bytes, tensors));
  return true;
}

// A link to the container stays one.
std::string FileBehind(const std::string& path) {
  std::error_code error;
  const fs::path file = fs::canonical(path, error);
  return error ? path : file.string();
}

}  // namespace

Result<InPlaceOutcome> PrepareInPlace(const std::string& path, const InPlaceOptions& options,
                                      FunctionRef<void(uint64_t, uint64_t)> progress) {
  FileCalls& calls = options.calls != nullptr ? *options.calls : FileCalls::System();
  ASSIGN_OR_RETURN(auto file, File::Open(path, calls));
  struct stat info;
  if (fstat(file->descriptor(), &info) != 0) return IoError("cannot stat \"", path, "\"");
  ASSIGN_OR_RETURN(const std::unique_ptr<ContainerReader> reader,
                   ContainerReader::Open(std::move(file)));
  std::error_code ignored;  // of a file that does not exist yet
  const bool replace = options.output.empty() || fs::equivalent(options.output, path, ignored);

  ASSIGN_OR_RETURN(const bool in_place, IsInPlace(*reader, options.tower_precision));
  if (in_place && replace) return InPlaceOutcome::kAlready;
  ASSIGN_OR_RETURN(const auto pool, ThreadPool::Create(options.num_threads, /*cpu_mask=*/0));
  ASSIGN_OR_RETURN(
      const auto rewriter,
      ContainerRewriter::Create(*reader, replace ? FileBehind(path) : options.output, calls));
  if (replace) rewriter->file().SetMode(info.st_mode & 07777);
  InPlaceProgress count(*reader, progress);
  bool packed = false;
  for (const PackedPart& part : kPackedParts) {
    const SectionInfo* section = reader->FindSection(part.section);
    if (in_place || section == nullptr) continue;
    // Damage must not become right by being packed.
    RETURN_IF_ERROR(VerifySection(*reader, *section));
    ASSIGN_OR_RETURN(const bool part_packed,
                     PackPart(*reader, part, *pool, options.tower_precision, *rewriter));
    packed |= part_packed;
    count.Add(section->bytes);
  }
  if (!packed && replace) {
    count.End();
    return InPlaceOutcome::kNothing;
  }
  RETURN_IF_ERROR(rewriter->Finish([&](uint64_t bytes) { count.Add(bytes); }));
  ASSIGN_OR_RETURN(const std::unique_ptr<ContainerReader> copy, rewriter->OpenCopy());
  for (const PackedPart& part : kPackedParts) {
    if (copy->FindSection(part.packed) == nullptr) continue;
    RETURN_IF_ERROR(LoadPart(*copy, part, *pool, TowerPrecision::kAuto, /*target=*/nullptr));
  }
  RETURN_IF_ERROR(rewriter->Commit());
  count.End();
  if (in_place) return InPlaceOutcome::kAlready;
  return packed ? InPlaceOutcome::kPacked : InPlaceOutcome::kNothing;
}

}  // namespace nestling
