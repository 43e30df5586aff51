// SPDX-License-Identifier: Apache-2.0
// Decode allocates nothing once it runs: every allocation function of this binary, the ones that
// XNNPACK and our layers call included, goes through a counter (-Wl,--wrap).
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <new>

#include "runtime/session.h"
#include "tests/support/tiny_model.h"

namespace {
std::atomic<size_t> g_allocations{0};
}  // namespace

extern "C" {
void* __real_malloc(size_t);
void* __real_calloc(size_t, size_t);
void* __real_realloc(void*, size_t);
int __real_posix_memalign(void**, size_t, size_t);
void* __real_aligned_alloc(size_t, size_t);

void* __wrap_malloc(size_t bytes) {
  ++g_allocations;
  return __real_malloc(bytes);
}
void* __wrap_calloc(size_t count, size_t bytes) {
  ++g_allocations;
  return __real_calloc(count, bytes);
}
void* __wrap_realloc(void* memory, size_t bytes) {
  ++g_allocations;
  return __real_realloc(memory, bytes);
}
int __wrap_posix_memalign(void** memory, size_t alignment, size_t bytes) {
  ++g_allocations;
  return __real_posix_memalign(memory, alignment, bytes);
}
void* __wrap_aligned_alloc(size_t alignment, size_t bytes) {
  ++g_allocations;
  return __real_aligned_alloc(alignment, bytes);
}
}

void* operator new(size_t bytes) {
  ++g_allocations;
  if (void* memory = __real_malloc(bytes)) return memory;
  throw std::bad_alloc();
}
// Not inlined: gcc would see memory of new go to free.
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, size_t) noexcept { std::free(memory); }

namespace nestling {
namespace {

TEST(AllocationTest, DecodeAllocatesNothingAfterTheFirstToken) {
  for (const DType dtype : {DType::kF32, DType::kQ8C, DType::kQ4C, DType::kQ4B32}) {
    testing::TinyModelOptions model;
    model.dtype = model.embed_dtype = model.ple_dtype = dtype;
    const testing::TemporaryPath file;
    ASSERT_TRUE(testing::WriteTinyModel(file.path(), model).ok());
    const auto engine = Engine::Create(file.path(), {.num_threads = 2});
    ASSERT_TRUE(engine.ok()) << engine.status().message();
    const auto session = Session::Create(**engine, {});
    ASSERT_TRUE(session.ok());
    const std::vector<int32_t> prompt = {2, 5, 9, 33};
    ASSERT_TRUE((*session)->Prefill(prompt).ok());

    GenerateOptions options;
    options.max_tokens = 40;
    options.ignore_stop_tokens = true;
    options.sampling.top_k = 20;
    options.sampling.top_p = 0.9f;
    size_t seen = 0, after_first = 0, at_end = 0;
    const auto result = (*session)->Generate(options, [&](const GeneratedToken&) {
      if (++seen == 2) after_first = g_allocations;
      at_end = g_allocations;
      return true;
    });
    ASSERT_TRUE(result.ok()) << result.status().message();
    EXPECT_EQ(seen, 40u);
    EXPECT_GT(after_first, 0u);  // the counter counts
    EXPECT_EQ(at_end, after_first) << DTypeName(dtype);
  }
}

TEST(AllocationTest, DraftingAllocatesNothingAfterTheFirstRounds) {
  for (const DType dtype : {DType::kF32, DType::kQ4B32}) {
    testing::TinyModelOptions model;
    model.dtype = model.embed_dtype = model.ple_dtype = dtype;
    SliceConfig small;
    small.name = "small";
    small.skip_layers = {7};
    small.ffn.assign(model.num_layers - 1, model.shell_ends.front());
    model.slices = {small};
    const testing::TemporaryPath file;
    ASSERT_TRUE(testing::WriteTinyModel(file.path(), model).ok());
    const auto engine = Engine::Create(file.path(), {.num_threads = 2});
    ASSERT_TRUE(engine.ok()) << engine.status().message();
    const auto session = Session::Create(**engine, {});
    ASSERT_TRUE(session.ok());
    const std::vector<int32_t> prompt = {2, 5, 9, 33};
    ASSERT_TRUE((*session)->Prefill(prompt).ok());

    GenerateOptions options;
    options.max_tokens = 120;
    options.ignore_stop_tokens = true;
    options.sampling.top_p = 0.9f;
    options.sampling.repetition_penalty = 1.1f;
    options.draft_slice = "small";
    size_t seen = 0, after_first = 0, at_end = 0;
    const auto result = (*session)->Generate(options, [&](const GeneratedToken&) {
      if (++seen == 20) after_first = g_allocations;
      at_end = g_allocations;
      return true;
    });
    ASSERT_TRUE(result.ok()) << result.status().message();
    EXPECT_EQ(seen, 120u);
    EXPECT_GT(result->num_drafted, 50u);
    EXPECT_EQ(at_end, after_first) << DTypeName(dtype);
  }
}

}  // namespace
}  // namespace nestling
