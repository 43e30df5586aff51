// SPDX-License-Identifier: Apache-2.0
#include "kv/kv_cache.h"

#include <algorithm>
#include <cstring>

#include "base/math.h"
#include "kernels/convert/convert.h"

namespace nestling {
namespace {

size_t ElementBytes(kernels::KvType type) {
  switch (type) {
    case kernels::KvType::kF32:
      return 4;
    case kernels::KvType::kF16:
      return 2;
    case kernels::KvType::kInt8:
      return 1;
  }
  return 4;
}

}  // namespace

Result<std::unique_ptr<KvCache>> KvCache::Create(const TextConfig& config, uint32_t context_tokens,
                                                 uint32_t chunk_tokens, kernels::KvType type) {
  std::unique_ptr<KvCache> cache(new KvCache);
  cache->config_ = config;
  cache->type_ = type;
  cache->row_bytes_ = ElementBytes(type) * config.head_dim;
  const uint32_t first_shared = config.first_kv_shared_layer();
  for (uint32_t layer = 0; layer < config.num_layers(); ++layer) {
    uint32_t source = layer;
    if (layer >= first_shared) {
      source = first_shared - 1;  // a validated configuration has an owner of each type
      while (config.layers[source].type != config.layers[layer].type) --source;
    }
    cache->sources_.push_back(source);
  }
  for (uint32_t layer = 0; layer < first_shared; ++layer) {
    const bool sliding = config.layers[layer].type == LayerType::kSliding;
    const uint64_t ring = uint64_t{config.sliding_window} + chunk_tokens;
    LayerStore store;
    store.slots = static_cast<uint32_t>(sliding ? std::min<uint64_t>(ring, context_tokens)
                                                : uint64_t{context_tokens});
    uint64_t rows = 0, bytes = 0;
    if (!CheckedMul(store.slots, config.num_kv_heads, &rows) ||
        !CheckedMul(rows, cache->row_bytes_, &bytes)) {
      return OutOfMemory("a kv cache of ", context_tokens, " tokens");
    }
    ASSIGN_OR_RETURN(store.k, LazyMemory::Create(bytes));
    ASSIGN_OR_RETURN(store.v, LazyMemory::Create(bytes));
    if (type == kernels::KvType::kInt8) {
      ASSIGN_OR_RETURN(store.k_scales, LazyMemory::Create(rows * sizeof(float)));
      ASSIGN_OR_RETURN(store.v_scales, LazyMemory::Create(rows * sizeof(float)));
    }
    cache->owners_.push_back(std::move(store));
  }
  return cache;
}

void KvCache::WriteRow(LayerStore& store, LazyMemory& rows, LazyMemory& scales, uint32_t kv_head,
                       uint32_t slot, const float* row) const {
  const size_t index = size_t{kv_head} * store.slots + slot;
  std::byte* target = rows.data() + index * row_bytes_;
  switch (type_) {
    case kernels::KvType::kF32:
      std::memcpy(target, row, row_bytes_);
      break;
    case kernels::KvType::kF16:
      kernels::NarrowHalf(row, reinterpret_cast<uint16_t*>(target), config_.head_dim);
      break;
    case kernels::KvType::kInt8:
      kernels::QuantizeInt8(row, reinterpret_cast<int8_t*>(target),
                            reinterpret_cast<float*>(scales.data()) + index, config_.head_dim);
      break;
  }
}

void KvCache::Write(uint32_t layer, uint32_t position, size_t count, const float* k,
                    const float* v) {
  LayerStore& store = owners_[layer];
  for (size_t i = 0; i < count; ++i) {
    const uint32_t slot = static_cast<uint32_t>((position + i) % store.slots);
    for (uint32_t head = 0; head < config_.num_kv_heads; ++head) {
      const size_t row = (i * config_.num_kv_heads + head) * config_.head_dim;
      WriteRow(store, store.k, store.k_scales, head, slot, k + row);
      WriteRow(store, store.v, store.v_scales, head, slot, v + row);
    }
  }
}

size_t KvCache::Spans(uint32_t layer, uint32_t kv_head, uint32_t first, uint32_t last,
                      kernels::KvSpan spans[2]) const {
  const LayerStore& store = owners_[sources_[layer]];
  size_t num_spans = 0;
  uint32_t position = first;
  while (position <= last) {
    const uint32_t slot = position % store.slots;
    const uint32_t count = std::min(last - position + 1, store.slots - slot);
    const size_t row = size_t{kv_head} * store.slots + slot;
    kernels::KvSpan& span = spans[num_spans++];
    span.first_position = position;
    span.count = count;
    span.k = store.k.data() + row * row_bytes_;
    span.v = store.v.data() + row * row_bytes_;
    const bool scaled = type_ == kernels::KvType::kInt8;
    span.k_scales = scaled ? reinterpret_cast<const float*>(store.k_scales.data()) + row : nullptr;
    span.v_scales = scaled ? reinterpret_cast<const float*>(store.v_scales.data()) + row : nullptr;
    position += count;
  }
  return num_spans;
}

uint32_t KvCache::FirstVisible(uint32_t layer, uint32_t position) const {
  if (config_.layers[layer].type == LayerType::kFull) return 0;
  return position + 1 > config_.sliding_window ? position + 1 - config_.sliding_window : 0;
}

bool KvCache::CanTruncate(uint32_t length, uint32_t new_length) const {
  for (uint32_t layer = 0; layer < owners_.size(); ++layer) {
    // The next query, at new_length, is the one that looks back furthest.
    const uint32_t first = FirstVisible(layer, new_length);
    const uint32_t oldest = length > owners_[layer].slots ? length - owners_[layer].slots : 0;
    if (first < oldest) return false;
  }
  return true;
}

void KvCache::Release() {
  for (LayerStore& store : owners_) {
    for (LazyMemory* memory : {&store.k, &store.v, &store.k_scales, &store.v_scales}) {
      memory->Release();
    }
  }
}

void KvCache::VisitMemory(FunctionRef<void(std::span<const std::byte>)> visit) const {
  for (const LayerStore& store : owners_) {
    for (const LazyMemory* memory : {&store.k, &store.v, &store.k_scales, &store.v_scales}) {
      visit({memory->data(), memory->size()});
    }
  }
}

uint64_t KvCache::capacity_bytes() const {
  uint64_t bytes = 0;
  for (const LayerStore& store : owners_) {
    bytes += store.k.size() + store.v.size() + store.k_scales.size() + store.v_scales.size();
  }
  return bytes;
}

}  // namespace nestling
