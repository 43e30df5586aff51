// SPDX-License-Identifier: Apache-2.0
#include "runtime/memory_estimate.h"

#include <algorithm>
#include <charconv>
#include <string>
#include <string_view>

#include "base/math.h"
#include "container/packed_file.h"
#include "kv/kv_cache.h"
#include "modality/towers.h"
#include "model/tensor_names.h"
#include "runtime/decoder.h"
#include "runtime/scratch.h"
#include "runtime/session.h"

namespace nestling {
namespace {

// XNNPACK adds a bias and a sum of weights to each output.
constexpr uint64_t kPackedBytesPerOutput = 12;
constexpr uint64_t kPackedArenaSlack = 1 << 20;
// Code pages, threads' stacks, XNNPACK's operators, the header's tensor list.
constexpr uint64_t kProcessBytes = 12 << 20;
// Activations of an image in f32 (measured: 93 MB), and of 30 s of sound.
constexpr uint64_t kTowerActivationBytes = 128 << 20;
// A fault maps what the page cache has of this much around it.
constexpr uint64_t kFaultAround = 64 << 10;
// Heap of a SentencePiece model, relative to its file: 33 MB for 262,144 pieces of 5.2 MB.
constexpr uint64_t kTokenizerFactor = 7;

// Layer number of "layers.<n>.<tensor>", or -1.
int LayerOf(std::string_view name, std::string_view* tensor) {
  constexpr std::string_view kPrefix = "layers.";
  if (!name.starts_with(kPrefix)) return -1;
  name.remove_prefix(kPrefix.size());
  int layer = -1;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), layer);
  if (error != std::errc()) return -1;
  *tensor = name.substr(static_cast<size_t>(end - name.data()));
  return layer;
}

// A tensor of which `bytes` are used.
struct UsedTensor {
  bool packed;  // in XNNPACK's layout
  bool held;    // in the container itself: no copy
  bool whole;
  SectionKind section;
  uint64_t bytes;
  uint64_t outputs;
  double read_per_token;  // share of the bytes: only the active neurons of a sparse layer
};

// Of elements and scales; of a tensor in packed form, what they would be in rows.
uint64_t BytesOf(const TensorInfo& info) {
  if (info.layout != Layout::kPacked) return info.bytes + info.scales_bytes;
  const Result<StorageSize> rows =
      ComputeStorageSize(info.dtype, Layout::kRowMajor, info.shape, /*num_shells=*/1);
  return rows.ok() ? rows->bytes + rows->scales_bytes : 0;
}

// Calls visit(UsedTensor) for each tensor that layers of these widths read.
template <typename Visit>
void ForUsedTensors(const ContainerReader& container, std::span<const uint32_t> widths,
                    const Visit& visit) {
  const TextConfig& config = container.header().text;
  const auto num_kept = static_cast<uint64_t>(
      std::count_if(widths.begin(), widths.end(), [](uint32_t width) { return width != 0; }));
  for (const TensorSpec& spec : TextTensors(config)) {
    const TensorInfo* info = container.FindTensor(spec.name);
    if (info == nullptr || spec.section == SectionKind::kPle) continue;
    // Small tensors of f32 (norms, routers) are read in place, like tiles.
    const bool packed = !spec.keep_f32 && !IsReadInPlace(info->layout);
    const bool held = packed && container.FindSection(SectionKind::kPackedText) != nullptr;
    double read = 1.0;
    const uint64_t bytes = BytesOf(*info);
    const auto use = [&](uint64_t used_bytes, uint64_t outputs) {
      visit(UsedTensor{packed, held, used_bytes == bytes, spec.section, used_bytes, outputs, read});
    };
    const uint64_t outputs = info->shape[0];
    std::string_view rest;
    const int layer = LayerOf(spec.name, &rest);
    if (spec.name == names::kPleProjection) {  // rows of every layer
      use(bytes / config.num_layers() * num_kept, outputs / config.num_layers() * num_kept);
    } else if (layer < 0 || static_cast<uint32_t>(layer) >= config.num_layers()) {
      use(bytes, outputs);
    } else if (const uint64_t used = widths[static_cast<size_t>(layer)]; used == 0) {
      continue;
    } else if (rest.starts_with(".mlp.")) {
      const uint64_t whole = config.layers[static_cast<size_t>(layer)].ffn_width();
      if (IsByNeuron(info->layout)) {
        read -= static_cast<double>(config.layers[static_cast<size_t>(layer)].activation_sparsity);
      }
      const uint64_t used_bytes = static_cast<uint64_t>(
          static_cast<double>(bytes) * static_cast<double>(used) / static_cast<double>(whole));
      use(used_bytes, rest == ".mlp.down_proj" ? outputs : used);
    } else {
      use(bytes, outputs);
    }
  }
}

uint64_t SectionBytes(const ContainerReader& container, SectionKind kind) {
  const SectionInfo* section = container.FindSection(kind);
  return section != nullptr ? section->bytes : 0;
}

}  // namespace

std::vector<uint32_t> SliceWidths(const TextConfig& config, const SliceConfig& slice) {
  std::vector<uint32_t> widths(config.num_layers());
  for (uint32_t layer = 0, kept = 0; layer < config.num_layers(); ++layer) {
    const auto& skipped = slice.skip_layers;
    if (std::find(skipped.begin(), skipped.end(), layer) != skipped.end()) continue;
    widths[layer] = slice.ffn[kept++];
  }
  return widths;
}

