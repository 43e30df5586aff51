// SPDX-License-Identifier: Apache-2.0
#include "runtime/engine.h"

#include <algorithm>
#include <utility>

#include "graph/decoder_blocks.h"
#include "model/slices.h"
#include "model/tensor_names.h"
#include "ple/ple_table.h"
#include "runtime/scratch.h"

namespace nestling {
namespace {

constexpr uint32_t kDefaultChunkTokens = 256;
constexpr uint32_t kMaxChunkTokens = 8192;
constexpr uint64_t kMaxSliceFileBytes = 1 << 20;

// `slice`: empty, a name in the container, or a JSON file.
Result<SliceConfig> ResolveSlice(const HeaderFields& header, const std::string& slice) {
  if (slice.empty()) return WholeModelSlice(header.text);
  Result<SliceConfig> named = FindSlice(header, slice);
  if (named.ok() || !slice.ends_with(".json")) return named;
  ASSIGN_OR_RETURN(const std::string json, ReadFile(slice, kMaxSliceFileBytes));
  return ParseSliceJson(json, header.text);
}

Result<std::unique_ptr<Tokenizer>> LoadTokenizer(const ContainerReader& container) {
  const SectionInfo* section = container.FindSection(SectionKind::kTokenizer);
  if (section == nullptr || section->bytes == 0) return std::unique_ptr<Tokenizer>();
  ASSIGN_OR_RETURN(const MappedRegion region, container.MapSection(SectionKind::kTokenizer));
  return Tokenizer::Create(region.bytes(), container.header().special_tokens);
}

}  // namespace

Engine::Engine() = default;
Engine::~Engine() = default;

Result<std::unique_ptr<Engine>> Engine::Create(const std::string& path,
                                               const EngineOptions& options) {
  ASSIGN_OR_RETURN(auto file, File::Open(path));
  return Create(std::move(file), options);
}

Result<std::unique_ptr<Engine>> Engine::Create(std::unique_ptr<File> file,
                                               const EngineOptions& options) {
  if (options.chunk_tokens > kMaxChunkTokens) {
    return InvalidArgument("chunk of ", options.chunk_tokens, " tokens, at most ", kMaxChunkTokens);
  }
  std::unique_ptr<Engine> engine(new Engine);
  engine->chunk_tokens_ = options.chunk_tokens != 0 ? options.chunk_tokens : kDefaultChunkTokens;
  ASSIGN_OR_RETURN(engine->container_, ContainerReader::Open(std::move(file)));
  const ContainerReader& container = *engine->container_;
  ASSIGN_OR_RETURN(engine->default_slice_, engine->ChooseSlice(options.slice));
  ASSIGN_OR_RETURN(engine->pool_, ThreadPool::Create(options.num_threads));
  ASSIGN_OR_RETURN(engine->weights_, ModelWeights::Create(container));
  ASSIGN_OR_RETURN(engine->ple_table_, PleTable::Create(container));
  ASSIGN_OR_RETURN(engine->tokenizer_, LoadTokenizer(container));
  ASSIGN_OR_RETURN(engine->blocks_, DecoderBlocks::Create(*engine->weights_, *engine->pool_));
  RETURN_IF_ERROR(engine->blocks_->Load(engine->default_slice_));
  engine->scratch_pool_ = std::make_unique<ScratchPool>(
      container.header().text, engine->chunk_tokens_, engine->ple_table_->row_bytes());
  return engine;
}

Result<SliceConfig> Engine::ChooseSlice(const std::string& slice) const {
  return ResolveSlice(header(), slice);
}

kernels::KvType Engine::ResolveKvType(KvChoice wanted) const {
  switch (wanted) {
    case KvChoice::kF32:
      return kernels::KvType::kF32;
    case KvChoice::kF16:
      return kernels::KvType::kF16;
    case KvChoice::kInt8:
      return kernels::KvType::kInt8;
    case KvChoice::kAuto:
      break;
  }
  const TensorInfo* query = container_->FindTensor(names::Layer(0, "self_attn.q_proj"));
  const bool reference = query != nullptr && query->dtype == DType::kF32;
  return reference ? kernels::KvType::kF32 : kernels::KvType::kF16;
}

EngineMemory Engine::memory() const {
  EngineMemory memory;
  for (const SectionKind kind : {SectionKind::kText, SectionKind::kEmbed}) {
    if (const SectionInfo* section = container_->FindSection(kind)) memory.mapped += section->bytes;
  }
  memory.packed_weights = blocks_->packed_bytes();
  memory.scratch = scratch_pool_->capacity_bytes();
  memory.loaded_parameters = blocks_->loaded_parameters();
  return memory;
}

}  // namespace nestling
