// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <chrono>

namespace nestling {

inline void CpuRelax() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("isb" ::: "memory");
#endif
}

// How long one thread spins before it sleeps. Spinning in vain halves it, spinning that paid
// doubles it: an idle or busy machine loses a few microseconds to it, a running decode step none.
class SpinBudget {
 public:
  using Clock = std::chrono::steady_clock;

  // Spins until ready() or the budget is used up; returns whether ready() was seen.
  template <typename Ready>
  bool Spin(const Ready& ready) {
    if (ready()) return true;
    const Clock::time_point end = Clock::now() + budget_;
    do {
      for (int i = 0; i < kPauses; ++i) {
        CpuRelax();
        if (ready()) {
          budget_ = std::min(budget_ * 2, kMost);
          return true;
        }
      }
    } while (Clock::now() < end);
    budget_ = std::max(budget_ / 2, kLeast);
    return false;
  }

 private:
  static constexpr int kPauses = 16;  // between two looks at the clock
  // The work between two regions of a decode step takes up to about 20 us.
  static constexpr Clock::duration kMost = std::chrono::microseconds(64);
  static constexpr Clock::duration kLeast = std::chrono::microseconds(4);

  Clock::duration budget_ = kMost;
};

}  // namespace nestling
