// SPDX-License-Identifier: Apache-2.0
// When towers are in memory, and who may use them meanwhile.
#include "modality/towers.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "container/header_codec.h"
#include "tests/support/edit_container.h"
#include "tests/support/multimodal_model.h"
#include "tests/support/tiny_model.h"

namespace nestling {
namespace {

using testing::GetMultimodalExpected;
using ::testing::HasSubstr;
using testing::MultimodalExpected;

constexpr TowerKind kBoth[] = {TowerKind::kVision, TowerKind::kAudio};

// Waits for what another thread brings about; only a hang takes the whole time.
bool Eventually(const std::function<bool()>& happened) {
  for (int i = 0; i < 30000 && !happened(); ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return happened();
}

class TowersTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_FALSE(expected_.logits.empty()) << "no golden data";
    auto pool = ThreadPool::Create(2);
    ASSERT_TRUE(pool.ok());
    pool_ = std::move(pool).value();
    Open();
  }

  void Open(
      TowersOptions options = {},
      const std::function<void(ContainerHeader&)>& edit = [](ContainerHeader&) {}) {
    const testing::TemporaryPath path;
    const Status status = testing::WriteMultimodalModel(path.path());
    ASSERT_TRUE(status.ok()) << status.message();
    testing::Bytes file = testing::ReadAllBytes(path.path());
    testing::EditHeader(edit, &file);
    testing::WriteAllBytes(path.path(), file);
    towers_.reset();
    auto reader = ContainerReader::Open(path.path());
    ASSERT_TRUE(reader.ok()) << reader.status().message();
    reader_ = std::move(reader).value();
    towers_ = std::make_unique<Towers>(*reader_, *pool_, std::move(options));
  }

  Result<Media> Encode(TowerKind kind) {
    return kind == TowerKind::kVision ? towers_->EncodePixels(expected_.pixels)
                                      : towers_->EncodeSound(expected_.waveform);
  }
  TowerState State(TowerKind kind) const { return towers_->Info(kind).state; }

