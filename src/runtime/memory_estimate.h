// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/status.h"
#include "container/reader.h"
#include "kernels/attention/attention.h"
#include "runtime/engine.h"

namespace nestling {

// What is going to be run. Zeros are the defaults of engine and session.
struct MemoryQuery {
  uint32_t context_tokens = 0;
  uint32_t chunk_tokens = 0;
  KvChoice kv = KvChoice::kAuto;
  PleMode ple_mode = PleMode::kStream;
  uint64_t ple_cache_bytes = 0;
  bool vision = false;  // with the tower, if the container has it
  bool audio = false;
};

// Most bytes that an engine with one session keeps resident, by group. Groups do not overlap.
struct MemoryEstimate {
  uint64_t mapped_weights = 0;  // read in place: clean pages of the file
  uint64_t packed_weights = 0;  // copies in XNNPACK's layout
  uint64_t kv_cache = 0;        // at full context
  uint64_t scratch = 0;         // activations of a whole chunk, logits, PLE rows of two chunks
  uint64_t ple = 0;             // row cache, or the resident table
  uint64_t vision = 0;
  uint64_t audio = 0;
  uint64_t other = 0;  // tokenizer, code, bookkeeping

  uint64_t total() const {
    return mapped_weights + packed_weights + kv_cache + scratch + ple + vision + audio + other;
  }
};

// Bytes of one token's row of the PLE table.
uint64_t PleRowBytes(const ContainerReader& container);

// Most that a tower takes: its weights as it computes with them, activations, and what making it
// takes for a while.
uint64_t TowerBytes(const ContainerReader& container, SectionKind section);

// What weights take, by the neurons that are loaded of each layer of the whole model (0: the layer
// is not).
struct WeightBytes {
  uint64_t mapped = 0;
  uint64_t packed = 0;
};
WeightBytes LoadedWeightBytes(const ContainerReader& container, std::span<const uint32_t> widths);
// Those numbers for a slice that the model can run.
std::vector<uint32_t> SliceWidths(const TextConfig& config, const SliceConfig& slice);

// Reads the header only. kInvalidArgument for a slice that the model cannot run, a context or a
// chunk out of range.
Result<MemoryEstimate> EstimateMemory(const ContainerReader& container, const SliceConfig& slice,
                                      const MemoryQuery& query);

// Bytes of weights that one decoded token reads: every weight of the slice once, the embedding as
// the output head; of a sparse layer's up and down projection what active neurons need.
uint64_t WeightBytesPerToken(const ContainerReader& container, const SliceConfig& slice);

// f32 for unquantised containers (the reference), f16 otherwise.
kernels::KvType ResolveKvType(const ContainerReader& container, KvChoice wanted);

}  // namespace nestling
