// SPDX-License-Identifier: Apache-2.0
#include "cli/machine_limits.h"

#include <algorithm>
#include <barrier>
#include <chrono>
#include <cstddef>
#include <thread>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__) && defined(__linux__)
#include <arm_neon.h>
#include <sys/auxv.h>
#endif

namespace nestling::cli {
namespace {

using Clock = std::chrono::steady_clock;

constexpr size_t kRuns = 5;
constexpr size_t kReadBytes = 128 << 20;  // far beyond any cache
constexpr size_t kSteps = 200000;         // of a register loop: some milliseconds

// Keeps the compiler from dropping what computed `value`.
template <typename T>
void Use(const T& value) {
  asm volatile("" : : "m"(value) : "memory");
}

// Seconds that `num_threads` threads take for work(thread) each: the median of kRuns.
template <typename Work>
double MedianSeconds(uint32_t num_threads, const Work& work) {
  std::barrier barrier(num_threads);
  std::vector<double> seconds;
  const auto run = [&](uint32_t thread) {
    for (size_t i = 0; i < kRuns; ++i) {
      barrier.arrive_and_wait();
      const Clock::time_point start = Clock::now();
      work(thread);
      barrier.arrive_and_wait();
      if (thread != 0) continue;
      seconds.push_back(std::chrono::duration<double>(Clock::now() - start).count());
    }
  };
  std::vector<std::thread> threads;
  for (uint32_t thread = 1; thread < num_threads; ++thread) threads.emplace_back(run, thread);
  run(0);
  for (std::thread& thread : threads) thread.join();
  std::nth_element(seconds.begin(), seconds.begin() + kRuns / 2, seconds.end());
  return seconds[kRuns / 2];
}

double MeasureReading(uint32_t num_threads) {
  const std::vector<uint64_t> memory(kReadBytes / sizeof(uint64_t), 1);
  const auto read = [&](uint32_t thread) {
    constexpr size_t kLine = 8;  // numbers of a cache line
    const size_t lines = memory.size() / kLine;
    const size_t end = lines * (thread + 1) / num_threads * kLine;
    uint64_t sums[kLine] = {};
    for (size_t i = lines * thread / num_threads * kLine; i < end; i += kLine) {
      for (size_t j = 0; j < kLine; ++j) sums[j] += memory[i + j];
    }
    Use(sums);
  };
  return static_cast<double>(kReadBytes) / MedianSeconds(num_threads, read);
}

// ---- Register loops: kSteps times kChains independent products; return the operations done ----

constexpr size_t kChains = 12;

#if defined(__x86_64__)

__attribute__((target("avx512f,avx512vnni"))) double MultiplyVnni() {
  __m512i sums[kChains];
  for (__m512i& sum : sums) sum = _mm512_setzero_si512();
  __m512i a = _mm512_set1_epi32(0x01020304), b = _mm512_set1_epi32(0x04030201);
  for (size_t step = 0; step < kSteps; ++step) {
    asm volatile("" : "+v"(a), "+v"(b));
#pragma GCC unroll 12
    for (size_t i = 0; i < kChains; ++i) sums[i] = _mm512_dpbusd_epi32(sums[i], a, b);
  }
  Use(sums);
  return 2.0 * 64 * kChains * kSteps;
}

// Products of bytes without VNNI: to 16 bit, to 32 bit, then added.
__attribute__((target("avx2"))) double MultiplyAvx2() {
  __m256i sums[kChains];
  for (__m256i& sum : sums) sum = _mm256_setzero_si256();
  __m256i a = _mm256_set1_epi32(0x01020304), b = _mm256_set1_epi32(0x04030201);
  const __m256i ones = _mm256_set1_epi16(1);
  for (size_t step = 0; step < kSteps; ++step) {
#pragma GCC unroll 12
    for (size_t i = 0; i < kChains; ++i) {
      asm volatile("" : "+x"(a), "+x"(b));
      const __m256i pairs = _mm256_madd_epi16(_mm256_maddubs_epi16(a, b), ones);
      sums[i] = _mm256_add_epi32(sums[i], pairs);
    }
  }
  Use(sums);
  return 2.0 * 32 * kChains * kSteps;
}

using Loop = double (*)();
Loop BestLoop() {
  if (__builtin_cpu_supports("avx512vnni")) return &MultiplyVnni;
  if (__builtin_cpu_supports("avx2")) return &MultiplyAvx2;
  return nullptr;
}

#elif defined(__aarch64__) && defined(__linux__)

__attribute__((target("arch=armv8.2-a+dotprod"))) double MultiplyDot() {
  int32x4_t sums[kChains];
  for (int32x4_t& sum : sums) sum = vdupq_n_s32(0);
  int8x16_t a = vdupq_n_s8(3), b = vdupq_n_s8(2);
  for (size_t step = 0; step < kSteps; ++step) {
    asm volatile("" : "+w"(a), "+w"(b));
#pragma GCC unroll 12
    for (size_t i = 0; i < kChains; ++i) sums[i] = vdotq_s32(sums[i], a, b);
  }
  Use(sums);
  return 2.0 * 16 * kChains * kSteps;
}

using Loop = double (*)();
Loop BestLoop() {
  constexpr unsigned long kDotProducts = 1ul << 20;  // HWCAP_ASIMDDP
  return (getauxval(AT_HWCAP) & kDotProducts) != 0 ? &MultiplyDot : nullptr;
}

#else

using Loop = double (*)();
Loop BestLoop() { return nullptr; }

#endif

double MeasureInt8(uint32_t num_threads) {
  const Loop loop = BestLoop();
  if (loop == nullptr) return 0;
  const double operations = loop();  // wakes the wide registers
  return operations * num_threads / MedianSeconds(num_threads, [loop](uint32_t) { loop(); });
}

}  // namespace

MachineLimits MeasureMachineLimits(uint32_t num_threads) {
  return {MeasureReading(num_threads), MeasureInt8(num_threads)};
}

}  // namespace nestling::cli
