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

// Allocations of one reply between its tokens `from` and the last; `result` is the reply's.
size_t AllocationsOfReply(const testing::TinyModelOptions& model, const GenerateOptions& options,
                          size_t from, GenerateResult* result) {
  const testing::TemporaryPath file;
  EXPECT_TRUE(testing::WriteTinyModel(file.path(), model).ok());
  const auto engine = Engine::Create(file.path(), {.num_threads = 2});
  EXPECT_TRUE(engine.ok()) << engine.status().message();
  const auto session = Session::Create(**engine, {});
  EXPECT_TRUE(session.ok());
  const std::vector<int32_t> prompt = {2, 5, 9, 33};
  EXPECT_TRUE((*session)->Prefill(prompt).ok());
  size_t seen = 0, first = 0, last = 0;
  const auto generated = (*session)->Generate(options, [&](const GeneratedToken&) {
    if (++seen == from) first = g_allocations;
    last = g_allocations;
    return true;
  });
  EXPECT_TRUE(generated.ok()) << generated.status().message();
  EXPECT_EQ(seen, options.max_tokens);
  EXPECT_GT(first, 0u);  // the counter counts
  *result = *generated;
  return last - first;
}

TEST(AllocationTest, DecodeAllocatesNothingAfterTheFirstToken) {
  for (const DType dtype : {DType::kF32, DType::kQ8C, DType::kQ4C, DType::kQ4B32}) {
    for (const bool tiles : {false, true}) {
      testing::TinyModelOptions model;
      model.dtype = model.embed_dtype = model.ple_dtype = dtype;
      model.tiles = tiles;
      GenerateOptions options;
      options.max_tokens = 40;
      options.ignore_stop_tokens = true;
      options.sampling.top_k = 20;
      options.sampling.top_p = 0.9f;
      GenerateResult result;
      EXPECT_EQ(AllocationsOfReply(model, options, /*from=*/2, &result), 0u)
          << DTypeName(dtype) << (tiles ? " in tiles" : "");
    }
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
    GenerateOptions options;
    options.max_tokens = 120;
    options.ignore_stop_tokens = true;
    options.sampling.top_p = 0.9f;
    options.sampling.repetition_penalty = 1.1f;
    options.draft_slice = "small";
    GenerateResult result;
    EXPECT_EQ(AllocationsOfReply(model, options, /*from=*/20, &result), 0u) << DTypeName(dtype);
    EXPECT_GT(result.num_drafted, 50u);
  }
}

}  // namespace
}  // namespace nestling
