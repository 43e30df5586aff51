// SPDX-License-Identifier: Apache-2.0
// Towers whose weights come from a file of packed weights.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <string>
#include <vector>

#include "modality/audio/audio_tower.h"
#include "modality/vision/vision_tower.h"
#include "tests/modality/audio_golden.h"
#include "tests/modality/vision_golden.h"
#include "tests/support/edit_container.h"
#include "tests/support/faulty_files.h"
#include "tests/support/tiny_model.h"

namespace nestling {
namespace {

namespace fs = std::filesystem;
using testing::FaultyFiles;
using testing::GetAudioGolden;
using testing::GetVisionGolden;
using ::testing::HasSubstr;
using Compute = VisionOptions::Compute;

class PackedTowerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto pool = ThreadPool::Create(2);
    ASSERT_TRUE(pool.ok());
    pool_ = std::move(pool).value();
    cache_ = {.folder = (fs::path(model_.path()).parent_path() / "cache").string(),
              .calls = &files_};
  }

  // Puts the container under a name of its own.
  void Keep(const Result<std::unique_ptr<ContainerReader>>& reader, SectionKind section) {
    ASSERT_TRUE(reader.ok()) << reader.status().message();
    const File& file = (*reader)->file();
    testing::Bytes bytes(file.size());
    ASSERT_TRUE(file.ReadAt(0, bytes).ok());
    testing::WriteAllBytes(model_.path(), bytes);
    section_ = *(*reader)->FindSection(section);
  }
  // The same container by its header, without a single weight.
  void WipeSection() {
    testing::Bytes bytes = testing::ReadAllBytes(model_.path());
    std::fill_n(bytes.begin() + static_cast<ptrdiff_t>(section_.offset), section_.bytes,
                std::byte{0xff});
    testing::WriteAllBytes(model_.path(), bytes);
  }

  struct Outcome {
    std::vector<float> values;
    PackedCacheInfo info;
    std::string note;
  };

  Outcome See(Compute compute) {
    Outcome outcome;
    auto reader = ContainerReader::Open(model_.path());
    EXPECT_TRUE(reader.ok());
    const auto tower = VisionTower::Create(**reader, *pool_, {.compute = compute, .cache = cache_});
    EXPECT_TRUE(tower.ok()) << tower.status().message();
    if (!tower.ok()) return outcome;
    const auto tokens = (*tower)->Encode(GetVisionGolden().Pixels());
    EXPECT_TRUE(tokens.ok());
    outcome.values = *tokens;
    outcome.info = (*tower)->packed_info();
    outcome.note = outcome.info.note;
    return outcome;
  }

  Outcome Hear(AudioCompute compute) {
    Outcome outcome;
    auto reader = ContainerReader::Open(model_.path());
    EXPECT_TRUE(reader.ok());
    const auto tower = AudioTower::Create(**reader, *pool_, {compute, cache_});
    EXPECT_TRUE(tower.ok()) << tower.status().message();
    if (!tower.ok()) return outcome;
    const auto tokens = (*tower)->Encode(GetAudioGolden().expected.at("waveform").values);
    EXPECT_TRUE(tokens.ok());
    outcome.values = tokens->values;
    outcome.info = (*tower)->packed_info();
    outcome.note = outcome.info.note;
    return outcome;
  }

  // Packs with `run` in memory, into a file, and takes it from there without the section.
  template <typename Run>
  void ExpectTheSameWithoutTheSection(const Run& run) {
    fs::remove_all(cache_.folder);  // forms that compute alike share a file
    cache_.off = true;
    const Outcome plain = run();
    cache_.off = false;
    const Outcome made = run();
    EXPECT_EQ(made.values, plain.values);
    EXPECT_EQ(made.info.state, PackedCacheState::kMade) << made.note;
    EXPECT_EQ(made.info.anonymous_bytes, 0u);
    WipeSection();
    const Outcome used = run();
    EXPECT_EQ(used.values, plain.values);
    EXPECT_EQ(used.info.state, PackedCacheState::kUsed) << used.note;
    EXPECT_EQ(used.info.anonymous_bytes, 0u);
  }

