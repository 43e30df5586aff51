// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <bitset>
#include <cstddef>
#include <cstdint>
#include <future>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/status.h"
#include "container/header_fields.h"
#include "text/sentencepiece_model.h"

namespace sentencepiece {
class SentencePieceProcessor;
}

namespace nestling {

struct EncodeOptions {
  // Puts <bos> in front, unless the text begins with one that `parse_special` finds.
  bool add_bos = false;
  // Special strings such as <start_of_turn> become their tokens. Off for anything that a user
  // wrote: then they are ordinary characters.
  bool parse_special = false;
};

struct DecodeOptions {
  bool skip_special = false;  // else they appear as their strings
};

// A stretch of a prompt: written by us (special strings count) or by others (they do not).
struct PromptSegment {
  std::string text;
  bool parse_special = false;
};

// Text to token ids and back: the vocabulary's SentencePiece model, and the special tokens, some of
// which lie above that vocabulary. Immutable and thread-safe.
//
// Special are: the vocabulary's control and unknown pieces, the pieces with the ids of
// `SpecialTokens`, and those with Gemma's own names (<start_of_turn>, ...), whatever their type in
// the model file. The rest of the user-defined pieces (runs of newlines, HTML tags) is ordinary
// text.
class Tokenizer {
 public:
  // `model` holds a SentencePiece model file of any origin; it is not kept. An id in `special` that
  // the vocabulary lacks gets Gemma's name (image_soft: "<image_soft_token>"). Whether the
  // vocabulary fits the model's is the caller's to check. Errors: see ParseSentencePieceModel.
  //
  // Reads and checks the pieces (40 ms for Gemma's 262,144); SentencePiece's search structures,
  // which take several times as long and which Encode alone needs, are built on another thread.
  static Result<std::unique_ptr<Tokenizer>> Create(std::span<const std::byte> model,
                                                   const SpecialTokens& special);
  ~Tokenizer();

  // Blocks until everything is built. kBadModel: SentencePiece refuses the vocabulary (a piece is
  // there twice); Encode then returns the same, all else works.
  Status WaitUntilReady() const;

  // kInvalidArgument with the byte offset when `text` is not UTF-8, or when a word is too long
  // (kMaxWordBytes); kFailedPrecondition for add_bos when the model has no <bos>.
  Result<std::vector<int32_t>> Encode(std::string_view text, const EncodeOptions& options) const;

  // The segments as one text: ordinary text is encoded across their borders, as if it had been
  // written in one piece, but a special string has to lie within one segment.
  Result<std::vector<int32_t>> EncodeSegments(std::span<const PromptSegment> segments,
                                              bool add_bos) const;

  // U+FFFD stands for what is not UTF-8. kInvalidArgument for an id outside [0, size()).
  Result<std::string> Decode(std::span<const int32_t> ids, const DecodeOptions& options) const;

  // The name of a token as it is in the vocabulary (a space is U+2581); empty for ids between the
  // vocabulary and the special tokens above it. kInvalidArgument for an id outside [0, size()).
  Result<std::string_view> PieceText(int32_t id) const;

  // Appends what the token stands for: often not a whole character. Allocates only when `bytes`
  // lacks room. kInvalidArgument for an id outside [0, size()).
  Status AppendTokenBytes(int32_t id, const DecodeOptions& options, std::string& bytes) const;

  // Id of a special string, or -1.
  int32_t FindSpecial(std::string_view text) const;
  bool IsSpecial(int32_t id) const;

  // Pieces of the vocabulary, and one more than the highest id that has a meaning.
  size_t num_pieces() const { return types_.size(); }
  size_t size() const { return size_; }
  const SpecialTokens& special_tokens() const { return special_; }

  // Most bytes between two places where a text can be divided (see kBlockBytes in the source):
  // SentencePiece needs about 200 bytes of memory for each.
  static constexpr size_t kMaxWordBytes = 2u << 20;

 private:
  struct SpecialString {
    std::string text;
    int32_t id;
  };

  Tokenizer();

  void CollectSpecials(std::span<Piece> pieces);
  // Moves the pieces' texts to texts_.
  void KeepTexts(std::span<Piece> pieces);
  // SentencePiece, and what else only Encode needs.
  Status Build(std::span<const Piece> pieces);
  void FindDividers(std::span<const Piece> pieces);
  Status EncodeOrdinary(std::string_view text, std::vector<int32_t>& ids) const;
  size_t BlockSize(std::string_view text) const;
  // The longest special string at the beginning of `text`, or nullptr.
  const SpecialString* MatchSpecial(std::string_view text) const;
  Status CheckId(int32_t id) const;

  SpecialTokens special_;
  std::string texts_;                     // of all pieces
  std::vector<uint32_t> text_ends_;       // by id, in texts_
  std::vector<PieceType> types_;          // by id
  std::vector<SpecialString> specials_;   // sorted by text; distinct
  std::vector<SpecialString> added_;      // those above the vocabulary
  std::bitset<256> special_first_bytes_;  // of specials_
  size_t size_ = 0;
  // Of Build, to be read once built_ is there.
  std::unique_ptr<sentencepiece::SentencePieceProcessor> processor_;
  // No piece goes on with a space (a newline) after anything else.
  bool space_divides_ = false;
  bool newline_divides_ = false;
  std::shared_future<Status> built_;  // last: it waits for the thread before the rest goes
};

}  // namespace nestling
