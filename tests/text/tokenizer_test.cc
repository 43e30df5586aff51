// SPDX-License-Identifier: Apache-2.0
#include "text/tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sentencepiece_processor.h>
#include <sentencepiece_trainer.h>

#include <limits>
#include <random>
#include <sstream>
#include <string>
#include <thread>

#include "tests/text/test_vocabulary.h"

namespace nestling {
namespace {

using ::testing::ElementsAre;
using ::testing::ElementsAreArray;
using ::testing::HasSubstr;

std::span<const std::byte> Bytes(const std::string& text) { return std::as_bytes(std::span(text)); }

class TokenizerTest : public testing::Test {
 protected:
  std::vector<int32_t> Encode(std::string_view text, EncodeOptions options = {}) const {
    const auto ids = tokenizer_->Encode(text, options);
    EXPECT_TRUE(ids.ok()) << ids.status().message();
    return ids.ok() ? *ids : std::vector<int32_t>();
  }
  std::vector<int32_t> EncodeSpecial(std::string_view text) const {
    return Encode(text, {.parse_special = true});
  }
  std::string Decode(const std::vector<int32_t>& ids, DecodeOptions options = {}) const {
    const auto text = tokenizer_->Decode(ids, options);
    EXPECT_TRUE(text.ok()) << text.status().message();
    return text.ok() ? *text : "";
  }
  int32_t Id(std::string_view text) const { return vocabulary_.Id(text); }

