// SPDX-License-Identifier: Apache-2.0
// What every kernel test needs: rows with a guard behind them, seeded numbers, and a fixture that
// runs once per variant of a table.
#pragma once

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <new>
#include <random>
#include <string>
#include <vector>

#include "kernels/isa.h"

namespace nestling::kernels {

inline constexpr float kEpsilon = std::numeric_limits<float>::epsilon();
inline constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

// n elements that end where an inaccessible page begins: touching element n ends the test program,
// also in vector code that no sanitizer sees. The begin is as misaligned as n makes it.
template <typename T>
class GuardedRow {
 public:
  explicit GuardedRow(size_t n) : size_(n) {
    const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    const size_t usable = (n * sizeof(T) + page - 1) / page * page;
    mapped_bytes_ = usable + page;
    void* base =
        mmap(nullptr, mapped_bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base == MAP_FAILED) throw std::bad_alloc();
    base_ = static_cast<std::byte*>(base);
    if (mprotect(base_ + usable, page, PROT_NONE) != 0) throw std::bad_alloc();
    data_ = reinterpret_cast<T*>(base_ + usable - n * sizeof(T));
  }
  explicit GuardedRow(const std::vector<T>& values) : GuardedRow(values.size()) {
    for (size_t i = 0; i < size_; ++i) data_[i] = values[i];
  }
  ~GuardedRow() { munmap(base_, mapped_bytes_); }
  GuardedRow(const GuardedRow&) = delete;
  GuardedRow& operator=(const GuardedRow&) = delete;

  T* data() { return data_; }
  const T* data() const { return data_; }
  size_t size() const { return size_; }
  T& operator[](size_t i) { return data_[i]; }
  const T& operator[](size_t i) const { return data_[i]; }

 private:
  size_t size_;
  size_t mapped_bytes_;
  std::byte* base_;
  T* data_;
};

inline std::vector<float> RandomFloats(size_t n, uint32_t seed, float magnitude = 1.0f) {
  std::mt19937 random(seed);
  std::uniform_real_distribution<float> uniform(-magnitude, magnitude);
  std::vector<float> values(n);
  for (float& value : values) value = uniform(random);
  return values;
}

// Every tail length of every vector width, then the widths of Gemma 3n and one more that is odd.
inline std::vector<size_t> RowSizes() {
  std::vector<size_t> sizes;
  for (size_t n = 1; n <= 67; ++n) sizes.push_back(n);
  for (size_t n : {255u, 256u, 2048u, 2049u, 8192u}) sizes.push_back(n);
  return sizes;
}

// Bound on the relative error of an f32 sum of n terms, relative to the sum of their magnitudes:
// roundings are as good as random, so that they add up like a random walk of n steps, each below
// half an epsilon; the factor leaves room for four times that.
inline float SumTolerance(size_t n) {
  return (2.0f * std::sqrt(static_cast<float>(n)) + 4.0f) * kEpsilon;
}

inline double MeanSquareInDouble(const float* x, size_t n) {
  double sum = 0.0;
  for (size_t i = 0; i < n; ++i) sum += static_cast<double>(x[i]) * x[i];
  return sum / static_cast<double>(n);
}

inline double GeluInDouble(double x) {
  const double pi = std::acos(-1.0);
  return 0.5 * x * (1.0 + std::tanh(std::sqrt(2.0 / pi) * (x + 0.044715 * x * x * x)));
}

// One test per variant of a table; skips those that this CPU cannot run.
template <typename Kernel>
class KernelTest : public testing::TestWithParam<const Kernel*> {
 protected:
  void SetUp() override {
    if ((kernel().needs_isa & ~AvailableIsa()) != 0) GTEST_SKIP() << "not on this CPU";
  }
  const Kernel& kernel() const { return *this->GetParam(); }
};

struct KernelName {
  template <typename Info>
  std::string operator()(const Info& info) const {
    return info.param->name;
  }
};

}  // namespace nestling::kernels