WeightBytes LoadedWeightBytes(const ContainerReader& container, std::span<const uint32_t> widths) {
  WeightBytes sum;
  uint64_t packing = 0;
  ForUsedTensors(container, widths, [&](const UsedTensor& tensor) {
    if (tensor.packed) {
      uint64_t& packed = tensor.held ? sum.mapped : sum.packed;
      packed +=
          RoundUp(tensor.bytes + tensor.outputs * kPackedBytesPerOutput, kPackedExtentAlignment);
      if (tensor.held) return;
      // Until a block is packed, the canonical pages of its one or two matrices are there too, or
      // those of a transposed one and a copy.
      packing = std::max(packing,
                         tensor.section == SectionKind::kEmbed ? tensor.bytes : 2 * tensor.bytes);
    } else {
      sum.mapped += tensor.bytes + (tensor.whole ? 0 : kFaultAround);
    }
  });
  if (sum.packed != 0) sum.packed += kPackedArenaSlack;
  sum.mapped += packing;
  return sum;
}

uint64_t TowerBytes(const ContainerReader& container, SectionKind section) {
  for (const PackedPart& part : kPackedParts) {
    const uint64_t packed = part.section == section ? SectionBytes(container, part.packed) : 0;
    if (packed != 0) return packed + SectionBytes(container, section) + kTowerActivationBytes;
  }
  // Weights in int8 stay so; all others become f32. Layouts pad a little.
  uint64_t weights = 0, largest = 0;
  for (const TensorInfo& tensor : container.tensors()) {
    if (tensor.section != section) continue;
    uint64_t elements = 1;
    for (const uint64_t size : tensor.shape) elements *= size;
    const uint64_t bytes = tensor.dtype == DType::kQ8C ? tensor.bytes + tensor.scales_bytes +
                                                             tensor.shape[0] * kPackedBytesPerOutput
                                                       : elements * sizeof(float);
    weights += bytes;
    largest = std::max(largest, bytes);
  }
  return weights == 0 ? 0 : weights + weights / 20 + 2 * largest + kTowerActivationBytes;
}

uint64_t PleRowBytes(const ContainerReader& container) {
  const TensorInfo* ple = container.FindTensor(names::kPleTable);
  return ple != nullptr ? (ple->bytes + ple->scales_bytes) / ple->shape[0] : 0;
}

Result<MemoryEstimate> EstimateMemory(const ContainerReader& container, const SliceConfig& slice,
                                      const MemoryQuery& query) {
  const HeaderFields& header = container.header();
  const TextConfig& config = header.text;
  RETURN_IF_ERROR(ValidateSlice(config, slice));
  ASSIGN_OR_RETURN(const uint32_t chunk, ResolveChunkTokens(query.chunk_tokens));
  ASSIGN_OR_RETURN(const uint32_t context, ResolveContextTokens(config, query.context_tokens));

  MemoryEstimate estimate;
  const WeightBytes weights = LoadedWeightBytes(container, SliceWidths(config, slice));
  estimate.mapped_weights = weights.mapped;
  estimate.packed_weights = weights.packed;

  // Address space only: it says its size without touching it.
  ASSIGN_OR_RETURN(const auto kv,
                   KvCache::Create(config, context, chunk, ResolveKvType(container, query.kv)));
  estimate.kv_cache = kv->capacity_bytes();
  estimate.scratch =
      ScratchPool::CallBytes(config, chunk, PleRowBytes(container)) + Session::FixedBytes(config);

  switch (query.ple_mode) {
    case PleMode::kStream:
      estimate.ple = RowCache::CapacityBytes(
          query.ple_cache_bytes != 0 ? query.ple_cache_bytes : kDefaultPleCacheBytes,
          PleRowBytes(container), config.ple_vocab_size);
      break;
    case PleMode::kResident:
    case PleMode::kMmap:  // as much as is touched, in the end all of it
      estimate.ple = SectionBytes(container, SectionKind::kPle);
      break;
  }
  if (query.vision) estimate.vision = TowerBytes(container, SectionKind::kVision);
  if (query.audio) estimate.audio = TowerBytes(container, SectionKind::kAudio);
  estimate.other =
      kProcessBytes + kTokenizerFactor * SectionBytes(container, SectionKind::kTokenizer);
  if (estimate.vision + estimate.audio != 0) estimate.other += TowersOptions().cache_bytes;
  return estimate;
}

uint64_t WeightBytesPerToken(const ContainerReader& container, const SliceConfig& slice) {
  uint64_t sum = 0;
  ForUsedTensors(
      container, SliceWidths(container.header().text, slice), [&sum](const UsedTensor& tensor) {
        sum += static_cast<uint64_t>(static_cast<double>(tensor.bytes) * tensor.read_per_token);
      });
  return sum;
}

kernels::KvType ResolveKvType(const ContainerReader& container, KvChoice wanted) {
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
  const TensorInfo* query = container.FindTensor(names::Layer(0, "self_attn.q_proj"));
  const bool reference = query != nullptr && query->dtype == DType::kF32;
  return reference ? kernels::KvType::kF32 : kernels::KvType::kF16;
}

}  // namespace nestling
