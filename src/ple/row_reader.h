// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "base/file.h"
#include "base/status.h"
#include "ple/storage_calls.h"

namespace nestling {

// One positional read. Readers advance it over what has arrived.
struct ReadRequest {
  uint64_t offset;  // in the descriptor's file
  std::byte* out;
  size_t bytes;
};

// Reads batches of requests in the background, one batch at a time. One thread at a time.
class RowReader {
 public:
  virtual ~RowReader() = default;  // waits for a running batch

  // Starts a batch, after the last one was waited for. `requests` and the memory that they name
  // must stay until Wait() has returned. What the page cache holds is read here, the rest is only
  // asked for.
  virtual void Start(std::span<ReadRequest> requests) = 0;

  // Blocks until every request of the batch has ended. After an error too, nothing writes to the
  // batch's memory any more, and the reader can be used again unless usable() says no.
  // kIoError: the system's error, or a file that ended early.
  virtual Status Wait() = 0;

  // False once the mechanism itself has failed.
  virtual bool usable() const { return true; }
};

// Turns the result of a read into progress of `request`. True: it has ended, well or with
// `*status`; false: it goes on with what is left. `retries` counts results without progress.
bool Advance(ReadRequest& request, int64_t result, const File& file, unsigned* retries,
             Status* status);

}  // namespace nestling
