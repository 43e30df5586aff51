// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "base/lazy_memory.h"
#include "base/status.h"
#include "ple/ple_store.h"

namespace nestling {

// The rows of one chunk of tokens: asked for early, waited for when a layer needs them. One thread
// at a time. Allocates only when a batch is larger than all before it.
class PleBatch {
 public:
  // `store` is borrowed. A batch has at most `max_tokens` tokens.
  static Result<std::unique_ptr<PleBatch>> Create(PleStore& store, size_t max_tokens);
  ~PleBatch();

  // Asks for the parts of the rows of `ids` (not empty) that `selection` names; what was asked for
  // before is forgotten. An error shows in Wait().
  void Start(std::span<const int32_t> ids, const PleSelection& selection);

  // Whether Start was called with these last, and has not failed.
  bool Holds(std::span<const int32_t> ids, const PleSelection& selection) const;

  // Blocks until all rows are here; again, it returns the same. kIoError: the rows are not there.
  Status Wait();

  // The row of token `index`, after Wait() was OK; valid until the next Start or Trim.
  const std::byte* row(size_t index) const { return rows_[index]; }

  // Waits, and gives the memory of a large batch back.
  void Trim();

  std::span<const std::byte> memory() const { return {memory_.data(), memory_.size()}; }

  const PleCounters& counters() const { return counters_; }

 private:
  explicit PleBatch(PleStore& store) : store_(store) {}

  // Row number `distinct` of the batch is not in the cache.
  void Miss(uint32_t row, size_t distinct, const PleSelection& selection);

  PleStore& store_;
  size_t max_tokens_ = 0;
  LazyMemory memory_;                   // [max_tokens, row_bytes], distinct rows in ascending order
  std::vector<const std::byte*> rows_;  // by token
  std::vector<int32_t> ids_;
  std::vector<uint32_t> order_;  // tokens in the order of their rows
  PleSelection selection_;
  struct Missed {
    uint32_t row;
    size_t distinct;
  };
  std::vector<Missed> missed_;
  std::vector<ReadRequest> requests_;
  std::unique_ptr<RowReader> reader_;  // while requests_ are being read
  Status status_;
  bool started_ = false;
  PleCounters counters_;
};

}  // namespace nestling