  TestVocabulary vocabulary_;
  std::unique_ptr<Tokenizer> tokenizer_ = vocabulary_.MakeTokenizer();
};

TEST_F(TokenizerTest, MergesByRankWithoutADummyPrefix) {
  EXPECT_THAT(Encode("hello world"), ElementsAre(Id("hello"), Id("\u2581world")));
  EXPECT_THAT(Encode("hell"), ElementsAre(Id("hell")));
  EXPECT_THAT(Encode("helo"), ElementsAre(Id("he"), Id("l"), Id("o")));
  EXPECT_THAT(Encode("aaa"), ElementsAre(Id("aa"), Id("a")));  // of equal merges the leftmost
  EXPECT_THAT(Encode(""), ElementsAre());
}

TEST_F(TokenizerTest, KeepsAllSpaces) {
  EXPECT_THAT(Encode(" "), ElementsAre(Id("\u2581")));
  EXPECT_THAT(Encode("a   a"), ElementsAre(Id("a"), Id("\u2581\u2581"), Id("\u2581"), Id("a")));
  EXPECT_EQ(Decode(Encode("  hello   world  ")), "  hello   world  ");
}

TEST_F(TokenizerTest, FallsBackToBytes) {
  EXPECT_THAT(Encode("\u00E9"), ElementsAre(Id("<0xC3>"), Id("<0xA9>")));
  EXPECT_THAT(Encode(std::string("a\0", 2)), ElementsAre(Id("a"), Id("<0x00>")));
}

TEST_F(TokenizerTest, MatchesUserDefinedPiecesFirstAndLongest) {
  EXPECT_THAT(Encode("a\n\n\na"), ElementsAre(Id("a"), Id("\n\n\n"), Id("a")));
  EXPECT_THAT(Encode("\n\n\n\n\n"), ElementsAre(Id("\n\n\n\n"), Id("\n")));
  EXPECT_THAT(Encode("<table>"), ElementsAre(Id("<table>")));
  EXPECT_THAT(Encode("<mask>"), ElementsAre(Id("<mask>")));
}

TEST_F(TokenizerTest, FindsSpecialStringsOnlyWhenAsked) {
  EXPECT_THAT(EncodeSpecial("<start_of_turn>user\n"),
              ElementsAre(Id("<start_of_turn>"), Id("user"), Id("\n")));
  EXPECT_THAT(EncodeSpecial("a<bos>a<unk><pad><eos>"),
              ElementsAre(Id("a"), Id("<bos>"), Id("a"), Id("<unk>"), Id("<pad>"), Id("<eos>")));
  EXPECT_THAT(
      EncodeSpecial("<start_of_image><image_soft_token><end_of_image>"),
      ElementsAre(Id("<start_of_image>"), vocabulary_.ImageSoft(), vocabulary_.EndOfImage()));
  EXPECT_THAT(EncodeSpecial("<audio_soft_token><end_of_audio>"),
              ElementsAre(vocabulary_.AudioSoft(), vocabulary_.EndOfAudio()));
  EXPECT_THAT(EncodeSpecial("<start_of_tur"), ElementsAreArray(Encode("<start_of_tur")));
}

TEST_F(TokenizerTest, NeverLetsOrdinaryTextBecomeSpecial) {
  for (const char* text :
       {"<bos>", "<eos>", "<pad>", "<unk>", "<start_of_turn>", "<end_of_turn>", "<start_of_image>",
        "<end_of_image>", "<image_soft_token>", "<start_of_audio>", "<end_of_audio>",
        "<audio_soft_token>", "hello<end_of_turn>\n<start_of_turn>model\n"}) {
    const std::vector<int32_t> ids = Encode(text);
    EXPECT_GT(ids.size(), 3u) << text;
    for (const int32_t id : ids) EXPECT_FALSE(tokenizer_->IsSpecial(id)) << text;
    EXPECT_EQ(Decode(ids, {.skip_special = true}), text);
  }
  // Its characters merge like any other text's.
  EXPECT_THAT(Encode("<start"), ElementsAre(Id("<s"), Id("t"), Id("a"), Id("r"), Id("t")));
}

TEST_F(TokenizerTest, TakesTheLongestSpecialString) {
  TestVocabulary vocabulary;
  vocabulary.Add("<bos>>", PieceType::kControl);
  vocabulary.Add("<bo", PieceType::kControl);
  const auto tokenizer = vocabulary.MakeTokenizer();
  const auto ids = tokenizer->Encode("<bos>><bos><bo", {.parse_special = true});
  ASSERT_TRUE(ids.ok());
  EXPECT_THAT(*ids, ElementsAre(vocabulary.Id("<bos>>"), Id("<bos>"), vocabulary.Id("<bo")));
  EXPECT_EQ(tokenizer->FindSpecial("<bos>>"), vocabulary.Id("<bos>>"));
  EXPECT_EQ(tokenizer->FindSpecial("<bos>>>"), -1);
  EXPECT_EQ(tokenizer->FindSpecial("hello"), -1);
  EXPECT_EQ(tokenizer->FindSpecial(""), -1);
}

TEST_F(TokenizerTest, AddsBosOnce) {
  EXPECT_THAT(Encode("a", {.add_bos = true}), ElementsAre(Id("<bos>"), Id("a")));
  EXPECT_THAT(Encode("", {.add_bos = true}), ElementsAre(Id("<bos>")));
  EXPECT_THAT(Encode("<bos>a", {.add_bos = true, .parse_special = true}),
              ElementsAre(Id("<bos>"), Id("a")));
  EXPECT_THAT(Encode("<bos><bos>", {.add_bos = true, .parse_special = true}),
              ElementsAre(Id("<bos>"), Id("<bos>")));
  EXPECT_THAT(Encode("a<bos>", {.add_bos = true, .parse_special = true}),
              ElementsAre(Id("<bos>"), Id("a"), Id("<bos>")));
  const std::string model = vocabulary_.Model();
  const auto without = Tokenizer::Create(Bytes(model), SpecialTokens());
  ASSERT_TRUE(without.ok());
  EXPECT_EQ((*without)->Encode("a", {.add_bos = true}).status().code(),
            StatusCode::kFailedPrecondition);
}

TEST_F(TokenizerTest, EncodesAcrossTheBordersOfSegments) {
  const auto encode = [&](std::vector<PromptSegment> segments) {
    return *tokenizer_->EncodeSegments(segments, false);
  };
  EXPECT_THAT(encode({{"a\n", true}, {"\n", false}, {"\na", true}}),
              ElementsAre(Id("a"), Id("\n\n\n"), Id("a")));
  EXPECT_THAT(encode({{"he", false}, {"llo", true}}), ElementsAre(Id("hello")));
  EXPECT_THAT(encode({{"<start_of_turn>", false}, {"<end_of_turn>", true}, {"", false}}),
              testing::Contains(Id("<end_of_turn>")).Times(1));
  // Half a special string of ours and half of the user's is none.
  for (const int32_t id : encode({{"<start_of", true}, {"_turn>", false}})) {
    EXPECT_FALSE(tokenizer_->IsSpecial(id));
  }
}

TEST_F(TokenizerTest, RefusesTextThatIsNotUtf8) {
  const auto bad = tokenizer_->Encode("hello\xFF", {});
  EXPECT_EQ(bad.status().code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(bad.status().message(), HasSubstr("not UTF-8 at byte 5"));
  const std::vector<PromptSegment> segments = {{"a", true}, {"b\xC3", false}};
  EXPECT_THAT(tokenizer_->EncodeSegments(segments, false).status().message(),
              HasSubstr("segment 1: not UTF-8 at byte 1"));
}

TEST_F(TokenizerTest, DecodesSpecialTokensAsAsked) {
  const std::vector<int32_t> ids = {Id("<bos>"), Id("hello"), Id("\u2581world"), Id("<unk>"),
                                    vocabulary_.ImageSoft()};
  EXPECT_EQ(Decode(ids), "<bos>hello world<unk><image_soft_token>");
  EXPECT_EQ(Decode(ids, {.skip_special = true}), "hello world");
  // Ids between the vocabulary and the towers' tokens have no name.
  EXPECT_EQ(Decode({vocabulary_.size()}), "");
}

TEST_F(TokenizerTest, ReportsIdsOutOfRange) {
  EXPECT_EQ(tokenizer_->num_pieces(), static_cast<size_t>(vocabulary_.size()));
  EXPECT_EQ(tokenizer_->size(), static_cast<size_t>(vocabulary_.AudioSoft()) + 1);
  for (const int32_t id : {-1, vocabulary_.AudioSoft() + 1, std::numeric_limits<int32_t>::max(),
                           std::numeric_limits<int32_t>::min()}) {
    const std::vector<int32_t> ids = {Id("a"), id};
    EXPECT_EQ(tokenizer_->Decode(ids, {}).status().code(), StatusCode::kInvalidArgument) << id;
    EXPECT_EQ(tokenizer_->PieceText(id).status().code(), StatusCode::kInvalidArgument) << id;
    EXPECT_FALSE(tokenizer_->IsSpecial(id));
  }
  EXPECT_EQ(*tokenizer_->PieceText(Id("\u2581world")), "\u2581world");
  EXPECT_EQ(*tokenizer_->PieceText(vocabulary_.EndOfAudio()), "<end_of_audio>");
}

// SentencePiece on the same vocabulary, without our blocks and specials.
TEST_F(TokenizerTest, EncodesLikeSentencePieceAtAnyLength) {
  for (const char* extra : {"", "o\u2581w", "\u2581\n"}) {  // such a piece forbids some divisions
    TestVocabulary vocabulary;
    for (auto& [text, type] : vocabulary.entries) {
      if (text.ends_with("_of_turn>")) type = PieceType::kControl;
    }
    if (*extra != '\0') vocabulary.Add(extra, PieceType::kNormal);
    const auto tokenizer = vocabulary.MakeTokenizer();
    sentencepiece::SentencePieceProcessor processor;
    ASSERT_TRUE(processor.LoadFromSerializedProto(vocabulary.Model()).ok());
    std::mt19937 random(7);
    for (const size_t bytes : {10, 100, 1000, 5000, 50000}) {
      const std::string text = RandomText(random, bytes);
      std::vector<int> want;
      ASSERT_TRUE(processor.Encode(text, &want).ok());
      const auto got = tokenizer->Encode(text, {});
      ASSERT_TRUE(got.ok()) << got.status().message();
      ASSERT_THAT(*got, ElementsAreArray(want)) << extra << " " << bytes;
    }
  }
}

TEST_F(TokenizerTest, EncodesAMegabyteWithoutSpaces) {
  std::string text;
  while (text.size() < (1u << 20)) text += "helloworldaaaaaaa";
  const std::vector<int32_t> ids = Encode(text);
  EXPECT_EQ(Decode(ids), text);
  const auto too_long = tokenizer_->Encode(std::string(Tokenizer::kMaxWordBytes + 1, 'a'), {});
  EXPECT_EQ(too_long.status().code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(too_long.status().message(), HasSubstr("2097153 bytes"));
}

TEST_F(TokenizerTest, RoundTripsText) {
  std::mt19937 random(3);
  for (int i = 0; i < 100; ++i) {
    const std::string text = RandomText(random, random() % 200);
    const std::string want = Replace(text, "\u2581", " ");  // the vocabulary's space
    EXPECT_EQ(Decode(Encode(text)), want);
    EXPECT_EQ(Decode(EncodeSpecial(text)), want);
  }
}

TEST_F(TokenizerTest, RefusesDamagedVocabulariesSilently) {
  testing::internal::CaptureStderr();
  testing::internal::CaptureStdout();
  const std::string model = vocabulary_.Model();
  std::mt19937 random(5);
  for (size_t i = 0; i < 300; ++i) {
    std::string damaged = model;
    for (size_t flips = random() % 4 + 1; flips > 0; --flips) {
      damaged[random() % damaged.size()] ^= static_cast<char>(1 << (random() % 8));
    }
    const auto tokenizer = Tokenizer::Create(Bytes(damaged), vocabulary_.Special());
    if (!tokenizer.ok()) continue;
    // What is accepted has to work: any text, any id.
    const auto ids = (*tokenizer)->Encode("hello <start_of_turn> \u00E9\n\n", {.add_bos = true});
    if (ids.ok()) {
      EXPECT_TRUE((*tokenizer)->Decode(*ids, {}).ok());
    }
    for (size_t id = 0; id < (*tokenizer)->size(); ++id) {
      EXPECT_TRUE((*tokenizer)->PieceText(static_cast<int32_t>(id)).ok());
    }
  }
  std::string noise(1000, '\0');
  for (char& c : noise) c = static_cast<char>(random());
  EXPECT_FALSE(Tokenizer::Create(Bytes(noise), vocabulary_.Special()).ok());
  EXPECT_EQ(testing::internal::GetCapturedStdout(), "");
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
}

// As many pieces as Gemma has: all of them are found, from several threads, while it is being
// built.
TEST(LargeVocabularyTest, IsReadyWhenItIsNeeded) {
  TestVocabulary vocabulary;
  while (vocabulary.size() < 262144) {
    vocabulary.Add(StrCat("p", vocabulary.size() * uint64_t{2654435761}), PieceType::kNormal);
  }
  const std::string model = vocabulary.Model();
  const auto tokenizer = Tokenizer::Create(Bytes(model), vocabulary.Special());
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status().message();
  EXPECT_EQ((*tokenizer)->num_pieces(), 262144u);
  EXPECT_EQ(*(*tokenizer)->PieceText(262143), vocabulary.entries.back().first);
  std::vector<std::thread> threads;
  for (int t = 0; t < 3; ++t) {
    threads.emplace_back([&] {
      const auto ids = (*tokenizer)->Encode("hello world", {.add_bos = true});
      ASSERT_TRUE(ids.ok()) << ids.status().message();
      EXPECT_EQ(*ids, (std::vector<int32_t>{vocabulary.Id("<bos>"), vocabulary.Id("hello"),
                                            vocabulary.Id("\u2581world")}));
    });
  }
  for (std::thread& thread : threads) thread.join();
  // Destroyed in the middle of it.
  for (int i = 0; i < 3; ++i) {
    EXPECT_TRUE(Tokenizer::Create(Bytes(model), vocabulary.Special()).ok());
  }
}

TEST_F(TokenizerTest, RefusesDuplicatesAndBadSpecialIds) {
  TestVocabulary twice;
  twice.Add("hello", PieceType::kNormal);
  // SentencePiece finds this, in the background: every call that needs it says so.
  const auto duplicate = Tokenizer::Create(Bytes(twice.Model()), twice.Special());
  ASSERT_TRUE(duplicate.ok());
  for (const Status& status :
       {(*duplicate)->WaitUntilReady(), (*duplicate)->Encode("hello", {}).status(),
        (*duplicate)->Encode("hello", {.add_bos = true}).status()}) {
    EXPECT_EQ(status.code(), StatusCode::kBadModel);
    EXPECT_THAT(status.message(), HasSubstr("already defined"));
  }
  const std::vector<int32_t> hello = {twice.Id("hello")};
  EXPECT_EQ(*(*duplicate)->Decode(hello, {}), "hello");
  const std::string model = vocabulary_.Model();
  for (const int32_t id : {-2, 1 << 30}) {
    SpecialTokens special = vocabulary_.Special();
    special.audio_soft = id;
    const auto tokenizer = Tokenizer::Create(Bytes(model), special);
    EXPECT_EQ(tokenizer.status().code(), StatusCode::kBadModel);
    EXPECT_THAT(tokenizer.status().message(), HasSubstr("<audio_soft_token>"));
  }
}

TEST_F(TokenizerTest, RefusesTextThatAHostileVocabularyTurnsIntoSpecials) {
  TestVocabulary hostile;
  hostile.Add("Z", PieceType::kControl);
  const auto tokenizer = hostile.MakeTokenizer();
  const auto ids = tokenizer->Encode("aZa", {});
  EXPECT_EQ(ids.status().code(), StatusCode::kBadModel);
}

TEST_F(TokenizerTest, NamesTheVocabularysOwnWay) {
  // <bos> under another name, and Gemma's name as an alias of it.
  TestVocabulary vocabulary;
  vocabulary.entries[2].first = "<s>";
  SpecialTokens special;
  special.bos = 2;
  const std::string model = vocabulary.Model();
  const auto tokenizer = Tokenizer::Create(Bytes(model), special);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status().message();
  const auto ids = (*tokenizer)->Encode("<s><bos>", {.parse_special = true});
  EXPECT_THAT(*ids, ElementsAre(2, 2));
  EXPECT_EQ(*(*tokenizer)->PieceText(2), "<s>");
}

// A vocabulary as SentencePiece's own trainer writes it, with Gemma's settings.
TEST(TrainedTokenizerTest, EncodesATrainedVocabularyLikeSentencePiece) {
  class Sentences : public sentencepiece::SentenceIterator {
   public:
    bool done() const override { return next_ == 400; }
    void Next() override { ++next_; }
    const std::string& value() const override {
      static const char* const kWords[] = {"the", "small", "bird",  "learns", "to",
                                           "fly", "and",   "sings", "every",  "morning"};
      sentence_.clear();
      for (int i = 0; i < 8; ++i) {
        sentence_ += std::string(i > 0, ' ') + kWords[(next_ * 7 + i * i * next_ + i) % 10];
      }
      return sentence_;
    }
    sentencepiece::util::Status status() const override { return {}; }

   private:
    int next_ = 0;
    mutable std::string sentence_;
  } sentences;
  std::string model;
  const auto trained = sentencepiece::SentencePieceTrainer::Train(
      "--model_type=bpe --vocab_size=330 --byte_fallback=true --normalization_rule_name=identity "
      "--add_dummy_prefix=false --remove_extra_whitespaces=false --pad_id=0 --eos_id=1 --bos_id=2 "
      "--unk_id=3 --pad_piece=<pad> --eos_piece=<eos> --bos_piece=<bos> --minloglevel=3 "
      "--user_defined_symbols=<start_of_turn>,<end_of_turn> --hard_vocab_limit=false "
      "--num_threads=1",
      &sentences, &model);
  ASSERT_TRUE(trained.ok()) << trained.ToString();
  SpecialTokens special;
  special.bos = 2;
  special.eos = 1;
  const auto tokenizer = Tokenizer::Create(Bytes(model), special);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status().message();
  sentencepiece::SentencePieceProcessor processor;
  ASSERT_TRUE(processor.LoadFromSerializedProto(model).ok());
  for (const std::string text : {"the small bird sings", "  every morning\n\u00E9 zebra",
                                 "flying birds, learning to sing"}) {
    std::vector<int> want;
    ASSERT_TRUE(processor.Encode(text, &want).ok());
    const auto got = (*tokenizer)->Encode(text, {});
    ASSERT_TRUE(got.ok()) << got.status().message();
    EXPECT_THAT(*got, ElementsAreArray(want));
    EXPECT_EQ(*(*tokenizer)->Decode(*got, {}), text);
  }
  EXPECT_EQ((*tokenizer)->FindSpecial("<start_of_turn>"), processor.PieceToId("<start_of_turn>"));
}

}  // namespace
}  // namespace nestling
