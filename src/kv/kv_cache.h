// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/function_ref.h"
#include "base/lazy_memory.h"
#include "base/status.h"
#include "container/header_fields.h"
#include "kernels/attention/attention.h"

namespace nestling {

// Keys and values of one session. Layers are numbered as in the whole model, so every slice that
// keeps the owners of keys and values can share one cache. One writer, no reader meanwhile.
class KvCache {
 public:
  // Sliding layers keep window + chunk_tokens positions (at most context_tokens), because the
  // tokens of a chunk are written before the first of them looks back over its window.
  static Result<std::unique_ptr<KvCache>> Create(const TextConfig& config, uint32_t context_tokens,
                                                 uint32_t chunk_tokens, kernels::KvType type);

  // Stores `count` <= chunk_tokens consecutive positions of `layer`, which must own keys and
  // values: k, v [count, kv_heads, head_dim], k normalised and rotated, v normalised.
  void Write(uint32_t layer, uint32_t position, size_t count, const float* k, const float* v);

  // Where the positions [first, last] of a layer's kv head lie: one span, or two if the ring
  // wraps. A shared layer gives its source's. Returns the number of spans.
  size_t Spans(uint32_t layer, uint32_t kv_head, uint32_t first, uint32_t last,
               kernels::KvSpan spans[2]) const;

  // The layer whose keys and values `layer` reads: itself, or for a shared layer the last owner of
  // the same type.
  uint32_t source_layer(uint32_t layer) const { return sources_[layer]; }

  // First position that a query at `position` of `layer` sees.
  uint32_t FirstVisible(uint32_t layer, uint32_t position) const;

  // Whether, after positions up to `length` were written, the cache still holds everything that
  // a continuation from `new_length` <= length looks at.
  bool CanTruncate(uint32_t length, uint32_t new_length) const;

  // Gives pages back to the system; contents are lost.
  void Release();

  // Calls visit(memory) for each part of it.
  void VisitMemory(FunctionRef<void(std::span<const std::byte>)> visit) const;

  kernels::KvType type() const { return type_; }
  // Address space at full context; pages take memory as positions are written.
  uint64_t capacity_bytes() const;

 private:
  KvCache() = default;

  // One owner: K and V, each [kv_heads][slots][head_dim] and, for int8, [kv_heads][slots] scales.
  struct LayerStore {
    uint32_t slots = 0;  // position p lies in slot p % slots
    LazyMemory k, v, k_scales, v_scales;
  };

  void WriteRow(LayerStore& store, LazyMemory& rows, LazyMemory& scales, uint32_t kv_head,
                uint32_t slot, const float* row) const;

  TextConfig config_;
  kernels::KvType type_ = kernels::KvType::kF32;
  size_t row_bytes_ = 0;
  std::vector<LayerStore> owners_;
  std::vector<uint32_t> sources_;
};

}  // namespace nestling
