// SPDX-License-Identifier: Apache-2.0
#include "ple/ple_batch.h"

#include <algorithm>
#include <chrono>
#include <numeric>

#include "base/math.h"

namespace nestling {
namespace {

constexpr size_t kSmallBatch = 16;  // tokens whose rows are kept in memory between calls

using Clock = std::chrono::steady_clock;

}  // namespace

Result<std::unique_ptr<PleBatch>> PleBatch::Create(PleStore& store, size_t max_tokens) {
  std::unique_ptr<PleBatch> batch(new PleBatch(store));
  batch->max_tokens_ = max_tokens;
  if (store.all_rows() == nullptr) {
    uint64_t bytes = 0;
    if (!CheckedMul(max_tokens, store.table().row_bytes(), &bytes)) {
      return OutOfMemory("PLE rows of ", max_tokens, " tokens");
    }
    ASSIGN_OR_RETURN(batch->memory_, LazyMemory::Create(static_cast<size_t>(bytes)));
  }
  return batch;
}

PleBatch::~PleBatch() { static_cast<void>(Wait()); }

void PleBatch::Start(std::span<const int32_t> ids, const PleSelection& selection) {
  NESTLING_DCHECK(!ids.empty() && ids.size() <= max_tokens_);
  static_cast<void>(Wait());
  const PleTable& table = store_.table();
  const size_t row_bytes = table.row_bytes();
  status_ = OkStatus();
  started_ = true;
  ids_.assign(ids.begin(), ids.end());
  if (selection_.layers != selection.layers) selection_ = selection;
  rows_.resize(ids.size());
  if (const std::byte* all = store_.all_rows()) {
    for (size_t i = 0; i < ids.size(); ++i) {
      rows_[i] = all + table.RowOf(ids[i]) * row_bytes;
    }
    counters_.rows += ids.size();
    return;
  }

  // In the order of the table: duplicates and neighbours meet.
  order_.resize(ids.size());
  std::iota(order_.begin(), order_.end(), 0u);
  std::sort(order_.begin(), order_.end(),
            [&](uint32_t a, uint32_t b) { return table.RowOf(ids[a]) < table.RowOf(ids[b]); });
  missed_.clear();
  requests_.clear();
  size_t distinct = 0;
  for (size_t i = 0; i < order_.size(); ++i) {
    const uint32_t row = table.RowOf(ids[order_[i]]);
    if (i == 0 || row != table.RowOf(ids[order_[i - 1]])) {
      if (store_.cache().Lookup(row, selection, memory_.data() + distinct * row_bytes)) {
        ++counters_.hits;
      } else {
        Miss(row, distinct, selection);
        ++counters_.misses;
      }
      ++distinct;
    }
    rows_[order_[i]] = memory_.data() + (distinct - 1) * row_bytes;
  }
  counters_.rows += distinct;
  if (requests_.empty()) return;
  Result<std::unique_ptr<RowReader>> reader = store_.TakeReader();
  if (!reader.ok()) {
    status_ = reader.status();
    return;
  }
  reader_ = std::move(reader).value();
  reader_->Start(requests_);
}

void PleBatch::Miss(uint32_t row, size_t distinct, const PleSelection& selection) {
  const size_t row_bytes = store_.table().row_bytes();
  const uint64_t offset = store_.table().RowOffset(row);
  std::byte* out = memory_.data() + distinct * row_bytes;
  missed_.push_back({row, distinct});
  counters_.bytes_read += selection.bytes;
  for (const ByteRange& part : selection.parts) {
    // Whole rows one after the other are one read.
    if (!requests_.empty()) {
      ReadRequest& last = requests_.back();
      if (last.offset + last.bytes == offset + part.begin &&
          last.out + last.bytes == out + part.begin) {
        last.bytes += part.end - part.begin;
        continue;
      }
    }
    requests_.push_back({offset + part.begin, out + part.begin, part.end - part.begin});
  }
}

bool PleBatch::Holds(std::span<const int32_t> ids, const PleSelection& selection) const {
  return started_ && status_.ok() && selection.layers == selection_.layers &&
         std::equal(ids.begin(), ids.end(), ids_.begin(), ids_.end());
}

Status PleBatch::Wait() {
  if (reader_ == nullptr) return status_;
  const Clock::time_point start = Clock::now();
  status_ = reader_->Wait();
  store_.ReturnReader(std::move(reader_));
  const auto waited = Clock::now() - start;
  counters_.wait_ns +=
      static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(waited).count());
  if (status_.ok()) {
    for (const Missed& missed : missed_) {
      store_.cache().Insert(missed.row, selection_,
                            memory_.data() + missed.distinct * store_.table().row_bytes());
    }
  }
  return status_;
}

void PleBatch::Trim() {
  static_cast<void>(Wait());
  if (ids_.size() <= kSmallBatch) return;
  memory_.Release();
  ids_.clear();
  started_ = false;
}

}  // namespace nestling
