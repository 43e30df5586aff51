// SPDX-License-Identifier: Apache-2.0
#include "text/sentencepiece_model.h"

#include <algorithm>
#include <bit>
#include <cmath>

namespace nestling {
namespace {

// Field numbers of sentencepiece_model.proto.
constexpr uint32_t kModelPieces = 1;
constexpr uint32_t kModelTrainerSpec = 2;
constexpr uint32_t kModelNormalizerSpec = 3;
constexpr uint32_t kModelDenormalizerSpec = 5;
constexpr uint32_t kPieceText = 1;
constexpr uint32_t kPieceScore = 2;
constexpr uint32_t kPieceType = 3;
constexpr uint32_t kTrainerModelType = 3;
constexpr uint32_t kTrainerVocabSize = 4;
constexpr uint32_t kTrainerWhitespaceAsSuffix = 24;
constexpr uint32_t kTrainerByteFallback = 35;
constexpr uint32_t kNormalizerName = 1;
constexpr uint32_t kNormalizerCharsmap = 2;
constexpr uint32_t kNormalizerDummyPrefix = 3;
constexpr uint32_t kNormalizerRemoveSpaces = 4;
constexpr uint32_t kNormalizerEscapeSpaces = 5;
constexpr uint64_t kModelTypeUnigram = 1;
constexpr uint64_t kModelTypeBpe = 2;

// SentencePiece collects the user-defined pieces that match at one place in an array of this size
// and reads beyond it when there are more (each would be a prefix of the next).
constexpr size_t kMaxNestedUserDefined = 64;

enum class WireType : uint8_t { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };

struct WireField {
  uint32_t number = 0;
  WireType type = WireType::kVarint;
  uint64_t value = 0;      // of kVarint, kFixed32 and kFixed64
  std::string_view bytes;  // of kBytes
};

// Walks the fields of one protobuf message.
class WireReader {
 public:
  explicit WireReader(std::string_view message) : rest_(message) {}

  // False at the end and at malformed bytes; ok() tells which.
  bool Next(WireField& field) {
    if (rest_.empty() || !ok_) return false;
    ok_ = Read(field);
    return ok_;
  }
  bool ok() const { return ok_; }

 private:
  bool Read(WireField& field) {
    uint64_t tag = 0;
    if (!ReadVarint(tag) || (tag >> 3) == 0 || (tag >> 3) > 0x1FFFFFFF) return false;
    field.number = static_cast<uint32_t>(tag >> 3);
    field.type = static_cast<WireType>(tag & 7);
    switch (field.type) {
      case WireType::kVarint:
        return ReadVarint(field.value);
      case WireType::kFixed64:
        return ReadFixed(8, field.value);
      case WireType::kFixed32:
        return ReadFixed(4, field.value);
      case WireType::kBytes: {
        uint64_t size = 0;
        if (!ReadVarint(size) || size > rest_.size()) return false;
        field.bytes = rest_.substr(0, size);
        rest_.remove_prefix(size);
        return true;
      }
    }
    return false;  // groups, and the two types that do not exist
  }

  bool ReadVarint(uint64_t& value) {
    value = 0;
    for (size_t i = 0; i < 10 && i < rest_.size(); ++i) {
      const auto byte = static_cast<uint8_t>(rest_[i]);
      if (i == 9 && byte > 1) return false;  // more than 64 bits
      value |= uint64_t{byte & 0x7Fu} << (7 * i);
      if (byte < 0x80) {
        rest_.remove_prefix(i + 1);
        return true;
      }
    }
    return false;
  }

  bool ReadFixed(size_t bytes, uint64_t& value) {
    if (rest_.size() < bytes) return false;
    value = 0;
    for (size_t i = 0; i < bytes; ++i) {
      value |= uint64_t{static_cast<uint8_t>(rest_[i])} << (8 * i);
    }
    rest_.remove_prefix(bytes);
    return true;
  }

