// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace nestling::testing {

// A sanitizer's allocator keeps what is freed: how much memory is resident or mapped says nothing.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
inline constexpr bool kKeepsFreedMemory = true;
#else
inline constexpr bool kKeepsFreedMemory = false;
#endif

}  // namespace nestling::testing