  const MultimodalExpected& expected_ = GetMultimodalExpected();
  std::unique_ptr<ThreadPool> pool_;
  std::unique_ptr<ContainerReader> reader_;
  std::unique_ptr<Towers> towers_;
};

TEST_F(TowersTest, TheFirstUseLoadsATowerAndNoOther) {
  for (const TowerKind kind : kBoth) {
    EXPECT_EQ(State(kind), TowerState::kUnloaded);
    EXPECT_EQ(towers_->Info(kind).weight_bytes, 0u);
  }
  ASSERT_TRUE(Encode(TowerKind::kAudio).ok());
  EXPECT_EQ(State(TowerKind::kAudio), TowerState::kReady);
  EXPECT_GT(towers_->Info(TowerKind::kAudio).weight_bytes, 0u);
  EXPECT_EQ(State(TowerKind::kVision), TowerState::kUnloaded);
}

TEST_F(TowersTest, ATowerThatWasLetGoComesBackAndSaysTheSame) {
  for (const TowerKind kind : kBoth) {
    const auto first = Encode(kind);
    towers_->Unload(kind);
    towers_->Unload(kind);  // nothing to do
    EXPECT_EQ(State(kind), TowerState::kUnloaded);
    EXPECT_EQ(towers_->Info(kind).weight_bytes, 0u);
    towers_->ClearCache();
    const auto again = Encode(kind);
    ASSERT_TRUE(first.ok() && again.ok());
    EXPECT_EQ(first->pieces[0]->values, again->pieces[0]->values);
    EXPECT_EQ(towers_->Info(kind).counters.loads, 2u);
    EXPECT_EQ(towers_->Info(kind).counters.unloads, 1u);
  }
}

TEST_F(TowersTest, LoadingInTheBackgroundReturnsAtOnceAndUsersWaitForIt) {
  for (const TowerKind kind : kBoth) {
    ASSERT_TRUE(towers_->Load(kind, /*in_background=*/true).ok());
    ASSERT_TRUE(towers_->Load(kind, /*in_background=*/true).ok());
    EXPECT_NE(State(kind), TowerState::kUnloaded);
    ASSERT_TRUE(Encode(kind).ok());
    EXPECT_EQ(towers_->Info(kind).counters.loads, 1u);
  }
}

TEST_F(TowersTest, ALoadInTheBackgroundMayBeAbandoned) {
  for (const TowerKind kind : kBoth) {
    ASSERT_TRUE(towers_->Load(kind, /*in_background=*/true).ok());
  }
  towers_.reset();  // waits for the threads
}

TEST_F(TowersTest, EncodingsGoOnWhileTowersAreLetGoAgainAndAgain) {
  const auto image = Encode(TowerKind::kVision);
  const auto sound = Encode(TowerKind::kAudio);
  ASSERT_TRUE(image.ok() && sound.ok());
  std::atomic<bool> done{false};
  std::atomic<int> wrong{0};
  std::thread unloader([&] {
    while (!done) {
      for (const TowerKind kind : kBoth) towers_->Unload(kind);
      towers_->ClearCache();
    }
  });
  std::vector<std::thread> users;
  for (int user = 0; user < 3; ++user) {
    users.emplace_back([&, user] {
      for (int i = 0; i < 3; ++i) {
        const TowerKind kind = kBoth[(user + i) % 2];
        const auto media = Encode(kind);
        const auto& want = kind == TowerKind::kVision ? image : sound;
        if (!media.ok() || media->pieces[0]->values != want->pieces[0]->values) ++wrong;
      }
    });
  }
  for (std::thread& user : users) user.join();
  done = true;
  unloader.join();
  EXPECT_EQ(wrong, 0);
}

TEST_F(TowersTest, WhatIsInUseIsNotIdle) {
  {
    const auto lease = towers_->AcquireAudio();
    ASSERT_TRUE(lease.ok());
    ASSERT_TRUE(towers_->Load(TowerKind::kVision, /*in_background=*/false).ok());
    EXPECT_TRUE(towers_->UnloadIfIdle(TowerKind::kVision));
    EXPECT_EQ(State(TowerKind::kVision), TowerState::kUnloaded);
    EXPECT_FALSE(towers_->UnloadIfIdle(TowerKind::kVision));
    EXPECT_FALSE(towers_->UnloadIfIdle(TowerKind::kAudio));
    EXPECT_EQ(State(TowerKind::kAudio), TowerState::kReady);
  }
  EXPECT_TRUE(towers_->UnloadIfIdle(TowerKind::kAudio));
  EXPECT_EQ(State(TowerKind::kAudio), TowerState::kUnloaded);
}

TEST_F(TowersTest, ALeaseOutlivesTheTowersBeingLetGo) {
  const auto lease = towers_->AcquireAudio();
  ASSERT_TRUE(lease.ok());
  towers_->Unload(TowerKind::kAudio);
  EXPECT_EQ(State(TowerKind::kAudio), TowerState::kUnloaded);
  EXPECT_TRUE((*lease)->Encode(expected_.waveform).ok());
}

TEST_F(TowersTest, AnIdleTowerGoesByItself) {
  TowersOptions options;
  options.idle_seconds = 0.05;
  Open(std::move(options));
  for (const TowerKind kind : kBoth) {
    ASSERT_TRUE(Encode(kind).ok());
    EXPECT_TRUE(Eventually([&] { return State(kind) == TowerState::kUnloaded; }));
  }
  // And again: the watch goes on.
  ASSERT_TRUE(towers_->Load(TowerKind::kVision, /*in_background=*/true).ok());
  EXPECT_TRUE(Eventually([&] {
    const TowerInfo info = towers_->Info(TowerKind::kVision);
    return info.counters.unloads == 2 && info.state == TowerState::kUnloaded;
  })) << towers_->Info(TowerKind::kVision).counters.loads
      << " loads, " << towers_->Info(TowerKind::kVision).counters.unloads << " unloads, state "
      << static_cast<int>(towers_->Info(TowerKind::kVision).state) << ", status "
      << static_cast<int>(towers_->Info(TowerKind::kVision).load_status);
}

TEST_F(TowersTest, AnIdleWatchEndsWithTheTowersHoweverLongItWouldWait) {
  for (const double seconds : {1e-9, 3600.0, 1e18}) {
    TowersOptions options;
    options.idle_seconds = seconds;
    Open(std::move(options));
    ASSERT_TRUE(towers_->Load(TowerKind::kAudio, /*in_background=*/false).ok());
    if (seconds > 1) {
      EXPECT_EQ(State(TowerKind::kAudio), TowerState::kReady);
    }
    towers_.reset();
  }
}

TEST_F(TowersTest, ALoadThatIsNotAdmittedChangesNothing) {
  std::atomic<bool> admitted{false};
  Open({.admit = [&](TowerKind) {
    return admitted ? OkStatus() : OutOfMemory("no budget for a tower");
  }});
  for (const TowerKind kind : kBoth) {
    EXPECT_EQ(towers_->Load(kind, /*in_background=*/false).code(), StatusCode::kOutOfMemory);
    EXPECT_EQ(State(kind), TowerState::kUnloaded);
    const auto media = Encode(kind);
    EXPECT_EQ(media.status().code(), StatusCode::kOutOfMemory);
    EXPECT_THAT(media.status().message(), HasSubstr("no budget"));
    // In the background nobody hears of it, but the state does not lie.
    ASSERT_TRUE(towers_->Load(kind, /*in_background=*/true).ok());
    EXPECT_TRUE(Eventually([&] { return State(kind) == TowerState::kUnloaded; }));
    EXPECT_EQ(towers_->Info(kind).counters.loads, 0u);
  }
  EXPECT_EQ(towers_->cache_counters().bytes, 0u);
  admitted = true;
  for (const TowerKind kind : kBoth) EXPECT_TRUE(Encode(kind).ok());
}

TEST_F(TowersTest, ALoaderThatRunsOutOfMemoryIsAStatus) {
  Open({.admit = [](TowerKind) -> Status { throw std::bad_alloc(); }});
  for (const TowerKind kind : kBoth) {
    EXPECT_EQ(towers_->Load(kind, /*in_background=*/false).code(), StatusCode::kOutOfMemory);
    EXPECT_EQ(State(kind), TowerState::kUnloaded);
  }
}

TEST_F(TowersTest, ADamagedTowerIsRefusedAndTheOtherOneWorks) {
  const auto rename = [](const char* from) {
    return [from](ContainerHeader& header) {
      for (TensorInfo& tensor : header.tensors) {
        if (tensor.name == from) tensor.name[0] = 'X';
      }
    };
  };
  Open({}, rename("vision_tower.timm_model.conv_stem.conv"));
  EXPECT_EQ(towers_->shape().image_tokens, 0u);
  EXPECT_EQ(Encode(TowerKind::kVision).status().code(), StatusCode::kBadModel);
  EXPECT_EQ(towers_->Load(TowerKind::kVision, false).code(), StatusCode::kBadModel);
  EXPECT_EQ(State(TowerKind::kVision), TowerState::kUnloaded);
  EXPECT_TRUE(Encode(TowerKind::kAudio).ok());

  Open({}, rename("audio_tower.conformer.1.norm"));
  EXPECT_EQ(Encode(TowerKind::kAudio).status().code(), StatusCode::kBadModel);
  EXPECT_EQ(State(TowerKind::kAudio), TowerState::kUnloaded);
  EXPECT_TRUE(Encode(TowerKind::kVision).ok());
}

TEST_F(TowersTest, NonsenseInATowersConfigurationIsRefused) {
  for (const char* json : {"", "{", "[]", "{\"model_args\": 7}"}) {
    SCOPED_TRACE(json);
    Open({}, [json](ContainerHeader& header) {
      header.fields.vision.config_json = json;
      header.fields.audio.config_json = json;
    });
    // Reading shapes off the tensors may do for vision; nothing may crash, and errors have a code.
    for (const TowerKind kind : kBoth) {
      const auto media = Encode(kind);
      if (!media.ok()) {
        EXPECT_NE(media.status().code(), StatusCode::kInternal) << media.status().message();
      }
    }
  }
}

TEST_F(TowersTest, TheLeastRecentlyUsedMediaMakeRoomInTheCache) {
  const size_t bytes = expected_.image_soft_tokens.size() * sizeof(float);
  TowersOptions options;
  options.cache_bytes = 2 * bytes;
  Open(std::move(options));
  const auto pixels = [&](float shade) {
    return std::vector<float>(expected_.pixels.size(), shade);
  };
  const auto encode = [&](float shade) {
    EXPECT_TRUE(towers_->EncodePixels(pixels(shade)).ok());
    return towers_->cache_counters();
  };
  encode(0.1f);
  encode(0.2f);
  EXPECT_EQ(encode(0.1f).hits, 1u);
  EXPECT_EQ(encode(0.3f).bytes, 2 * bytes);  // 0.2 goes
  EXPECT_EQ(encode(0.1f).hits, 2u);
  EXPECT_EQ(encode(0.2f).hits, 2u);
  EXPECT_EQ(towers_->cache_counters().misses, 4u);
  EXPECT_EQ(towers_->cache_counters().bytes, 2 * bytes);
  const auto kept = towers_->EncodePixels(pixels(0.1f));
  ASSERT_TRUE(kept.ok());
  towers_->ClearCache();
  EXPECT_EQ(towers_->cache_counters().bytes, 0u);
  EXPECT_EQ(kept->pieces[0]->values.size() * sizeof(float), bytes);  // users keep theirs
}

}  // namespace
}  // namespace nestling
