// SPDX-License-Identifier: Apache-2.0
#include "cli/interrupt.h"

#include <signal.h>
#include <unistd.h>

#include <atomic>

namespace nestling::cli {
namespace {

constexpr int kInterrupted = 128 + SIGINT;  // what shells report

std::atomic<nestling_session*> g_session{nullptr};
static_assert(std::atomic<nestling_session*>::is_always_lock_free, "used in a signal handler");

void OnInterrupt(int) {
  nestling_session* session = g_session.exchange(nullptr);
  if (session == nullptr) _exit(kInterrupted);
  nestling_session_cancel(session);
}

}  // namespace

InterruptCancels::InterruptCancels(Session& session) {
  g_session.store(session.get());
  struct sigaction action = {};
  action.sa_handler = &OnInterrupt;
  action.sa_flags = SA_RESTART;
  sigaction(SIGINT, &action, nullptr);
}

InterruptCancels::~InterruptCancels() {
  g_session.store(nullptr);
  struct sigaction action = {};
  action.sa_handler = SIG_DFL;
  sigaction(SIGINT, &action, nullptr);
}

}  // namespace nestling::cli
