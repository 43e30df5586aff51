// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <new>
#include <utility>

#include "base/status.h"
#include "nestling/nestling.h"

namespace nestling {

// The words of the last failure on this thread; a failed create has no handle to hold them.
void ClearLastError();
void SetLastError(const Status& status);
// For failures whose message cannot be stored: `message` is a literal.
void SetLastErrorLiteral(const char* message) noexcept;

// Every extern "C" body runs inside Guard: nothing may unwind into C. Body: () -> Status.
template <typename Body>
nestling_status Guard(Body&& body) noexcept {
  try {
    ClearLastError();
    const Status status = std::forward<Body>(body)();
    if (status.ok()) {
      ClearLastError();  // callbacks may have made calls of their own that failed
    } else {
      SetLastError(status);
    }
    return static_cast<nestling_status>(status.code());
  } catch (const std::bad_alloc&) {
    SetLastErrorLiteral("out of memory");
    return NESTLING_OUT_OF_MEMORY;
  } catch (...) {
    SetLastErrorLiteral("an unexpected C++ exception");
    return NESTLING_INTERNAL;
  }
}

}  // namespace nestling
