// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>

#include "base/status.h"
#include "c_api/arguments.h"
#include "c_api/guard.h"
#include "modality/sound_recording.h"
#include "nestling/nestling.h"
#include "runtime/conversation.h"
#include "runtime/engine.h"
#include "runtime/session.h"

// Shared with its sessions: languages with garbage collection destroy in any order.
struct nestling_engine {
  std::shared_ptr<const nestling::Engine> engine;
};

struct nestling_session {
  nestling_session(std::shared_ptr<const nestling::Engine> its_engine,
                   std::unique_ptr<nestling::Session> its_session)
      : engine(std::move(its_engine)), session(std::move(its_session)), conversation(*session) {}

  std::shared_ptr<const nestling::Engine> engine;
  std::unique_ptr<nestling::Session> session;
  nestling::Conversation conversation;
  nestling_kv_type kv_type = NESTLING_KV_AUTO;  // in use
  double first_token_seconds = 0;               // of the last generate

  std::mutex in_use;                    // held by the call that runs
  std::atomic<std::thread::id> user{};  // its thread
  bool destroy_when_unused = false;     // touched by that thread only
};

// The engine outlives its streams, which hold its audio tower while they record.
struct nestling_audio_stream {
  std::shared_ptr<const nestling::Engine> engine;
  std::unique_ptr<nestling::SoundRecording> recording;  // null once it is finished
  std::optional<nestling::Media> media;                 // then
  size_t num_samples = 0;
  std::mutex in_use;  // held by the call that runs
};

namespace nestling {

// A call's use of a session. Two calls at once are the caller's mistake, which costs him a status
// instead of his memory.
class SessionUse {
 public:
  enum class Inside { kForbidden, kAllowed };  // in a callback of the call that runs

  SessionUse(nestling_session& session, Inside inside) : session_(session) {
    if (session_.user.load() == std::this_thread::get_id()) {
      if (inside == Inside::kForbidden) {
        status_ = FailedPrecondition("session: not allowed in one of its own callbacks");
      }
    } else if (session_.in_use.try_lock()) {
      session_.user.store(std::this_thread::get_id());
      locked_ = true;
    } else {
      status_ = FailedPrecondition("session: another thread is using it");
    }
  }
  ~SessionUse() {
    if (!locked_) return;
    const bool destroy = session_.destroy_when_unused;
    session_.user.store(std::thread::id());
    session_.in_use.unlock();
    if (destroy) delete &session_;
  }
  SessionUse(const SessionUse&) = delete;
  SessionUse& operator=(const SessionUse&) = delete;

  const Status& status() const { return status_; }

 private:
  nestling_session& session_;
  Status status_;
  bool locked_ = false;
};

// Guard for calls on a session. Body: (nestling_session&) -> Status.
template <typename Body>
nestling_status GuardSession(const nestling_session* session, SessionUse::Inside inside,
                             Body&& body) noexcept {
  return Guard([&]() -> Status {
    RETURN_IF_ERROR(RequireNotNull(session, "session"));
    // Handles are const for callers that only look; the lock is ours.
    auto& handle = const_cast<nestling_session&>(*session);
    SessionUse use(handle, inside);
    RETURN_IF_ERROR(use.status());
    return body(handle);
  });
}

}  // namespace nestling
