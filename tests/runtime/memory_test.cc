// SPDX-License-Identifier: Apache-2.0
// What the engine says that it will take, and what it chooses to stay within a budget.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cinttypes>
#include <cstdio>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "base/memory_info.h"
#include "model/slices.h"
#include "runtime/memory_budget.h"
#include "runtime/memory_estimate.h"
#include "runtime/scratch.h"
#include "runtime/session.h"
#include "runtime/slice_choice.h"
#include "tests/runtime/replies.h"
#include "tests/support/sanitizer.h"
#include "tests/support/tiny_model.h"

namespace nestling {
namespace {

using testing::GreedyOptions;
using testing::TemporaryPath;
using testing::TinyModelOptions;
using testing::WriteTinyModel;

// Tens of megabytes of weights, so that pages and bookkeeping do not matter.
TinyModelOptions LargeModel(DType dtype) {
  TinyModelOptions model;
  model.hidden_size = 256;
  model.shell_ends = {2048, 4096};
  model.vocab_size = 2048;
  model.ple_vocab_size = 256;
  model.dtype = model.embed_dtype = model.ple_dtype = dtype;
  SliceConfig small, skipping;
  small.name = "small";
  small.ffn.assign(model.num_layers, 2048);
  small.published_accuracy = 50;
  skipping.name = "skipping";
  skipping.skip_layers = {6, 7, 8};
  skipping.ffn.assign(model.num_layers - 3, 4096);
  skipping.published_accuracy = 55;
  model.slices = {small, skipping};
  const TextConfig text = TinyTextConfig(model);
  for (SliceConfig& slice : model.slices) {
    slice.effective_parameters = EffectiveParameters(text, slice);
  }
  return model;
}

std::vector<int32_t> Tokens(size_t count) {
  std::vector<int32_t> tokens;
  for (size_t i = 0; i < count; ++i) tokens.push_back(static_cast<int32_t>((i * 37 + 11) % 96));
  return tokens;
}

uint64_t EstimateTotal(const std::string& path, const std::string& slice,
                       const MemoryQuery& query = {}) {
  const auto container = ContainerReader::Open(path);
  EXPECT_TRUE(container.ok());
  const auto config = FindSlice((*container)->header(), slice);
  EXPECT_TRUE(config.ok());
  const auto estimate = EstimateMemory(**container, *config, query);
  EXPECT_TRUE(estimate.ok()) << estimate.status().message();
  return estimate.ok() ? estimate->total() : 0;
}

// ---- Estimates ----

TEST(MemoryEstimateTest, GroupsAreWhatTheEngineAllocates) {
  for (const DType dtype : {DType::kF32, DType::kQ8C, DType::kQ4B32}) {
    const TemporaryPath file;
    ASSERT_TRUE(WriteTinyModel(file.path(), LargeModel(dtype)).ok());
    for (const char* slice : {"whole", "small", "skipping"}) {
      EngineOptions options;
      options.num_threads = 1;
      options.slice = slice;
      const auto engine = Engine::Create(file.path(), options);
      ASSERT_TRUE(engine.ok()) << engine.status().message();
      const MemoryEstimate& estimate = (*engine)->slice_choice().memory;
      const EngineMemory memory = (*engine)->memory();
      EXPECT_LE(memory.packed_weights, estimate.packed_weights) << DTypeName(dtype) << slice;
      EXPECT_GE(static_cast<double>(memory.packed_weights) + (2 << 20),
                0.93 * static_cast<double>(estimate.packed_weights))
          << DTypeName(dtype) << slice;
      const auto session = Session::Create(**engine, {});
      ASSERT_TRUE(session.ok());
      EXPECT_EQ((*session)->counters().kv_bytes, estimate.kv_cache);
      ASSERT_TRUE((*session)->Prefill(Tokens(5)).ok());
      EXPECT_LE((*engine)->memory().scratch, estimate.scratch);
    }
  }
}

TEST(MemoryEstimateTest, TheProcessGrowsByNoMoreAndNotMuchLess) {
  const TemporaryPath file;
  ASSERT_TRUE(WriteTinyModel(file.path(), LargeModel(DType::kF32)).ok());
  const uint64_t before = ReadProcessMemory().resident;
  if (before == 0) GTEST_SKIP() << "the system does not say";
  EngineOptions options;
  options.num_threads = 1;
  const auto engine = Engine::Create(file.path(), options);
  ASSERT_TRUE(engine.ok());
  const auto session = Session::Create(**engine, {});
  ASSERT_TRUE(session.ok());
  ASSERT_TRUE((*session)->Prefill(Tokens(256)).ok());
  const uint64_t grown = ReadProcessMemory().resident - before;
  const MemoryEstimate& estimate = (*engine)->slice_choice().memory;
  EXPECT_LE(grown, estimate.total());
  // Scratch is for the worst case, and code was there before.
  EXPECT_GE(grown, (estimate.mapped_weights + estimate.packed_weights) / 10 * 9);
}

TEST(MemoryEstimateTest, GrowsWithWhatIsAskedFor) {
  const TemporaryPath file;
  ASSERT_TRUE(WriteTinyModel(file.path(), LargeModel(DType::kQ4B32)).ok());
  MemoryQuery query;
  query.context_tokens = 64;
  query.chunk_tokens = 32;
  const uint64_t base = EstimateTotal(file.path(), "whole", query);
  EXPECT_LT(EstimateTotal(file.path(), "skipping", query), base);
  EXPECT_LT(EstimateTotal(file.path(), "small", query), base);
  MemoryQuery more = query;
  more.context_tokens = 256;
  EXPECT_GT(EstimateTotal(file.path(), "whole", more), base);
  more = query;
  more.chunk_tokens = 256;
  EXPECT_GT(EstimateTotal(file.path(), "whole", more), base);
  more = query;
  more.kv = KvChoice::kF32;
  EXPECT_GT(EstimateTotal(file.path(), "whole", more), base);
  more = query;
  more.ple_cache_bytes = 1;
  EXPECT_LT(EstimateTotal(file.path(), "whole", more), base);

  const auto container = ContainerReader::Open(file.path());
  ASSERT_TRUE(container.ok());
  const SliceConfig whole = WholeModelSlice((*container)->header().text);
  more = query;
  more.context_tokens = 257;
  EXPECT_EQ(EstimateMemory(**container, whole, more).status().code(), StatusCode::kInvalidArgument);
  SliceConfig wrong = whole;
  wrong.ffn.pop_back();
  EXPECT_FALSE(EstimateMemory(**container, wrong, query).ok());
}

// ---- The budget ----

TEST(BudgetTest, TheBestSliceThatFitsIsChosen) {
  const TemporaryPath file;
  ASSERT_TRUE(WriteTinyModel(file.path(), LargeModel(DType::kF32)).ok());
  const uint64_t small = EstimateTotal(file.path(), "small");
  const uint64_t skipping = EstimateTotal(file.path(), "skipping");
  const uint64_t whole = EstimateTotal(file.path(), "whole");
  ASSERT_LT(small, skipping);
  ASSERT_LT(skipping, whole);
  const auto choose = [&](uint64_t budget, double rate) {
    EngineOptions options;
    options.num_threads = 1;
    options.memory_budget_bytes = budget;
    options.target_decode_rate = rate;
    return Engine::Create(file.path(), options);
  };
  // "whole" has no published accuracy: it is chosen by nobody who has a better reason.
  const auto all = choose(whole, 0);
  ASSERT_TRUE(all.ok());
  EXPECT_EQ((*all)->default_slice().name, "skipping");
  const std::string& reason = (*all)->slice_choice().reason;
  EXPECT_NE(reason.find("highest published accuracy (55.0 %) of 3"), std::string::npos) << reason;
  EXPECT_NE(reason.find(StrCat(skipping)), std::string::npos) << reason;
  EXPECT_EQ((*choose(skipping, 0))->default_slice().name, "skipping");
  EXPECT_EQ((*choose(skipping - 1, 0))->default_slice().name, "small");

  // No slice fits as it is: the PLE cache goes first, then the chunk gets smaller.
  const auto without_cache = choose(small - 1, 0);
  ASSERT_TRUE(without_cache.ok()) << without_cache.status().message();
  EXPECT_EQ((*without_cache)->default_slice().name, "small");
  EXPECT_EQ((*without_cache)->chunk_tokens(), 256u);
  EXPECT_EQ((*without_cache)->budget().counters().times,
            (std::array<uint64_t, kNumReclaimSteps>{1, 0, 0}));
  MemoryQuery smallest;
  smallest.ple_cache_bytes = kNoPleCache;
  const auto small_chunk = choose(EstimateTotal(file.path(), "small", smallest) - 1, 0);
  ASSERT_TRUE(small_chunk.ok());
  EXPECT_EQ((*small_chunk)->chunk_tokens(), 128u);
  EXPECT_EQ((*small_chunk)->wanted_chunk_tokens(), 256u);
  EXPECT_EQ((*small_chunk)->budget().counters().times,
            (std::array<uint64_t, kNumReclaimSteps>{1, 0, 1}));

  smallest.chunk_tokens = kMinChunkTokens;
  const uint64_t least = EstimateTotal(file.path(), "small", smallest);
  const auto fits = choose(least, 0);
  ASSERT_TRUE(fits.ok()) << fits.status().message();
  const auto none = choose(least - 1, 0);
  EXPECT_EQ(none.status().code(), StatusCode::kOutOfMemory);
  EXPECT_NE(none.status().message().find(StrCat("slice small needs ", least)), std::string::npos)
      << none.status().message();

  const auto slow = choose(0, 1e-3);
  ASSERT_TRUE(slow.ok());
  EXPECT_EQ((*slow)->default_slice().name, "skipping");
  EXPECT_GT((*slow)->slice_choice().decode_rate, 1.0);
  const auto fast = choose(0, 1e12);
  EXPECT_EQ(fast.status().code(), StatusCode::kOutOfMemory);
  EXPECT_NE(fast.status().message().find("slice small reaches"), std::string::npos)
      << fast.status().message();
}

TEST(BudgetTest, TheTargetRateDecidesByTheBytesOfATokensWeights) {
  const TemporaryPath file;
  ASSERT_TRUE(WriteTinyModel(file.path(), LargeModel(DType::kQ8C)).ok());
  const auto container = ContainerReader::Open(file.path());
  ASSERT_TRUE(container.ok());
  const auto candidates = CandidateSlices((*container)->header());
  ASSERT_EQ(candidates.size(), 3u);
  const auto choose = [&](double target) {
    SliceLimits limits;
    limits.target_decode_rate = target;
    auto fitting = FindFittingSlices(**container, candidates, limits, {});
    EXPECT_TRUE(fitting.ok());
    return BestSlice(**container, std::move(fitting->slices), limits, 1e9);
  };
  const double skipping = 1e9 / static_cast<double>(WeightBytesPerToken(
                                    **container, *FindSlice((*container)->header(), "skipping")));
  EXPECT_EQ(choose(skipping * 0.999)->slice.name, "skipping");
  EXPECT_EQ(choose(skipping * 1.001)->slice.name, "small");
}

TEST(BudgetTest, ANamedSliceAndASessionThatDoNotFitAreRefused) {
  const TemporaryPath file;
  ASSERT_TRUE(WriteTinyModel(file.path(), LargeModel(DType::kQ4B32)).ok());
  MemoryQuery query;
  query.context_tokens = 64;
  query.chunk_tokens = kMinChunkTokens;
  query.ple_cache_bytes = kNoPleCache;
  const uint64_t needed = EstimateTotal(file.path(), "whole", query);
  EngineOptions options;
  options.num_threads = 1;
  options.slice = "whole";
  options.budget_context_tokens = 64;
  options.memory_budget_bytes = needed - 1;
  const auto refused = Engine::Create(file.path(), options);
  EXPECT_EQ(refused.status().code(), StatusCode::kOutOfMemory);
  EXPECT_NE(refused.status().message().find(StrCat(needed)), std::string::npos);

  options.memory_budget_bytes = needed;
  const auto engine = Engine::Create(file.path(), options);
  ASSERT_TRUE(engine.ok()) << engine.status().message();
  SessionOptions wide, fitting;
  wide.context_tokens = 256;
  fitting.context_tokens = 64;
  EXPECT_EQ(Session::Create(**engine, wide).status().code(), StatusCode::kOutOfMemory);
  for (int i = 0; i < 3; ++i) {  // each gives back what it took
    const auto session = Session::Create(**engine, fitting);
    ASSERT_TRUE(session.ok()) << session.status().message();
    const Status second = Session::Create(**engine, fitting).status();
    EXPECT_EQ(second.code(), StatusCode::kOutOfMemory);
    EXPECT_NE(second.message().find("with this session the engine needs"), std::string::npos);
  }
}

// ---- Pressure ----

class RecordingReclaimer final : public Reclaimer {
 public:
  RecordingReclaimer(std::string name, uint64_t held, uint64_t least, std::string& log)
      : name_(std::move(name)), held_(held), wanted_(held), least_(least), log_(log) {}
  uint64_t held_bytes() const override { return held_; }
  uint64_t reclaimable_bytes() const override { return held_ - least_; }
  void Reclaim(uint64_t bytes) override {
    held_ -= std::min(bytes, held_ - least_);
    log_ += StrCat(name_, " gives ", bytes, "; ");
  }
  void Regrow(uint64_t bytes) override {
    if (held_ < wanted_) log_ += StrCat(name_, " gets ", bytes, "; ");
    held_ = std::min(wanted_, held_ + bytes);
  }