  std::unique_ptr<ThreadPool> pool_;
  const testing::TemporaryPath model_;
  SectionInfo section_ = {};
  FaultyFiles files_;
  PackedCacheOptions cache_;
};

TEST_F(PackedTowerTest, VisionTowerDoesNotReadTheContainersWeightsAgain) {
  for (const DType dtype : {DType::kF32, DType::kBF16, DType::kQ8C}) {
    for (const Compute compute : {Compute::kF32, Compute::kInt8}) {
      SCOPED_TRACE(::testing::Message() << DTypeName(dtype) << static_cast<int>(compute));
      Keep(testing::OpenVisionContainer({.dtype = dtype}), SectionKind::kVision);
      ExpectTheSameWithoutTheSection([&] { return See(compute); });
    }
  }
}

TEST_F(PackedTowerTest, AudioTowerDoesNotReadTheContainersWeightsAgain) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    for (const AudioCompute compute :
         {AudioCompute::kAuto, AudioCompute::kF32, AudioCompute::kInt8}) {
      SCOPED_TRACE(::testing::Message() << DTypeName(dtype) << static_cast<int>(compute));
      Keep(testing::OpenAudioContainer({.dtype = dtype}), SectionKind::kAudio);
      ExpectTheSameWithoutTheSection([&] { return Hear(compute); });
    }
  }
  // Tiles are read where they lie unless f32 is asked for.
  Keep(testing::OpenAudioContainer({.dtype = DType::kQ8C}), SectionKind::kAudio);
  ExpectTheSameWithoutTheSection([&] { return Hear(AudioCompute::kF32); });
}

TEST_F(PackedTowerTest, FilesOfTwoFormsAndTwoTowersLieSideBySide) {
  Keep(testing::OpenVisionContainer({.dtype = DType::kBF16}), SectionKind::kVision);
  EXPECT_EQ(See(Compute::kF32).info.state, PackedCacheState::kMade);
  EXPECT_EQ(See(Compute::kInt8).info.state, PackedCacheState::kMade);
  EXPECT_EQ(See(Compute::kF32).info.state, PackedCacheState::kUsed);
  EXPECT_EQ(See(Compute::kInt8).info.state, PackedCacheState::kUsed);
}

TEST_F(PackedTowerTest, FullDiskLeavesATowerThatWorks) {
  Keep(testing::OpenVisionContainer({.dtype = DType::kBF16}), SectionKind::kVision);
  cache_.off = true;
  const Outcome plain = See(Compute::kF32);
  cache_.off = false;
  for (const int writes : {0, 1, 2, 3}) {
    files_.Set(FaultyFiles::kNoSpace, writes);
    const Outcome outcome = See(Compute::kF32);
    EXPECT_EQ(outcome.values, plain.values);
    EXPECT_EQ(outcome.info.state, PackedCacheState::kFailed);
    EXPECT_THAT(outcome.note, HasSubstr("No space left"));
  }
}

TEST_F(PackedTowerTest, SectionThatIsDamagedIsNotCached) {
  // A tower that cannot be made leaves no file.
  Keep(testing::OpenVisionContainer({.dtype = DType::kF32,
                                     .edit =
                                         [](testing::VisionGolden& golden) {
                                           golden.tensors.erase("embed_vision.soft_embedding_norm");
                                         }}),
       SectionKind::kVision);
  auto reader = ContainerReader::Open(model_.path());
  ASSERT_TRUE(reader.ok());
  EXPECT_FALSE(VisionTower::Create(**reader, *pool_, {.cache = cache_}).ok());
  EXPECT_TRUE(!fs::exists(cache_.folder) || fs::is_empty(cache_.folder));
}

}  // namespace
}  // namespace nestling
