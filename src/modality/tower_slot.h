// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <new>
#include <system_error>
#include <thread>
#include <utility>

#include "base/memory_info.h"
#include "base/status.h"

namespace nestling {

enum class TowerState {
  kAbsent,    // the container has none
  kUnloaded,  // nothing of it is in memory
  kLoading,   // its section is mapped, its graphs are being built
  kReady,
};

struct TowerCounters {
  uint64_t loads = 0;
  uint64_t unloads = 0;
  double load_seconds = 0;    // of the last load
  uint64_t encodes = 0;       // images, or clips of sound
  double encode_seconds = 0;  // of all of them
};

// A tower that is loaded when it is first needed and let go on request. Users hold a lease, so that
// an encoding that runs keeps its tower. Thread-safe.
template <typename Tower>
class TowerSlot {
 public:
  using Clock = std::chrono::steady_clock;
  using Lease = std::shared_ptr<Tower>;
  // Makes the tower, all or nothing. Called on any thread, once at a time.
  using Loader = std::function<Result<std::unique_ptr<Tower>>()>;

  // `name` is for messages: "vision".
  TowerSlot(const char* name, bool present, Loader loader)
      : name_(name),
        loader_(std::move(loader)),
        state_(present ? TowerState::kUnloaded : TowerState::kAbsent) {}
  ~TowerSlot() {
    if (background_.joinable()) background_.join();
  }
  TowerSlot(const TowerSlot&) = delete;
  TowerSlot& operator=(const TowerSlot&) = delete;

  // Loads the tower if it is not there, or waits for whoever does.
  Result<Lease> Acquire() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return state_ != TowerState::kLoading; });
    if (state_ == TowerState::kUnloaded) {
      state_ = TowerState::kLoading;
      lock.unlock();
      // Whoever lets it go from here on, this use has it.
      return Load();
    }
    if (state_ == TowerState::kAbsent) return Absent();
    last_use_ = Clock::now();
    return tower_;
  }

  // Begins to load in another thread and returns. What goes wrong there is found by the next
  // Acquire, which tries again.
  Status LoadInBackground() {
    const std::lock_guard lock(mutex_);
    if (state_ == TowerState::kAbsent) return Absent();
    if (state_ != TowerState::kUnloaded) return OkStatus();
    if (background_.joinable()) background_.join();  // it has ended, or state_ were kLoading
    try {
      background_ = std::thread([this] { static_cast<void>(Load()); });
    } catch (const std::system_error&) {
      return OutOfMemory(name_, " tower: cannot start a thread that loads it");
    }
    state_ = TowerState::kLoading;
    return OkStatus();
  }

  // Lets the tower go; false if there was none. Its memory is free when its last user is done.
  bool Unload() {
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [this] { return state_ != TowerState::kLoading; });
    }
    return UnloadIf([](const Lease&) { return true; });
  }

  bool IsIdle() const {
    const std::lock_guard lock(mutex_);
    return state_ == TowerState::kReady && tower_.use_count() == 1;
  }

  // The same unless it is in use, being loaded, or was used after `since`; does not wait: a load
  // may want the memory of another tower.
  bool UnloadIfIdle(Clock::time_point since = Clock::time_point::max()) {
    return UnloadIf(
        [&](const Lease& tower) { return tower.use_count() == 1 && last_use_ <= since; });
  }

  // An encoding has just ended: the time that the tower is idle begins.
  void NoteEncode(Clock::time_point start, bool success) {
    const std::lock_guard lock(mutex_);
    last_use_ = Clock::now();
    if (!success) return;
    ++counters_.encodes;
    counters_.encode_seconds += std::chrono::duration<double>(last_use_ - start).count();
  }

  TowerState state() const {
    const std::lock_guard lock(mutex_);
    return state_;
  }
  TowerCounters counters() const {
    const std::lock_guard lock(mutex_);
    return counters_;
  }
  Clock::time_point last_use() const {
    const std::lock_guard lock(mutex_);
    return last_use_;
  }
  // Of the last load, also of one in the background.
  StatusCode load_status() const {
    const std::lock_guard lock(mutex_);
    return load_status_;
  }
  // The tower if it is ready, to look at; null otherwise.
  Lease Peek() const {
    const std::lock_guard lock(mutex_);
    return tower_;
  }

 private:
  // From kLoading to kReady, or back to kUnloaded.
  Result<Lease> Load() {
    const Clock::time_point start = Clock::now();
    Result<std::unique_ptr<Tower>> made = [this]() -> Result<std::unique_ptr<Tower>> {
      try {
        return loader_();
      } catch (const std::bad_alloc&) {
        return OutOfMemory("no memory for the ", name_, " tower");
      }
    }();
    const std::lock_guard lock(mutex_);
    state_ = TowerState::kUnloaded;
    load_status_ = made.status().code();
    if (made.ok()) {
      tower_ = std::move(*made);
      state_ = TowerState::kReady;
      last_use_ = Clock::now();
      ++counters_.loads;
      counters_.load_seconds = std::chrono::duration<double>(last_use_ - start).count();
    }
    changed_.notify_all();
    if (!made.ok()) return made.status();
    return tower_;
  }

  template <typename Condition>
  bool UnloadIf(const Condition& condition) {
    Lease gone;
    {
      const std::lock_guard lock(mutex_);
      if (state_ != TowerState::kReady || !condition(tower_)) return false;
      gone = std::move(tower_);
      tower_ = nullptr;
      state_ = TowerState::kUnloaded;
      ++counters_.unloads;
    }
    gone.reset();
    ReturnFreeMemory();
    return true;
  }

  Status Absent() const { return Unsupported("the container has no ", name_, " tower"); }

  const char* const name_;
  const Loader loader_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;  // state_ is no longer kLoading
  TowerState state_;
  Lease tower_;
  Clock::time_point last_use_;
  TowerCounters counters_;
  StatusCode load_status_ = StatusCode::kOk;
  std::thread background_;
};

}  // namespace nestling
