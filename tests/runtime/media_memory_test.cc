// SPDX-License-Identifier: Apache-2.0
// What towers cost a process that does not use them, or no longer does. Each figure is that of a
// process of its own: memory of earlier work would hide what is asked for.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <functional>
#include <memory>
#include <vector>

#include "base/memory_info.h"
#include "runtime/session.h"
#include "tests/support/multimodal_model.h"
#include "tests/support/sanitizer.h"
#include "tests/support/tiny_model.h"

namespace nestling {
namespace {

using testing::GetMultimodalExpected;
using testing::MultimodalModelOptions;

constexpr uint64_t kMegabyte = uint64_t{1} << 20;

// The number that `work` returns in a child; 0 if it fails.
uint64_t InChild(const std::function<uint64_t()>& work) {
  int ends[2];
  if (pipe(ends) != 0) return 0;
  const pid_t child = fork();
  if (child == 0) {
    const uint64_t value = work();
    const bool written = write(ends[1], &value, sizeof value) == sizeof value;
    _exit(written ? 0 : 1);
  }
  close(ends[1]);
  uint64_t value = 0;
  if (child < 0 || read(ends[0], &value, sizeof value) != sizeof value) value = 0;
  close(ends[0]);
  if (child > 0) waitpid(child, nullptr, 0);
  return value;
}

bool RunText(const Engine& engine) {
  auto session = Session::Create(engine, {});
  if (!session.ok()) return false;
  std::vector<int32_t> tokens;
  for (int32_t i = 0; i < 64; ++i) tokens.push_back(3 + i * 7 % 500);
  if (!(*session)->Prefill(tokens).ok()) return false;
  GenerateOptions options;
  options.max_tokens = 8;
  options.ignore_stop_tokens = true;
  return (*session)->Generate(options, {}).ok();
}

// Resident bytes after text, then after `more` and text again.
uint64_t ResidentAfter(const std::string& path, const std::function<bool(Towers&)>& more) {
  return InChild([&]() -> uint64_t {
    auto engine = Engine::Create(path, {.num_threads = 2});
    if (!engine.ok() || !RunText(**engine)) return 0;
    if (more && (!more((*engine)->towers()) || !RunText(**engine))) return 0;
    ReturnFreeMemory();  // what the heap keeps depends on what the test program did before
    return ReadProcessMemory().resident;
  });
}

class MediaMemoryTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (testing::kKeepsFreedMemory) GTEST_SKIP() << "the sanitizer keeps freed memory";
    ASSERT_FALSE(GetMultimodalExpected().logits.empty()) << "no golden data";
  }
};

TEST_F(MediaMemoryTest, TextTakesTheSameMemoryWhetherThereAreTowersOrNot) {
  const testing::TemporaryPath with, without;
  ASSERT_TRUE(testing::WriteMultimodalModel(with.path()).ok());
  ASSERT_TRUE(
      testing::WriteMultimodalModel(without.path(), {.vision = false, .audio = false}).ok());
  const uint64_t resident_with = ResidentAfter(with.path(), {});
  const uint64_t resident_without = ResidentAfter(without.path(), {});
  ASSERT_GT(resident_with, 0u);
  ASSERT_GT(resident_without, 0u);
  RecordProperty("with_towers_kb", static_cast<int>(resident_with >> 10));
  RecordProperty("without_towers_kb", static_cast<int>(resident_without >> 10));
  // The towers are 3 MB.
  EXPECT_LT(resident_with, resident_without + kMegabyte);
}

TEST_F(MediaMemoryTest, AfterEncodeAndUnloadTextTakesWhatItTookBefore) {
  const testing::TemporaryPath path;
  ASSERT_TRUE(testing::WriteMultimodalModel(path.path()).ok());
  const auto use = [](Towers& towers, bool unload) {
    for (int i = 0; i < 3; ++i) {
      if (!towers.EncodePixels(GetMultimodalExpected().pixels).ok()) return false;
      if (!towers.EncodeSound(GetMultimodalExpected().waveform).ok()) return false;
      towers.ClearCache();
      if (!unload) continue;
      towers.Unload(TowerKind::kVision);
      towers.Unload(TowerKind::kAudio);
    }
    return true;
  };
  const uint64_t text = ResidentAfter(path.path(), {});
  const uint64_t kept =
      ResidentAfter(path.path(), [&](Towers& towers) { return use(towers, /*unload=*/false); });
  const uint64_t unloaded =
      ResidentAfter(path.path(), [&](Towers& towers) { return use(towers, /*unload=*/true); });
  ASSERT_GT(text, 0u);
  ASSERT_GT(unloaded, 0u);
  RecordProperty("text_kb", static_cast<int>(text >> 10));
  RecordProperty("loaded_kb", static_cast<int>(kept >> 10));
  RecordProperty("unloaded_kb", static_cast<int>(unloaded >> 10));
  EXPECT_LT(unloaded, text + 5 * kMegabyte);
  EXPECT_LT(unloaded, kept);
}

}  // namespace
}  // namespace nestling