 private:
  std::string name_;
  uint64_t held_;
  const uint64_t wanted_, least_;
  std::string& log_;
};

TEST(MemoryBudgetTest, StepsComeInTheirOrderAndGoBackInTheOther) {
  std::string log;
  RecordingReclaimer cache("cache", 100, 10, log), towers("towers", 50, 0, log),
      chunk("chunk", 40, 20, log);
  MemoryBudget budget(300);
  budget.SetReclaimer(ReclaimStep::kChunk, &chunk);
  budget.SetReclaimer(ReclaimStep::kPleCache, &cache);
  budget.SetReclaimer(ReclaimStep::kTowers, &towers);
  const auto grow = [&](uint64_t bytes) {
    return budget.Grow(
        "it", [bytes](uint64_t& fixed) { fixed += bytes; },
        [bytes](uint64_t& fixed) { fixed -= bytes; });
  };
  EXPECT_TRUE(grow(110).ok());
  EXPECT_EQ(budget.used_bytes(), 300u);
  EXPECT_EQ(log, "");
  // More than there is: refused with the number, and nothing was given up for it.
  const Status refused = grow(161);
  EXPECT_EQ(refused.code(), StatusCode::kOutOfMemory);
  EXPECT_NE(refused.message().find("with it the engine needs 301"), std::string::npos)
      << refused.message();
  EXPECT_EQ(log, "");
  EXPECT_EQ(budget.used_bytes(), 300u);
  EXPECT_TRUE(grow(160).ok());
  EXPECT_EQ(log, "cache gives 160; towers gives 70; chunk gives 20; ");
  EXPECT_EQ(budget.used_bytes(), 300u);
  EXPECT_EQ(budget.counters().times, (std::array<uint64_t, 3>{1, 1, 1}));
  EXPECT_EQ(budget.counters().bytes, (std::array<uint64_t, 3>{90, 50, 20}));
  log.clear();
  budget.Shrink([](uint64_t& fixed) { fixed -= 100; });
  EXPECT_EQ(log, "chunk gets 100; towers gets 80; cache gets 30; ");
  EXPECT_EQ(budget.used_bytes(), 300u);
}

TEST(MemoryBudgetTest, WithoutALimitNothingIsGivenUp) {
  std::string log;
  RecordingReclaimer cache("cache", 100, 0, log);
  MemoryBudget budget(0);
  budget.SetReclaimer(ReclaimStep::kPleCache, &cache);
  EXPECT_TRUE(budget.Grow("it", [](uint64_t& fixed) { fixed = uint64_t{1} << 60; }, {}).ok());
  EXPECT_EQ(log, "");
}

TEST(BudgetTest, ASecondSessionMakesTheFirstOnesChunksSmallerAndGivesThemBack) {
  const TemporaryPath file;
  TinyModelOptions model = LargeModel(DType::kQ4B32);
  model.ple_vocab_size = 2048;
  ASSERT_TRUE(WriteTinyModel(file.path(), model).ok());
  EngineOptions options;
  options.num_threads = 1;
  options.slice = "whole";
  options.memory_budget_bytes = EstimateTotal(file.path(), "whole");
  const auto engine = Engine::Create(file.path(), options);
  ASSERT_TRUE(engine.ok());
  const auto first = Session::Create(**engine, {});
  ASSERT_TRUE(first.ok()) << first.status().message();
  ASSERT_TRUE((*first)->Prefill(Tokens(100)).ok());
  const uint64_t cache = (*engine)->memory().ple_cache;
  EXPECT_EQ((*first)->chunk_tokens(), 256u);
  EXPECT_EQ((*engine)->budget().counters().times[0], 0u);
  {
    const auto second = Session::Create(**engine, {});
    ASSERT_TRUE(second.ok()) << second.status().message();
    EXPECT_LT((*engine)->memory().ple_cache, cache);
    EXPECT_LT((*first)->chunk_tokens(), 256u);
    EXPECT_LE((*engine)->budget().used_bytes(), options.memory_budget_bytes);
    EXPECT_EQ((*engine)->budget().counters().times, (std::array<uint64_t, 3>{1, 0, 1}));
    ASSERT_TRUE((*second)->Prefill(Tokens(100)).ok());
    ASSERT_TRUE((*first)->Prefill(Tokens(100)).ok());
    ASSERT_TRUE((*first)->Generate(GreedyOptions(5), {}).ok());
  }
  EXPECT_EQ((*first)->chunk_tokens(), 256u);
  EXPECT_EQ((*engine)->memory().ple_cache, cache);
  // Chunks of any size: the same tokens.
  const auto other = Session::Create(**engine, {});
  ASSERT_TRUE(other.ok());
  ASSERT_TRUE((*other)->Prefill(Tokens(100)).ok());
  ASSERT_TRUE((*other)->Prefill(Tokens(100)).ok());
  ASSERT_TRUE((*other)->Generate(GreedyOptions(5), {}).ok());
  const auto want = (*first)->tokens(), got = (*other)->tokens();
  EXPECT_TRUE(std::equal(want.begin(), want.end(), got.begin(), got.end()));
}

TEST(BudgetTest, ASliceWhoseWeightsGoBeyondTheBudgetIsRefusedAndTheSessionGoesOn) {
  const TemporaryPath file;
  ASSERT_TRUE(WriteTinyModel(file.path(), LargeModel(DType::kQ8C)).ok());
  EngineOptions options;
  options.num_threads = 1;
  options.slice = "small";
  // Nothing to give back.
  options.chunk_tokens = kMinChunkTokens;
  options.ple_cache_bytes = kNoPleCache;
  MemoryQuery query;
  query.chunk_tokens = kMinChunkTokens;
  query.ple_cache_bytes = kNoPleCache;
  options.memory_budget_bytes = EstimateTotal(file.path(), "small", query);
  const auto engine = Engine::Create(file.path(), options);
  ASSERT_TRUE(engine.ok());
  const auto session = Session::Create(**engine, {});
  ASSERT_TRUE(session.ok());
  ASSERT_TRUE((*session)->Prefill(Tokens(20)).ok());
  const SliceConfig whole = WholeModelSlice((*engine)->text_config());
  const Status refused = (*session)->SetSlice(whole);
  EXPECT_EQ(refused.code(), StatusCode::kOutOfMemory);
  EXPECT_NE(refused.message().find("the weights of another slice"), std::string::npos);
  GenerateOptions drafting = GreedyOptions(4);
  drafting.draft_slice = "whole";
  EXPECT_EQ((*session)->Generate(drafting, {}).status().code(), StatusCode::kOutOfMemory);
  EXPECT_EQ((*session)->slice().name, "small");
  EXPECT_TRUE((*session)->Generate(GreedyOptions(4), {}).ok());
}

TEST(BudgetTest, TheProcessStaysWithinTheBudgetInARunThatUsesAllOfIt) {
  for (const DType dtype : {DType::kF32, DType::kQ8C, DType::kQ4B32}) {
    const TemporaryPath file;
    TinyModelOptions model = LargeModel(dtype);
    model.ple_vocab_size = 2048;
    ASSERT_TRUE(WriteTinyModel(file.path(), model).ok());
    const uint64_t before = ReadProcessMemory().resident;
    if (before == 0) GTEST_SKIP() << "the system does not say";
    EngineOptions options;
    options.num_threads = 1;
    options.slice = "small";
    options.memory_budget_bytes = EstimateTotal(file.path(), "whole") + (8 << 20);
    const auto engine = Engine::Create(file.path(), options);
    ASSERT_TRUE(engine.ok());
    std::vector<std::unique_ptr<Session>> sessions;
    uint64_t most = 0;
    const auto look = [&] {
      most = std::max(most, ReadProcessMemory().resident - before);
      EXPECT_LE(most, options.memory_budget_bytes) << DTypeName(dtype);
    };
    // As many sessions as there is room for, each filled, then a larger slice.
    while (sessions.size() < 20) {
      auto session = Session::Create(**engine, {});
      if (!session.ok()) break;
      sessions.push_back(std::move(session).value());
      ASSERT_TRUE(sessions.back()->Prefill(Tokens(200)).ok());
      ASSERT_TRUE(sessions.back()->Generate(GreedyOptions(5), {}).ok());
      look();
    }
    EXPECT_GE(sessions.size(), 2u);
    sessions.resize(1);
    ASSERT_TRUE(sessions[0]->SetSlice(WholeModelSlice((*engine)->text_config())).ok());
    ASSERT_TRUE(sessions[0]->Generate(GreedyOptions(30), {}).ok());
    look();
    EXPECT_GE(most, options.memory_budget_bytes / 3) << "the test would notice nothing";
  }
}

// ---- Pages ----

// Resident pages of this process within [begin, end) of a mapped file, by /proc: which pages the
// file has in the page cache does not matter.
size_t ResidentPages(const std::string& name, uint64_t begin, uint64_t end) {
  const uint64_t page = static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  const int pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
  if (pagemap < 0) return SIZE_MAX;
  std::ifstream maps("/proc/self/maps");
  size_t resident = 0;
  bool found = false;
  for (std::string line; std::getline(maps, line);) {
    if (line.find(name) == std::string::npos) continue;
    uint64_t first = 0, last = 0, offset = 0;
    if (std::sscanf(line.c_str(), "%" SCNx64 "-%" SCNx64 " %*s %" SCNx64, &first, &last, &offset) !=
        3) {
      continue;
    }
    found = true;
    for (uint64_t address = first; address < last; address += page) {
      const uint64_t at = address - first + offset;
      if (at < begin || at + page > end) continue;
      uint64_t entry = 0;
      if (pread(pagemap, &entry, sizeof(entry), static_cast<off_t>(address / page * 8)) != 8) {
        resident = SIZE_MAX;
        break;
      }
      resident += entry >> 63;
    }
  }
  close(pagemap);
  return found ? resident : SIZE_MAX;
}

TEST(SlicePagesTest, WeightsThatASliceDoesNotUseAreNeverTouched) {
  for (const DType dtype : {DType::kQ8C, DType::kF32}) {  // read in place; packed
    const TemporaryPath file;
    TinyModelOptions model = LargeModel(dtype);
    ASSERT_TRUE(WriteTinyModel(file.path(), model).ok());
    const std::string name = file.path().substr(file.path().rfind('/') + 1);
    const auto pages = [&](const Engine& engine, const char* tensor, uint32_t layer) {
      const TensorInfo& info = *engine.container().FindTensor(names::Layer(layer, tensor));
      const uint64_t begin =
          engine.container().FindSection(SectionKind::kText)->offset + info.offset;
      // The system maps up to 64 KiB around a page that is touched.
      constexpr uint64_t kAround = 64 << 10;
      EXPECT_GT(info.bytes, 4 * kAround);
      return ResidentPages(name, begin + kAround, begin + info.bytes - kAround);
    };
    EngineOptions options;
    options.num_threads = 1;
    options.slice = "skipping";
    const auto engine = Engine::Create(file.path(), options);
    ASSERT_TRUE(engine.ok());
    const auto session = Session::Create(**engine, {});
    ASSERT_TRUE(session.ok());
    ASSERT_TRUE((*session)->Prefill(Tokens(20)).ok());
    if (pages(**engine, "mlp.gate_proj", 7) == SIZE_MAX) GTEST_SKIP() << "no /proc/self/pagemap";
    for (const char* tensor : {"mlp.gate_proj", "mlp.down_proj"}) {
      EXPECT_EQ(pages(**engine, tensor, 7), 0u) << DTypeName(dtype) << " " << tensor;
      // The test can fail: a layer that runs in place is resident.
      const bool in_place =
          (*engine)->container().FindTensor(names::Layer(5, tensor))->layout == Layout::kTiled;
      if (in_place) {
        EXPECT_GT(pages(**engine, tensor, 5), 0u);
      }
    }
    EXPECT_LT((*engine)->memory().loaded_parameters,
              (*engine)->header().slices[1].effective_parameters);
    ASSERT_TRUE((*session)->SetSlice(WholeModelSlice((*engine)->text_config())).ok());
    ASSERT_TRUE((*session)->Prefill(Tokens(20)).ok());
    if ((*engine)->container().FindTensor(names::Layer(7, "mlp.gate_proj"))->layout ==
        Layout::kTiled) {
      EXPECT_GT(pages(**engine, "mlp.gate_proj", 7), 0u);
    }
  }
}

// ---- Switching ----

TEST(SliceSwitchTest, AThousandSwitchesLeaveMemoryAndResultsAlone) {
  TinyModelOptions model;
  SliceConfig small, wide;
  small.name = "small";
  small.skip_layers = {6, 8};
  small.ffn.assign(model.num_layers - 2, 64);
  wide.name = "wide";
  wide.ffn.assign(model.num_layers, 64);
  wide.ffn[2] = wide.ffn[7] = 128;
  model.slices = {small, wide};
  const TemporaryPath file;
  ASSERT_TRUE(WriteTinyModel(file.path(), model).ok());
  EngineOptions options;
  options.num_threads = 1;
  const auto engine = Engine::Create(file.path(), options);
  ASSERT_TRUE(engine.ok());
  const SliceConfig slices[] = {WholeModelSlice((*engine)->text_config()), small, wide};
  const auto session = Session::Create(**engine, {});
  ASSERT_TRUE(session.ok());
  ASSERT_TRUE((*session)->Prefill(Tokens(4)).ok());

  GenerateOptions one;
  one.max_tokens = 1;
  one.ignore_stop_tokens = true;
  one.sampling.temperature = 0;
  std::vector<size_t> used;  // by generated token
  uint64_t packed = 0, scratch = 0, resident = 0;
  for (size_t i = 0; i < 1000; ++i) {
    if ((*session)->num_tokens() == 200) {  // the context's end: begin anew
      (*session)->Reset();
      used.clear();
      ASSERT_TRUE((*session)->SetSlice(slices[0]).ok());
      ASSERT_TRUE((*session)->Prefill(Tokens(4)).ok());
    }
    const size_t slice = (i * 7 + i / 5) % 3;
    ASSERT_TRUE((*session)->SetSlice(slices[slice]).ok());
    ASSERT_TRUE((*session)->Generate(one, {}).ok());
    used.push_back(slice);
    if (i == 200) {  // every buffer has been used
      packed = (*engine)->memory().packed_weights;
      scratch = (*engine)->memory().scratch;
      resident = ReadProcessMemory().resident;
    }
  }
  EXPECT_EQ((*engine)->memory().packed_weights, packed);
  EXPECT_EQ((*engine)->memory().scratch, scratch);
  if (!testing::kKeepsFreedMemory) {
    EXPECT_LE(ReadProcessMemory().resident, resident + (256 << 10));
  }

  // The same history, slice by slice, in a fresh session: the same tokens and logits.
  const auto fresh = Session::Create(**engine, {});
  ASSERT_TRUE(fresh.ok());
  ASSERT_TRUE((*fresh)->Prefill(Tokens(4)).ok());
  for (const size_t slice : used) {
    ASSERT_TRUE((*fresh)->SetSlice(slices[slice]).ok());
    ASSERT_TRUE((*fresh)->Generate(one, {}).ok());
  }
  const auto want = (*fresh)->tokens(), got = (*session)->tokens();
  EXPECT_TRUE(std::equal(want.begin(), want.end(), got.begin(), got.end()));
  const std::span<const float> a = *(*fresh)->Logits(), b = *(*session)->Logits();
  EXPECT_TRUE(std::equal(a.begin(), a.end(), b.begin(), b.end()));
}

TEST(SliceSwitchTest, SessionsRunDifferentSlicesAtTheSameTime) {
  TinyModelOptions model;
  SliceConfig small;
  small.name = "small";
  small.skip_layers = {6, 8};
  small.ffn.assign(model.num_layers - 2, 64);
  model.slices = {small};
  const TemporaryPath file;
  ASSERT_TRUE(WriteTinyModel(file.path(), model).ok());
  EngineOptions options;
  options.num_threads = 2;
  options.slice = "small";  // the whole model's layers load while the other session runs
  const auto alone = [&](const Engine& engine, const SliceConfig& slice) {
    std::vector<int32_t> ids;
    const auto session = Session::Create(engine, {});
    EXPECT_TRUE(session.ok());
    EXPECT_TRUE((*session)->SetSlice(slice).ok());
    EXPECT_TRUE((*session)->Prefill(Tokens(12)).ok());
    GenerateOptions generate;
    generate.max_tokens = 40;
    generate.ignore_stop_tokens = true;
    generate.sampling.temperature = 0;
    EXPECT_TRUE((*session)
                    ->Generate(generate,
                               [&](const GeneratedToken& token) {
                                 ids.push_back(token.id);
                                 return true;
                               })
                    .ok());
    return ids;
  };
  const auto first = Engine::Create(file.path(), options);
  ASSERT_TRUE(first.ok());
  const SliceConfig whole = WholeModelSlice((*first)->text_config());
  const auto want_small = alone(**first, small), want_whole = alone(**first, whole);
  EXPECT_NE(want_small, want_whole);
  const auto engine = Engine::Create(file.path(), options);
  ASSERT_TRUE(engine.ok());
  std::vector<int32_t> got_small, got_whole;
  std::thread a([&] { got_small = alone(**engine, small); });
  std::thread b([&] { got_whole = alone(**engine, whole); });
  a.join();
  b.join();
  EXPECT_EQ(got_small, want_small);
  EXPECT_EQ(got_whole, want_whole);
}

}  // namespace
}  // namespace nestling
