// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <random>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "text/sentencepiece_model.h"
#include "text/tokenizer.h"

namespace nestling {

// A small vocabulary built like Gemma's: specials first, turns and newline runs as user-defined
// pieces, byte pieces, then merges in order of rank; the towers' end tokens lie above it.
struct TestVocabulary {
  std::vector<std::pair<std::string, PieceType>> entries;

  TestVocabulary() {
    Add("<pad>", PieceType::kControl);
    Add("<eos>", PieceType::kControl);
    Add("<bos>", PieceType::kControl);
    Add("<unk>", PieceType::kUnknown);
    Add("<mask>", PieceType::kUserDefined);
    Add("<start_of_turn>", PieceType::kUserDefined);
    Add("<end_of_turn>", PieceType::kUserDefined);
    for (size_t n = 1; n <= 4; ++n) Add(std::string(n, '\n'), PieceType::kUserDefined);
    Add("\u2581\u2581", PieceType::kUserDefined);
    Add("<table>", PieceType::kUserDefined);
    for (int byte = 0; byte < 256; ++byte) {
      char name[8];
      std::snprintf(name, sizeof(name), "<0x%02X>", static_cast<unsigned>(byte));
      Add(name, PieceType::kByte);
    }
    for (const char* merge :
         {"he",   "ll",          "hell", "hello", "or",         "\u2581w", "\u2581wor",
          "ld",   "\u2581world", "us",   "er",    "user",       "mo",      "de",
          "mode", "model",       "aa",   "<s",    "\u2581user", "st"}) {
      Add(merge, PieceType::kNormal);
    }
    for (const char* character : {"h", "e", "l", "o", "w", "r", "d", "\u2581", "u", "s", "m", "a",
                                  "t", "\u20AC", "<", ">"}) {
      Add(character, PieceType::kNormal);
    }
    Add("<start_of_image>", PieceType::kUserDefined);
    Add("<start_of_audio>", PieceType::kUserDefined);
  }

  void Add(std::string text, PieceType type) { entries.emplace_back(std::move(text), type); }

  int32_t Id(std::string_view text) const {
    for (size_t id = 0; id < entries.size(); ++id) {
      if (entries[id].first == text) return static_cast<int32_t>(id);
    }
    std::fprintf(stderr, "the test vocabulary has no %s\n", std::string(text).c_str());
    std::abort();
  }
  int32_t size() const { return static_cast<int32_t>(entries.size()); }

  // Pieces with scores by rank, as a trained vocabulary has them.
  std::vector<Piece> Pieces() const {
    std::vector<Piece> pieces;
    for (const auto& [text, type] : entries) {
      pieces.push_back({text, -static_cast<float>(pieces.size()), type});
    }
    return pieces;
  }
  std::string Model() const { return BuildSentencePieceModel(Pieces()); }

  // The four tokens above the vocabulary: four unnamed ids, then these.
  int32_t EndOfImage() const { return size() + 4; }
  int32_t ImageSoft() const { return size() + 5; }
  int32_t EndOfAudio() const { return size() + 6; }
  int32_t AudioSoft() const { return size() + 7; }

  SpecialTokens Special() const {
    SpecialTokens special;
    special.bos = Id("<bos>");
    special.eos = Id("<eos>");
    special.pad = Id("<pad>");
    special.unk = Id("<unk>");
    special.start_of_image = Id("<start_of_image>");
    special.start_of_audio = Id("<start_of_audio>");
    special.end_of_image = EndOfImage();
    special.image_soft = ImageSoft();
    special.end_of_audio = EndOfAudio();
    special.audio_soft = AudioSoft();
    return special;
  }

  // The test's tokenizer; a vocabulary that is refused ends the test program.
  std::unique_ptr<Tokenizer> MakeTokenizer() const {
    const std::string model = Model();
    Result<std::unique_ptr<Tokenizer>> tokenizer =
        Tokenizer::Create(std::as_bytes(std::span(model)), Special());
    if (!tokenizer.ok()) {
      std::fprintf(stderr, "test vocabulary: %s\n", tokenizer.status().message().c_str());
      std::abort();
    }
    return std::move(tokenizer).value();
  }
};

// Text of random pieces: characters inside and outside the vocabulary, spaces, newlines, specials.
inline std::string RandomText(std::mt19937& random, size_t bytes) {
  static const char* const kParts[] = {
      "hello", " world", "he",        "l",      "o",   " ",      "  ",      "\n",
      "\n\n",  "user",   "xy",        "\u00E9", "aaa", "\u20AC", "<table>", "<start_of_turn>",
      "<",     "\u2581", "\U0001F600"};
  std::string text;
  while (text.size() < bytes) text += kParts[random() % std::size(kParts)];
  return text;
}

// `text` with every `from` written as `to`.
inline std::string Replace(std::string_view text, std::string_view from, std::string_view to) {
  std::string out;
  for (size_t at; (at = text.find(from)) != std::string_view::npos;) {
    out.append(text.substr(0, at)).append(to);
    text.remove_prefix(at + from.size());
  }
  return out.append(text);
}

}  // namespace nestling
