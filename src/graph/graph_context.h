// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <xnnpack.h>

#include <memory>
#include <mutex>
#include <utility>

#include "base/status.h"
#include "base/thread_pool.h"
#include "graph/packed_weights.h"

namespace nestling {

// What the XNNPACK runtimes of one engine share. Blocks of several sessions may run at the same
// time: each run takes the lock, because a runtime holds its shapes and pointers.
class GraphContext {
 public:
  // `pool` is borrowed and must outlive the context. `packed` null: weights that are packed stay in
  // anonymous memory.
  static Result<std::unique_ptr<GraphContext>> Create(
      const ThreadPool& pool, std::unique_ptr<PackedWeights> packed = nullptr);
  ~GraphContext();
  GraphContext(const GraphContext&) = delete;
  GraphContext& operator=(const GraphContext&) = delete;

  const ThreadPool& pool() const { return pool_; }
  xnn_workspace_t workspace() const { return workspace_; }
  PackedWeights& packed_weights() { return *packed_weights_; }
  std::mutex& mutex() { return mutex_; }

 private:
  GraphContext(const ThreadPool& pool, std::unique_ptr<PackedWeights> packed)
      : pool_(pool), packed_weights_(std::move(packed)) {}

  const ThreadPool& pool_;
  const std::unique_ptr<PackedWeights> packed_weights_;
  xnn_workspace_t workspace_ = nullptr;
  std::mutex mutex_;
};

// kOk, kOutOfMemory, kUnsupported or kInternal with `what` failed.
Status XnnStatus(xnn_status status, const char* what);

}  // namespace nestling
