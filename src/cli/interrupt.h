// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "nestling/nestling.hpp"

namespace nestling::cli {

// While one lives, Ctrl-C cancels what `session` is doing; the second Ctrl-C, or one without a
// session at work, ends the process. One at a time.
class InterruptCancels {
 public:
  explicit InterruptCancels(Session& session);
  ~InterruptCancels();
  InterruptCancels(const InterruptCancels&) = delete;
  InterruptCancels& operator=(const InterruptCancels&) = delete;
};

}  // namespace nestling::cli
