// SPDX-License-Identifier: Apache-2.0
// Both towers of one packed checkpoint against the reference (tests/golden/multimodal).
#include <gtest/gtest.h>

#include <memory>
#include <vector>

#include "container/reader.h"
#include "modality/audio/audio_tower.h"
#include "modality/vision/image.h"
#include "modality/vision/vision_tower.h"
#include "tests/modality/vision_golden.h"
#include "tests/support/multimodal_model.h"
#include "tests/support/tiny_model.h"

namespace nestling {
namespace {

using testing::GetMultimodalExpected;
using testing::MultimodalExpected;

// 20 times what the reference differs from itself in f64 (the oracle's towers): 1.2e-4 at rms 1.
constexpr double kTolerance = 1.2e-4;

class MultimodalTowersTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_FALSE(GetMultimodalExpected().logits.empty()) << "no golden data";
    const testing::TemporaryPath path;
    const Status status = testing::WriteMultimodalModel(path.path());
    ASSERT_TRUE(status.ok()) << status.message();
    auto reader = ContainerReader::Open(path.path());
    ASSERT_TRUE(reader.ok()) << reader.status().message();
    reader_ = std::move(reader).value();
    auto pool = ThreadPool::Create(2);
    ASSERT_TRUE(pool.ok());
    pool_ = std::move(pool).value();
  }

  const MultimodalExpected& expected_ = GetMultimodalExpected();
  std::unique_ptr<ContainerReader> reader_;
  std::unique_ptr<ThreadPool> pool_;
};

TEST_F(MultimodalTowersTest, SoftTokensOfThePictureAreTheReferences) {
  const auto tower = VisionTower::Create(*reader_, *pool_);
  ASSERT_TRUE(tower.ok()) << tower.status().message();
  const auto pixels = PrepareImage({.pixels = expected_.raw,
                                    .width = expected_.raw_width,
                                    .height = expected_.raw_height,
                                    .stride_bytes = 3 * expected_.raw_width},
                                   (*tower)->image_width(), (*tower)->image_height());
  ASSERT_TRUE(pixels.ok()) << pixels.status().message();
  const auto tokens = (*tower)->Encode(*pixels);
  ASSERT_TRUE(tokens.ok()) << tokens.status().message();
  EXPECT_LT(testing::RelativeError(*tokens, expected_.image_soft_tokens), kTolerance);
}

TEST_F(MultimodalTowersTest, SoftTokensOfTheSoundAreTheReferences) {
  const auto tower = AudioTower::Create(*reader_, *pool_);
  ASSERT_TRUE(tower.ok()) << tower.status().message();
  const auto tokens = (*tower)->Encode(expected_.waveform);
  ASSERT_TRUE(tokens.ok()) << tokens.status().message();
  EXPECT_LT(testing::RelativeError(tokens->values, expected_.audio_soft_tokens), kTolerance);
}

}  // namespace
}  // namespace nestling
