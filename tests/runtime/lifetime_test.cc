// SPDX-License-Identifier: Apache-2.0
// Engines that come and go leave nothing behind; files that go while an engine uses them.
#include <gtest/gtest.h>
#include <unistd.h>

#include <array>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/memory_info.h"
#include "modality/towers.h"
#include "runtime/memory_budget.h"
#include "runtime/memory_estimate.h"
#include "runtime/session.h"
#include "tests/runtime/replies.h"
#include "tests/support/multimodal_model.h"
#include "tests/support/sanitizer.h"
#include "tests/support/tiny_model.h"

namespace nestling {
namespace {

using testing::GetMultimodalExpected;
using testing::GreedyOptions;
using testing::TemporaryPath;

size_t CountLines(const char* path) {
  std::ifstream file(path);
  size_t lines = 0;
  for (std::string line; std::getline(file, line);) ++lines;
  return lines;
}

size_t OpenDescriptors() {
  std::error_code error;
  size_t count = 0;
  for (std::filesystem::directory_iterator at("/proc/self/fd", error), end; !error && at != end;
       at.increment(error)) {
    ++count;
  }
  return count;
}

TEST(EngineLifetimeTest, CyclesLeaveMemoryDescriptorsAndMappingsAsTheyWere) {
  const std::string model = std::string(NESTLING_SOURCE_DIR) + "/models/fledgling.nest";
  const auto cycle = [&model](bool run) {
    const auto engine = Engine::Create(model, {.num_threads = 2});
    ASSERT_TRUE(engine.ok()) << engine.status().message();
    if (!run) return;
    const auto session = Session::Create(**engine, {});
    ASSERT_TRUE(session.ok());
    const std::vector<int32_t> tokens = {2, 5, 9};
    ASSERT_TRUE((*session)->Prefill(tokens).ok());
    ASSERT_TRUE((*session)->Generate(GreedyOptions(2), {}).ok());
  };
  for (int i = 0; i < 50; ++i) cycle(i % 10 == 0);  // what is made once is there
  ReturnFreeMemory();
  const uint64_t resident = ReadProcessMemory().resident;
  const size_t descriptors = OpenDescriptors(), mappings = CountLines("/proc/self/maps");
  for (int i = 0; i < 300; ++i) cycle(i % 10 == 0);
  ReturnFreeMemory();
  EXPECT_EQ(OpenDescriptors(), descriptors);
  if (testing::kKeepsFreedMemory) return;
  EXPECT_LE(CountLines("/proc/self/maps"), mappings + 2);  // of the allocator
  // A kilobyte for each cycle would be seen.
  EXPECT_LE(ReadProcessMemory().resident, resident + (256 << 10));
}

TEST(EngineLifetimeTest, AFileThatIsDeletedInUseWorksOn) {
  const TemporaryPath file, kept;
  ASSERT_TRUE(testing::WriteTinyModel(file.path(), {}).ok());
  std::filesystem::copy_file(file.path(), kept.path());
  const auto engine = Engine::Create(file.path(), {.num_threads = 1, .ple_cache_bytes = 1});
  ASSERT_TRUE(engine.ok());
  std::filesystem::remove(file.path());
  const auto other = Engine::Create(kept.path(), {.num_threads = 1});
  ASSERT_TRUE(other.ok());
  std::vector<int32_t> tokens[2];
  const Engine* const engines[] = {engine->get(), other->get()};
  for (size_t i = 0; i < 2; ++i) {
    const auto session = Session::Create(*engines[i], {});
    ASSERT_TRUE(session.ok());
    const std::vector<int32_t> prompt = {2, 40, 41, 42};
    ASSERT_TRUE((*session)->Prefill(prompt).ok());
    ASSERT_TRUE((*session)->Generate(GreedyOptions(20), {}).ok());
    tokens[i].assign((*session)->tokens().begin(), (*session)->tokens().end());
  }
  EXPECT_EQ(tokens[0], tokens[1]);
}

// ---- Towers under a budget ----

TEST(TowerBudgetTest, AnIdleTowerGoesBeforeChunksGetSmaller) {
  const TemporaryPath file;
  ASSERT_TRUE(testing::WriteMultimodalModel(file.path()).ok());
  const auto container = ContainerReader::Open(file.path());
  ASSERT_TRUE(container.ok());
  const HeaderFields& header = (*container)->header();
  const auto whole = ResolveSlice(header, "");
  ASSERT_TRUE(whole.ok());
  const auto text = EstimateMemory(**container, *whole, {});
  const auto with_tower = EstimateMemory(**container, *whole, {.vision = true});
  const auto with_both = EstimateMemory(**container, *whole, {.vision = true, .audio = true});
  ASSERT_TRUE(text.ok() && with_tower.ok() && with_both.ok());
  ASSERT_GT(with_tower->total(), text->total());

  EngineOptions options;
  options.num_threads = 2;
  // Room for one tower, whichever it is.
  options.memory_budget_bytes = with_both->total() - with_both->vision + (1 << 20);
  if (with_both->vision > with_both->audio) {
    options.memory_budget_bytes = with_both->total() - with_both->audio + (1 << 20);
  }
  const auto engine = Engine::Create(file.path(), options);
  ASSERT_TRUE(engine.ok()) << engine.status().message();
  const auto session = Session::Create(**engine, {});
  ASSERT_TRUE(session.ok());
  Towers& towers = (*engine)->towers();
  const auto& expected = GetMultimodalExpected();
  ASSERT_TRUE(towers.EncodePixels(expected.pixels).ok());
  EXPECT_EQ((*engine)->budget().counters().times, (std::array<uint64_t, 3>{0, 0, 0}));
  const auto sound = towers.EncodeSound(expected.waveform);
  ASSERT_TRUE(sound.ok()) << sound.status().message();
  EXPECT_EQ(towers.Info(TowerKind::kVision).state, TowerState::kUnloaded);
  EXPECT_EQ(towers.Info(TowerKind::kAudio).state, TowerState::kReady);
  const auto counters = (*engine)->budget().counters();
  EXPECT_EQ(counters.times[static_cast<size_t>(ReclaimStep::kTowers)], 1u);
  EXPECT_EQ(counters.times[static_cast<size_t>(ReclaimStep::kChunk)], 0u);
  EXPECT_EQ((*engine)->chunk_tokens(), 256u);
  EXPECT_LE((*engine)->budget().used_bytes(), options.memory_budget_bytes);
}

TEST(TowerBudgetTest, ATowerThatCannotFitIsRefusedWithTheNumberAndTextGoesOn) {
  const TemporaryPath file;
  ASSERT_TRUE(testing::WriteMultimodalModel(file.path()).ok());
  const auto container = ContainerReader::Open(file.path());
  ASSERT_TRUE(container.ok());
  const auto text = EstimateMemory(**container, *ResolveSlice((*container)->header(), ""), {});
  ASSERT_TRUE(text.ok());
  EngineOptions options;
  options.num_threads = 1;
  options.memory_budget_bytes = text->total();
  const auto engine = Engine::Create(file.path(), options);
  ASSERT_TRUE(engine.ok()) << engine.status().message();
  const auto session = Session::Create(**engine, {});
  ASSERT_TRUE(session.ok());
  for (int i = 0; i < 2; ++i) {
    const Status refused =
        (*engine)->towers().EncodePixels(GetMultimodalExpected().pixels).status();
    EXPECT_EQ(refused.code(), StatusCode::kOutOfMemory);
    EXPECT_NE(refused.message().find("with the vision tower the engine needs"), std::string::npos)
        << refused.message();
  }
  EXPECT_EQ((*engine)->memory().vision, 0u);
  EXPECT_LE((*engine)->budget().used_bytes(), options.memory_budget_bytes);
  const std::vector<int32_t> prompt = {2, 40, 41};
  EXPECT_TRUE((*session)->Prefill(prompt).ok());
}

}  // namespace
}  // namespace nestling