  std::string_view rest_;
  bool ok_ = true;
};

// What decides how text becomes pieces; the values are protobuf's defaults for absent fields.
struct Settings {
  uint64_t model_type = kModelTypeUnigram;
  bool byte_fallback = false;
  bool whitespace_as_suffix = false;
  bool add_dummy_prefix = true;
  bool remove_extra_whitespaces = true;
  bool escape_whitespaces = true;
  size_t charsmap_bytes = 0;
  size_t denormalizer_charsmap_bytes = 0;
};

Status Malformed(const char* what) {
  return BadModel("tokenizer: ", what, " is not a well-formed protobuf message");
}

Result<Piece> ParsePiece(std::string_view message, size_t id) {
  Piece piece;
  uint64_t type = static_cast<uint64_t>(PieceType::kNormal);
  WireReader reader(message);
  for (WireField field; reader.Next(field);) {
    if (field.number == kPieceText && field.type == WireType::kBytes) {
      piece.text = field.bytes;
    } else if (field.number == kPieceScore && field.type == WireType::kFixed32) {
      piece.score = std::bit_cast<float>(static_cast<uint32_t>(field.value));
    } else if (field.number == kPieceType && field.type == WireType::kVarint) {
      type = field.value;
    }
  }
  if (!reader.ok()) return BadModel("tokenizer: piece ", id, " is not well-formed");
  if (piece.text.empty() || piece.text.size() > kMaxPieceBytes) {
    return BadModel("tokenizer: piece ", id, " has ", piece.text.size(), " bytes, want 1 to ",
                    kMaxPieceBytes);
  }
  if (!std::isfinite(piece.score)) {
    return BadModel("tokenizer: piece ", id, " has the score ", piece.score, ", want a number");
  }
  if (type < 1 || type > 6) {
    return BadModel("tokenizer: piece ", id, " has the type ", type, ", want 1 to 6");
  }
  piece.type = static_cast<PieceType>(type);
  return piece;
}

Status ParseTrainerSpec(std::string_view message, Settings& settings) {
  WireReader reader(message);
  for (WireField field; reader.Next(field);) {
    if (field.type != WireType::kVarint) continue;
    if (field.number == kTrainerModelType) settings.model_type = field.value;
    if (field.number == kTrainerByteFallback) settings.byte_fallback = field.value != 0;
    if (field.number == kTrainerWhitespaceAsSuffix)
      settings.whitespace_as_suffix = field.value != 0;
  }
  return reader.ok() ? OkStatus() : Malformed("trainer_spec");
}

Status ParseNormalizerSpec(std::string_view message, Settings& settings) {
  WireReader reader(message);
  for (WireField field; reader.Next(field);) {
    if (field.number == kNormalizerCharsmap && field.type == WireType::kBytes) {
      settings.charsmap_bytes = field.bytes.size();
    }
    if (field.type != WireType::kVarint) continue;
    const bool value = field.value != 0;
    if (field.number == kNormalizerDummyPrefix) settings.add_dummy_prefix = value;
    if (field.number == kNormalizerRemoveSpaces) settings.remove_extra_whitespaces = value;
    if (field.number == kNormalizerEscapeSpaces) settings.escape_whitespaces = value;
  }
  return reader.ok() ? OkStatus() : Malformed("normalizer_spec");
}

Status ParseDenormalizerSpec(std::string_view message, Settings& settings) {
  WireReader reader(message);
  for (WireField field; reader.Next(field);) {
    if (field.number == kNormalizerCharsmap && field.type == WireType::kBytes) {
      settings.denormalizer_charsmap_bytes = field.bytes.size();
    }
  }
  return reader.ok() ? OkStatus() : Malformed("denormalizer_spec");
}

// Gemma's settings are the only ones that the special tokens, the chat template and the
// detokenizer are right for.
Status CheckSettings(const Settings& settings) {
  const auto unsupported = [](const char* name, auto found, auto wanted) {
    return Unsupported("tokenizer: ", name, " is ", found, ", this version supports ", wanted,
                       " only");
  };
  if (settings.model_type != kModelTypeBpe) {
    return unsupported("model_type", settings.model_type, "2 (BPE)");
  }
  if (!settings.byte_fallback) return unsupported("byte_fallback", "off", "on");
  if (settings.whitespace_as_suffix) return unsupported("treat_whitespace_as_suffix", "on", "off");
  if (settings.add_dummy_prefix) return unsupported("add_dummy_prefix", "on", "off");
  if (settings.remove_extra_whitespaces) {
    return unsupported("remove_extra_whitespaces", "on", "off");
  }
  if (!settings.escape_whitespaces) return unsupported("escape_whitespaces", "off", "on");
  // Also a matter of safety: SentencePiece follows the offsets in this table unchecked.
  if (settings.charsmap_bytes != 0) {
    return unsupported("precompiled_charsmap's size", settings.charsmap_bytes, 0);
  }
  if (settings.denormalizer_charsmap_bytes != 0) {
    return unsupported("the denormalizer's precompiled_charsmap's size",
                       settings.denormalizer_charsmap_bytes, 0);
  }
  return OkStatus();
}

// Rules that hold for the vocabulary as a whole. (Duplicates are left to SentencePiece, which
// reports them.)
Status CheckVocabulary(std::span<const Piece> pieces) {
  size_t num_unknown = 0;
  size_t num_bytes = 0;
  std::vector<std::string_view> user_defined;
  for (size_t id = 0; id < pieces.size(); ++id) {
    const Piece& piece = pieces[id];
    num_unknown += piece.type == PieceType::kUnknown;
    if (piece.type == PieceType::kByte) {
      if (ParseBytePiece(piece.text) < 0) {
        return BadModel("tokenizer: byte piece ", id, " is not named <0x00> to <0xFF>");
      }
      ++num_bytes;
    }
    if (piece.type == PieceType::kUserDefined) {
      if (piece.text.find('\0') != std::string_view::npos) {
        return BadModel("tokenizer: user-defined piece ", id, " contains a zero byte");
      }
      user_defined.push_back(piece.text);
    }
  }
  if (num_unknown != 1) {
    return BadModel("tokenizer: ", num_unknown, " unknown pieces, want 1");
  }
  if (num_bytes != 256) return BadModel("tokenizer: ", num_bytes, " byte pieces, want 256");
  std::sort(user_defined.begin(), user_defined.end());
  std::vector<std::string_view> prefixes;  // of the current piece, itself included, shortest first
  for (const std::string_view text : user_defined) {
    while (!prefixes.empty() && !text.starts_with(prefixes.back())) prefixes.pop_back();
    prefixes.push_back(text);
    if (prefixes.size() > kMaxNestedUserDefined) {
      return BadModel("tokenizer: more than ", kMaxNestedUserDefined,
                      " user-defined pieces that are prefixes of one another");
    }
  }
  return OkStatus();
}

void AppendVarint(std::string& out, uint64_t value) {
  while (value >= 0x80) {
    out.push_back(static_cast<char>(value | 0x80));
    value >>= 7;
  }
  out.push_back(static_cast<char>(value));
}

void AppendTag(std::string& out, uint32_t number, WireType type) {
  AppendVarint(out, (number << 3) | static_cast<uint32_t>(type));
}

void AppendVarintField(std::string& out, uint32_t number, uint64_t value) {
  AppendTag(out, number, WireType::kVarint);
  AppendVarint(out, value);
}

void AppendBytesField(std::string& out, uint32_t number, std::string_view bytes) {
  AppendTag(out, number, WireType::kBytes);
  AppendVarint(out, bytes.size());
  out.append(bytes);
}

void AppendFloatField(std::string& out, uint32_t number, float value) {
  AppendTag(out, number, WireType::kFixed32);
  const auto bits = std::bit_cast<uint32_t>(value);
  for (int shift = 0; shift < 32; shift += 8) out.push_back(static_cast<char>(bits >> shift));
}

}  // namespace

std::string BuildSentencePieceModel(std::span<const Piece> pieces) {
  std::string model;
  std::string message;
  for (const Piece& piece : pieces) {
    message.clear();
    AppendBytesField(message, kPieceText, piece.text);
    AppendFloatField(message, kPieceScore, piece.score);
    AppendVarintField(message, kPieceType, static_cast<uint64_t>(piece.type));
    AppendBytesField(model, kModelPieces, message);
  }
  message.clear();
  AppendVarintField(message, kTrainerModelType, kModelTypeBpe);
  AppendVarintField(message, kTrainerVocabSize, pieces.size());
  AppendVarintField(message, kTrainerByteFallback, 1);
  AppendBytesField(model, kModelTrainerSpec, message);
  message.clear();
  AppendBytesField(message, kNormalizerName, "identity");
  AppendVarintField(message, kNormalizerDummyPrefix, 0);
  AppendVarintField(message, kNormalizerRemoveSpaces, 0);
  AppendVarintField(message, kNormalizerEscapeSpaces, 1);
  AppendBytesField(model, kModelNormalizerSpec, message);
  return model;
}

Result<std::vector<Piece>> ParseSentencePieceModel(std::span<const std::byte> model) {
  if (model.empty()) return BadModel("tokenizer: empty");
  if (model.size() > kMaxModelBytes) {
    return BadModel("tokenizer: ", model.size(), " bytes, want at most ", kMaxModelBytes);
  }
  std::vector<Piece> pieces;
  Settings settings;
  WireReader reader({reinterpret_cast<const char*>(model.data()), model.size()});
  for (WireField field; reader.Next(field);) {
    if (field.type != WireType::kBytes) continue;
    if (field.number == kModelPieces) {
      if (pieces.size() == kMaxPieces) {
        return BadModel("tokenizer: more than ", kMaxPieces, " pieces");
      }
      ASSIGN_OR_RETURN(const Piece piece, ParsePiece(field.bytes, pieces.size()));
      pieces.push_back(piece);
    } else if (field.number == kModelTrainerSpec) {
      RETURN_IF_ERROR(ParseTrainerSpec(field.bytes, settings));
    } else if (field.number == kModelNormalizerSpec) {
      RETURN_IF_ERROR(ParseNormalizerSpec(field.bytes, settings));
    } else if (field.number == kModelDenormalizerSpec) {
      RETURN_IF_ERROR(ParseDenormalizerSpec(field.bytes, settings));
    }
  }
  if (!reader.ok()) return Malformed("the model");
  if (pieces.empty()) return BadModel("tokenizer: no pieces");
  RETURN_IF_ERROR(CheckSettings(settings));
  RETURN_IF_ERROR(CheckVocabulary(pieces));
  return pieces;
}

int ParseBytePiece(std::string_view text) {
  const auto digit = [](char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
  };
  if (text.size() != 6 || !text.starts_with("<0x") || text[5] != '>') return -1;
  const int high = digit(text[3]);
  const int low = digit(text[4]);
  return high < 0 || low < 0 ? -1 : high * 16 + low;
}

}  // namespace nestling
