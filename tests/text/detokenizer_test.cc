// SPDX-License-Identifier: Apache-2.0
#include "text/detokenizer.h"

#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

#include "tests/text/test_vocabulary.h"
#include "text/utf8.h"

namespace nestling {
namespace {

class DetokenizerTest : public testing::Test {
 protected:
  int32_t Id(std::string_view text) const { return vocabulary_.Id(text); }

  // What each token gives out, and at the end what Flush does.
  std::vector<std::string> Stream(const std::vector<std::string>& pieces) const {
    StreamingDetokenizer detokenizer(*tokenizer_, {});
    std::vector<std::string> parts;
    for (const std::string& piece : pieces) {
      const auto part = detokenizer.Push(Id(piece));
      EXPECT_TRUE(part.ok());
      parts.emplace_back(*part);
    }
    parts.emplace_back(detokenizer.Flush());
    return parts;
  }
  using Parts = std::vector<std::string>;

  TestVocabulary vocabulary_;
  std::unique_ptr<Tokenizer> tokenizer_ = vocabulary_.MakeTokenizer();
};

TEST_F(DetokenizerTest, GivesOutWholePiecesAtOnce) {
  EXPECT_EQ(Stream({"hello", "\u2581world", "\n\n"}), (Parts{"hello", " world", "\n\n", ""}));
}

TEST_F(DetokenizerTest, HoldsBackCharactersUntilTheyAreComplete) {
  EXPECT_EQ(Stream({"<0xE2>", "<0x82>", "<0xAC>"}), (Parts{"", "", "\u20AC", ""}));
  EXPECT_EQ(Stream({"<0xF0>", "<0x9F>", "<0x98>", "<0x80>", "a"}),
            (Parts{"", "", "", "\U0001F600", "a", ""}));
}

TEST_F(DetokenizerTest, ReplacesWhatCannotBecomeACharacterAsSoonAsThatIsCertain) {
  EXPECT_EQ(Stream({"<0xE2>", "<0x82>", "a"}), (Parts{"", "", "\uFFFDa", ""}));
  EXPECT_EQ(Stream({"<0x80>", "<0xFF>"}), (Parts{"\uFFFD", "\uFFFD", ""}));
  EXPECT_EQ(Stream({"<0xED>", "<0xA0>", "<0x80>"}), (Parts{"", "\uFFFD\uFFFD", "\uFFFD", ""}));
  EXPECT_EQ(Stream({"<0xF0>", "<0x9F>"}), (Parts{"", "", "\uFFFD"}));
}

TEST_F(DetokenizerTest, LeavesTheStreamUnchangedByAnUnknownId) {
  StreamingDetokenizer detokenizer(*tokenizer_, {});
  EXPECT_EQ(*detokenizer.Push(Id("<0xC3>")), "");
  EXPECT_EQ(detokenizer.Push(-1).status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(detokenizer.Push(1 << 20).status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(*detokenizer.Push(Id("<0xA9>")), "\u00E9");
}

TEST_F(DetokenizerTest, BeginsAnewAfterFlush) {
  StreamingDetokenizer detokenizer(*tokenizer_, {});
  EXPECT_EQ(*detokenizer.Push(Id("<0xC3>")), "");
  EXPECT_EQ(detokenizer.Flush(), "\uFFFD");
  EXPECT_EQ(*detokenizer.Push(Id("a")), "a");
  EXPECT_EQ(detokenizer.Flush(), "");
}

TEST_F(DetokenizerTest, ConcatenatesToTheWholeTextForAnyIds) {
  std::mt19937 random(11);
  const int32_t first_byte = Id("<0x00>");
  for (int round = 0; round < 2000; ++round) {
    const DecodeOptions options{.skip_special = round % 2 == 0};
    std::vector<int32_t> ids(random() % 40);
    for (int32_t& id : ids) {
      // Mostly bytes from 0x80 up, which make and break characters.
      id = random() % 3 != 0 ? first_byte + 128 + static_cast<int32_t>(random() % 128)
                             : static_cast<int32_t>(random() % tokenizer_->size());
    }
    StreamingDetokenizer detokenizer(*tokenizer_, options);
    std::string text;
    for (const int32_t id : ids) {
      const auto part = detokenizer.Push(id);
      ASSERT_TRUE(part.ok());
      ASSERT_EQ(FindInvalidUtf8(*part), std::string_view::npos);
      text += *part;
    }
    text += detokenizer.Flush();
    const auto whole = tokenizer_->Decode(ids, options);
    ASSERT_TRUE(whole.ok());
    ASSERT_EQ(text, *whole);
  }
}

}  // namespace
}  // namespace nestling
