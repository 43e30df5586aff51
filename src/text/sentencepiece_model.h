// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace nestling {

// Values of SentencePiece's model file; GGUF's tokenizer.ggml.token_type uses the same ones.
enum class PieceType : uint8_t {
  kNormal = 1,
  kUnknown = 2,
  kControl = 3,      // never matched in text
  kUserDefined = 4,  // matched in text before anything is merged
  kUnused = 5,
  kByte = 6,  // "<0x00>" .. "<0xFF>"
};

// One entry of the vocabulary; its id is its position. A space is U+2581 in `text`.
struct Piece {
  std::string_view text;  // borrowed
  float score = 0.0f;     // of two possible merges, the one with the higher score comes first
  PieceType type = PieceType::kNormal;
};

// Limits of a vocabulary that ParseSentencePieceModel accepts. Gemma has 262,144 pieces of fewer
// than 100 bytes in a file of about 5 MB.
inline constexpr size_t kMaxModelBytes = 64u << 20;
inline constexpr size_t kMaxPieces = 1u << 19;
inline constexpr size_t kMaxPieceBytes = 1024;

// A SentencePiece model file with these pieces and Gemma's settings: BPE with byte fallback, no
// normalisation but U+0020 to U+2581, no dummy prefix. Checks nothing.
std::string BuildSentencePieceModel(std::span<const Piece> pieces);

// The pieces of a SentencePiece model file; they point into `model`. Everything that SentencePiece
// itself takes on trust is checked. kBadModel: damaged or hostile. kUnsupported: another kind of
// model or other settings than those of BuildSentencePieceModel.
Result<std::vector<Piece>> ParseSentencePieceModel(std::span<const std::byte> model);

// Value of a byte piece's text ("<0x0A>" is 10), or -1.
int ParseBytePiece(std::string_view text);

}  // namespace nestling
