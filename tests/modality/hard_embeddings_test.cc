// SPDX-License-Identifier: Apache-2.0
#include "modality/hard_embeddings.h"

#include <gtest/gtest.h>

#include <vector>

#include "tests/modality/audio_golden.h"

namespace nestling {
namespace {

using testing::GetAudioGolden;
using testing::OpenAudioContainer;
using testing::RelativeError;

TEST(HardEmbeddingsTest, MatchTheReferenceWhateverFormatTheEmbedderIsStoredIn) {
  const std::vector<float>& want = GetAudioGolden().expected.at("hard_tokens").values;
  for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF16}) {
    const auto reader = OpenAudioContainer({.dtype = dtype});
    ASSERT_TRUE(reader.ok()) << reader.status().message();
    const TowerConfig& tower = (*reader)->header().audio;
    HardEmbeddings embeddings(**reader);
    std::vector<float> all;
    for (uint32_t row = 0; row < tower.vocab_size; ++row) {
      const auto vector = embeddings.Get(static_cast<int32_t>(tower.vocab_offset + row));
      ASSERT_TRUE(vector.ok()) << vector.status().message();
      all.insert(all.end(), (*vector)->begin(), (*vector)->end());
    }
    EXPECT_LT(RelativeError(all, want), dtype == DType::kF16 ? 1e-4 : 1e-6);
  }
}

TEST(HardEmbeddingsTest, AreOfTheTowersIdsOnly) {
  const auto reader = OpenAudioContainer();
  ASSERT_TRUE(reader.ok());
  const TowerConfig& tower = (*reader)->header().audio;
  HardEmbeddings embeddings(**reader);
  const auto first = static_cast<int32_t>(tower.vocab_offset);
  const auto end = static_cast<int32_t>(tower.vocab_offset + tower.vocab_size);
  EXPECT_EQ(embeddings.TowerOf(first), TowerKind::kAudio);
  EXPECT_EQ(embeddings.TowerOf(end - 1), TowerKind::kAudio);
  for (const int32_t id : {-1, 0, first - 1, end}) {
    EXPECT_FALSE(embeddings.TowerOf(id).has_value()) << id;
    EXPECT_EQ(embeddings.Get(id).status().code(), StatusCode::kInvalidArgument) << id;
  }
}

TEST(HardEmbeddingsTest, ADamagedTowerIsAnErrorOfItsIds) {
  const auto reader = OpenAudioContainer({.edit = [](testing::AudioGolden& golden) {
    golden.tensors.erase("embed_audio.hard_embedding_norm");
  }});
  ASSERT_TRUE(reader.ok()) << reader.status().message();
  HardEmbeddings embeddings(**reader);
  const auto id = static_cast<int32_t>((*reader)->header().audio.vocab_offset);
  EXPECT_EQ(embeddings.Get(id).status().code(), StatusCode::kBadModel);
}

}  // namespace
}  // namespace nestling
