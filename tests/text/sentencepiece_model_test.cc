// SPDX-License-Identifier: Apache-2.0
#include "text/sentencepiece_model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sentencepiece_processor.h>

#include <limits>
#include <random>
#include <string>

#include "tests/text/test_vocabulary.h"

namespace nestling {
namespace {

using ::testing::HasSubstr;

std::span<const std::byte> Bytes(const std::string& text) { return std::as_bytes(std::span(text)); }

void ExpectRefused(const std::string& model, StatusCode code, const char* message) {
  const auto parsed = ParseSentencePieceModel(Bytes(model));
  ASSERT_FALSE(parsed.ok()) << message;
  EXPECT_EQ(parsed.status().code(), code) << parsed.status().message();
  EXPECT_THAT(parsed.status().message(), HasSubstr(message));
}

std::string Field(uint32_t number, const std::string& bytes) {
  std::string out(1, static_cast<char>(number << 3 | 2));
  size_t size = bytes.size();
  for (; size >= 0x80; size >>= 7) out.push_back(static_cast<char>(size | 0x80));
  out.push_back(static_cast<char>(size));
  return out + bytes;
}

TEST(SentencePieceModelTest, ReadsBackWhatItBuilds) {
  const TestVocabulary vocabulary;
  const std::string model = vocabulary.Model();
  const auto parsed = ParseSentencePieceModel(Bytes(model));
  ASSERT_TRUE(parsed.ok()) << parsed.status().message();
  const std::vector<Piece> pieces = vocabulary.Pieces();
  ASSERT_EQ(parsed->size(), pieces.size());
  for (size_t id = 0; id < pieces.size(); ++id) {
    EXPECT_EQ((*parsed)[id].text, pieces[id].text);
    EXPECT_EQ((*parsed)[id].score, pieces[id].score);
    EXPECT_EQ((*parsed)[id].type, pieces[id].type);
  }
}

TEST(SentencePieceModelTest, BuildsWhatSentencePieceItselfLoads) {
  const TestVocabulary vocabulary;
  sentencepiece::SentencePieceProcessor processor;
  ASSERT_TRUE(processor.LoadFromSerializedProto(vocabulary.Model()).ok());
  ASSERT_EQ(processor.GetPieceSize(), vocabulary.size());
  for (int id = 0; id < processor.GetPieceSize(); ++id) {
    EXPECT_EQ(processor.IdToPiece(id), vocabulary.entries[id].first);
    EXPECT_EQ(processor.GetScore(id), -static_cast<float>(id));
  }
  EXPECT_TRUE(processor.IsControl(vocabulary.Id("<bos>")));
  EXPECT_TRUE(processor.IsByte(vocabulary.Id("<0x0A>")));
}

TEST(SentencePieceModelTest, SkipsFieldsThatItDoesNotKnow) {
  std::string model = TestVocabulary().Model();
  const auto before = ParseSentencePieceModel(Bytes(model));
  ASSERT_TRUE(before.ok());
  const size_t num_pieces = before->size();
  model += Field(4, Field(1, Field(1, "hello")));   // self test data
  model += std::string("\x78\x01", 2);              // field 15, a varint
  model += std::string("\x7D\x01\x02\x03\x04", 5);  // field 15, four bytes
  model += std::string("\x79\x01\x02\x03\x04\x05\x06\x07\x08", 9);
  const auto parsed = ParseSentencePieceModel(Bytes(model));
  ASSERT_TRUE(parsed.ok()) << parsed.status().message();
  EXPECT_EQ(parsed->size(), num_pieces);
}

TEST(SentencePieceModelTest, RefusesOtherSettingsThanGemmas) {
  const std::string model = TestVocabulary().Model();
  const auto trainer = [&](std::string spec) { return model + Field(2, spec); };
  const auto normalizer = [&](std::string spec) { return model + Field(3, spec); };
  constexpr StatusCode kUnsupported = StatusCode::kUnsupported;
  // A later message of the same kind overrides an earlier one's fields, as in protobuf.
  ExpectRefused(trainer("\x18\x01"), kUnsupported, "model_type is 1");
  ExpectRefused(trainer(std::string("\x98\x02\x00", 3)), kUnsupported, "byte_fallback is off");
  ExpectRefused(trainer("\xC0\x01\x01"), kUnsupported, "treat_whitespace_as_suffix is on");
  ExpectRefused(normalizer("\x18\x01"), kUnsupported, "add_dummy_prefix is on");
  ExpectRefused(normalizer("\x20\x01"), kUnsupported, "remove_extra_whitespaces is on");
  ExpectRefused(normalizer(std::string("\x28\x00", 2)), kUnsupported, "escape_whitespaces is off");
  ExpectRefused(normalizer(Field(2, "\x04\x00\x00\x00")), kUnsupported, "precompiled_charsmap");
  ExpectRefused(model + Field(5, Field(2, "abc")), kUnsupported, "denormalizer");
  // Absent settings have protobuf's defaults: Unigram.
  ExpectRefused(Field(1, Field(1, "a")), kUnsupported, "model_type is 1");
}

TEST(SentencePieceModelTest, RefusesPiecesThatSentencePieceTrustsBlindly) {
  constexpr StatusCode kBadModel = StatusCode::kBadModel;
  const auto with = [](std::string text, float score, PieceType type) {
    const TestVocabulary vocabulary;
    std::vector<Piece> pieces = vocabulary.Pieces();
    pieces.push_back({text, score, type});
    return BuildSentencePieceModel(pieces);
  };
  ExpectRefused(with("", 0, PieceType::kNormal), kBadModel, "has 0 bytes");
  ExpectRefused(with(std::string(kMaxPieceBytes + 1, 'a'), 0, PieceType::kNormal), kBadModel,
                "has 1025 bytes");
  ExpectRefused(with("x", std::numeric_limits<float>::quiet_NaN(), PieceType::kNormal), kBadModel,
                "score");
  ExpectRefused(with("x", 0, static_cast<PieceType>(0)), kBadModel, "type 0");
  ExpectRefused(with("x", 0, static_cast<PieceType>(7)), kBadModel, "type 7");
  ExpectRefused(with("<0xGG>", 0, PieceType::kByte), kBadModel, "<0x00> to <0xFF>");
  ExpectRefused(with("<0x00>", 0, PieceType::kByte), kBadModel, "257 byte pieces");
  ExpectRefused(with("<unk2>", 0, PieceType::kUnknown), kBadModel, "2 unknown pieces");
  ExpectRefused(with(std::string("a\0b", 3), 0, PieceType::kUserDefined), kBadModel, "zero byte");
  TestVocabulary nested;
  for (size_t n = 1; n <= 65; ++n) nested.Add(std::string(n, 'z'), PieceType::kUserDefined);
  ExpectRefused(nested.Model(), kBadModel, "prefixes of one another");
  nested.entries.pop_back();
  const std::string model = nested.Model();
  EXPECT_TRUE(ParseSentencePieceModel(Bytes(model)).ok());
}

TEST(SentencePieceModelTest, RefusesNothingAndTooMuch) {
  ExpectRefused("", StatusCode::kBadModel, "empty");
  ExpectRefused(Field(2, "\x18\x02"), StatusCode::kBadModel, "no pieces");
  std::string many;
  const std::string piece = Field(1, Field(1, "a"));
  for (size_t i = 0; i <= kMaxPieces; ++i) many += piece;
  ExpectRefused(many, StatusCode::kBadModel, "more than 524288 pieces");
  ExpectRefused(std::string(kMaxModelBytes + 1, '\x0A'), StatusCode::kBadModel,
                "bytes, want at most");
}

TEST(SentencePieceModelTest, RefusesEveryTruncation) {
  const std::string model = TestVocabulary().Model();
  for (size_t size = 0; size < model.size(); ++size) {
    // An exact-sized copy: a read beyond it fails under the sanitizers.
    const std::vector<char> cut(model.begin(), model.begin() + size);
    ASSERT_FALSE(ParseSentencePieceModel(std::as_bytes(std::span(cut))).ok()) << size;
  }
}

TEST(SentencePieceModelTest, SurvivesFlippedBitsAndRandomBytes) {
  const std::string model = TestVocabulary().Model();
  std::mt19937 random(1);
  size_t refused = 0;
  for (size_t i = 0; i < 5000; ++i) {
    std::string damaged = model;
    damaged[random() % damaged.size()] ^= static_cast<char>(1 << (random() % 8));
    refused += !ParseSentencePieceModel(Bytes(damaged)).ok();
    std::string noise(random() % 200, '\0');
    for (char& c : noise) c = static_cast<char>(random());
    ASSERT_FALSE(ParseSentencePieceModel(Bytes(noise)).ok());
  }
  EXPECT_GT(refused, 1000u);  // the others changed a name or a score
}

TEST(SentencePieceModelTest, KnowsBytePieces) {
  EXPECT_EQ(ParseBytePiece("<0x00>"), 0);
  EXPECT_EQ(ParseBytePiece("<0xFF>"), 255);
  EXPECT_EQ(ParseBytePiece("<0x1A>"), 26);
  for (const char* text : {"", "<0x1a>", "<0x1G>", "<0x1A", "<0X1A>", "<0x1A>>"}) {
    EXPECT_EQ(ParseBytePiece(text), -1) << text;
  }
}

}  // namespace
}  // namespace nestling
