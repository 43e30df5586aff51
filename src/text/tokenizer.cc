// SPDX-License-Identifier: Apache-2.0
#include "text/tokenizer.h"

#include <sentencepiece_processor.h>

#include <algorithm>
#include <exception>
#include <mutex>
#include <new>

#include "text/utf8.h"

// In SentencePiece's library but in none of its installed headers. Without it every load would
// write a line to the host application's stderr.
namespace sentencepiece::logging {
void SetMinLogLevel(int level);
}

namespace nestling {
namespace {

constexpr std::string_view kSpace = "\xE2\x96\x81";  // U+2581

// Longer texts are encoded in blocks of at least this size, to bound SentencePiece's memory. A
// block ends where no piece of the vocabulary can reach across, so that this changes nothing.
constexpr size_t kBlockBytes = 4096;

struct SpecialName {
  std::string_view text;
  int32_t SpecialTokens::*id;  // nullptr: known by its name only
};

constexpr SpecialName kSpecialNames[] = {
    {"<bos>", &SpecialTokens::bos},
    {"<eos>", &SpecialTokens::eos},
    {"<pad>", &SpecialTokens::pad},
    {"<unk>", &SpecialTokens::unk},
    {"<start_of_turn>", nullptr},
    {"<end_of_turn>", nullptr},
    {"<start_of_image>", &SpecialTokens::start_of_image},
    {"<end_of_image>", &SpecialTokens::end_of_image},
    {"<image_soft_token>", &SpecialTokens::image_soft},
    {"<start_of_audio>", &SpecialTokens::start_of_audio},
    {"<end_of_audio>", &SpecialTokens::end_of_audio},
    {"<audio_soft_token>", &SpecialTokens::audio_soft},
};

// Ids above the vocabulary are for the towers' tokens, of which there are a few hundred.
constexpr int32_t kMaxSpecialId = 1 << 24;

Status CheckSpecialTokens(const SpecialTokens& special) {
  for (const SpecialName& name : kSpecialNames) {
    if (name.id == nullptr) continue;
    const int32_t id = special.*name.id;
    if (id < -1 || id > kMaxSpecialId) {
      return BadModel("special token ", name.text, " has the id ", id, ", want 0 to ",
                      kMaxSpecialId, ", or -1 for none");
    }
  }
  return OkStatus();
}

// Runs `body`, which calls SentencePiece; its trie builder and its containers throw.
template <typename Body>
Status Shielded(Body&& body) {
  try {
    const sentencepiece::util::Status status = body();
    if (status.ok()) return OkStatus();
    return BadModel("tokenizer: SentencePiece: ", status.message());
  } catch (const std::bad_alloc&) {
    return OutOfMemory("tokenizer: out of memory");
  } catch (const std::exception& error) {
    return BadModel("tokenizer: SentencePiece: ", error.what());
  }
}

void SilenceSentencePiece() {
  static std::once_flag once;
  constexpr int kFatal = 3;
  std::call_once(once, [] { sentencepiece::logging::SetMinLogLevel(kFatal); });
}

}  // namespace

Tokenizer::Tokenizer() = default;
Tokenizer::~Tokenizer() = default;

Result<std::unique_ptr<Tokenizer>> Tokenizer::Create(std::span<const std::byte> model,
                                                     const SpecialTokens& special) {
  RETURN_IF_ERROR(CheckSpecialTokens(special));
  ASSIGN_OR_RETURN(std::vector<Piece> pieces, ParseSentencePieceModel(model));
  std::unique_ptr<Tokenizer> tokenizer(new Tokenizer);
  tokenizer->special_ = special;
  tokenizer->KeepTexts(pieces);
  tokenizer->CollectSpecials(pieces);
  // Where no thread can be started, the first Encode builds.
  tokenizer->built_ = std::async(
      std::launch::async | std::launch::deferred,
      [self = tokenizer.get(), pieces = std::move(pieces)] { return self->Build(pieces); });
  return tokenizer;
}

void Tokenizer::KeepTexts(std::span<Piece> pieces) {
  size_t bytes = 0;
  for (const Piece& piece : pieces) bytes += piece.text.size();
  texts_.reserve(bytes);
  text_ends_.reserve(pieces.size());
  for (Piece& piece : pieces) {
    const size_t begin = texts_.size();
    texts_.append(piece.text);
    text_ends_.push_back(static_cast<uint32_t>(texts_.size()));
    piece.text = std::string_view(texts_).substr(begin);
  }
}

Status Tokenizer::Build(std::span<const Piece> pieces) {
  return Shielded([&] {
    FindDividers(pieces);
    // SentencePiece never sees the bytes that came in, only a model of our own making: nothing in
    // it but checked pieces and settings, and the special ones as control pieces, which it never
    // finds in text.
    const std::string rebuilt = BuildSentencePieceModel(pieces);
    SilenceSentencePiece();
    processor_ = std::make_unique<sentencepiece::SentencePieceProcessor>();
    return processor_->LoadFromSerializedProto(rebuilt);
  });
}

Status Tokenizer::WaitUntilReady() const { return built_.get(); }

void Tokenizer::CollectSpecials(std::span<Piece> pieces) {
  const auto num_pieces = static_cast<int32_t>(pieces.size());
  const auto make_special = [&](int32_t id) {
    Piece& piece = pieces[id];
    if (piece.type == PieceType::kByte) return;
    if (piece.type != PieceType::kUnknown) piece.type = PieceType::kControl;
    specials_.push_back({std::string(piece.text), id});
  };
  for (int32_t id = 0; id < num_pieces; ++id) {
    const Piece& piece = pieces[id];
    const bool has_special_name =
        std::any_of(std::begin(kSpecialNames), std::end(kSpecialNames),
                    [&](const SpecialName& name) { return name.text == piece.text; });
    const bool has_special_id = std::any_of(
        std::begin(kSpecialNames), std::end(kSpecialNames),
        [&](const SpecialName& name) { return name.id != nullptr && special_.*name.id == id; });
    if (piece.type == PieceType::kControl || piece.type == PieceType::kUnknown ||
        has_special_name || has_special_id) {
      make_special(id);
    }
  }
  const auto by_text = [](const SpecialString& a, const SpecialString& b) {
    return a.text < b.text;
  };
  std::sort(specials_.begin(), specials_.end(), by_text);
  size_ = pieces.size();
  for (const SpecialName& name : kSpecialNames) {
    const int32_t id = name.id == nullptr ? -1 : special_.*name.id;
    if (id < 0) continue;
    SpecialString special{std::string(name.text), id};
    if (id >= num_pieces) {
      added_.push_back(special);
      size_ = std::max(size_, static_cast<size_t>(id) + 1);
    }
    // The vocabulary's own use of a name goes first.
    const auto at = std::lower_bound(specials_.begin(), specials_.end(), special, by_text);
    if (at == specials_.end() || at->text != special.text) specials_.insert(at, std::move(special));
  }
  for (const SpecialString& special : specials_) {
    special_first_bytes_.set(static_cast<uint8_t>(special.text[0]));
  }
  types_.reserve(pieces.size());
  for (const Piece& piece : pieces) types_.push_back(piece.type);
}

Result<std::vector<int32_t>> Tokenizer::Encode(std::string_view text,
                                               const EncodeOptions& options) const {
  const PromptSegment segment{std::string(text), options.parse_special};
  return EncodeSegments({&segment, 1}, options.add_bos);
}

Result<std::vector<int32_t>> Tokenizer::EncodeSegments(std::span<const PromptSegment> segments,
                                                       bool add_bos) const {
  if (add_bos && special_.bos < 0) {
    return FailedPrecondition("<bos> is to be added, but the model has none");
  }
  std::vector<int32_t> ids;
  if (add_bos) ids.push_back(special_.bos);
  bool at_own_bos = add_bos;  // nothing but the <bos> that we added: the text's own one is the same
  std::string ordinary;       // text since the last special token, from one segment or several
  for (size_t i = 0; i < segments.size(); ++i) {
    const std::string_view text = segments[i].text;
    const size_t invalid = FindInvalidUtf8(text);
    if (invalid != std::string_view::npos) {
      return InvalidArgument("text", segments.size() > 1 ? StrCat(" segment ", i) : "",
                             ": not UTF-8 at byte ", invalid);
    }
    if (!segments[i].parse_special) {
      ordinary.append(text);
      continue;
    }
    size_t copied = 0;
    for (size_t at = 0; at < text.size();) {
      const SpecialString* special = MatchSpecial(text.substr(at));
      if (special == nullptr) {
        ++at;
        continue;
      }
      ordinary.append(text.substr(copied, at - copied));
      RETURN_IF_ERROR(EncodeOrdinary(ordinary, ids));
      ordinary.clear();
      if (!at_own_bos || ids.size() > 1 || special->id != special_.bos) ids.push_back(special->id);
      at_own_bos = false;
      at += special->text.size();
      copied = at;
    }
    ordinary.append(text.substr(copied));
  }
  RETURN_IF_ERROR(EncodeOrdinary(ordinary, ids));
  return ids;
}

// Merges and user-defined pieces are pieces all the same: where no piece contains the two
// characters around a place one after the other, nothing joins them.
void Tokenizer::FindDividers(std::span<const Piece> pieces) {
  space_divides_ = true;
  newline_divides_ = true;
  const auto goes_on_with = [](std::string_view text, std::string_view divider) {
    while (text.starts_with(divider)) text.remove_prefix(divider.size());
    return text.find(divider) != std::string_view::npos;
  };
  for (const Piece& piece : pieces) {
    if (piece.type == PieceType::kControl || piece.type == PieceType::kUnknown) continue;
    if (goes_on_with(piece.text, kSpace) || goes_on_with(piece.text, " ")) space_divides_ = false;
    if (goes_on_with(piece.text, "\n")) newline_divides_ = false;
  }
}

// Bytes of `text` that can be encoded apart from the rest.
size_t Tokenizer::BlockSize(std::string_view text) const {
  for (size_t i = kBlockBytes; i < text.size(); ++i) {
    if (text[i] == '\n' && text[i - 1] != '\n' && newline_divides_) return i;
    if (text[i] == ' ' && text[i - 1] != ' ' && !text.substr(0, i).ends_with(kSpace) &&
        space_divides_) {
      return i;
    }
  }
  return text.size();
}

Status Tokenizer::EncodeOrdinary(std::string_view text, std::vector<int32_t>& ids) const {
  if (text.empty()) return OkStatus();
  RETURN_IF_ERROR(WaitUntilReady());
  std::vector<int> pieces;
  while (!text.empty()) {
    const std::string_view block = text.substr(0, BlockSize(text));
    text.remove_prefix(block.size());
    if (block.size() > kMaxWordBytes) {
      return InvalidArgument("text: ", block.size(),
                             " bytes without a space or a newline where it ",
                             "could be divided, want at most ", kMaxWordBytes);
    }
    RETURN_IF_ERROR(Shielded([&] {
      return processor_->Encode({block.data(), block.size()}, &pieces);
    }));
    for (const int id : pieces) {
      // A well-made vocabulary cannot do this; a hostile one, with the same text as a control and
      // as an ordinary piece, could let a user's text begin a turn.
      if (IsSpecial(id)) {
        return BadModel("tokenizer: ordinary text became the special token ", id);
      }
    }
    ids.insert(ids.end(), pieces.begin(), pieces.end());
  }
  return OkStatus();
}

const Tokenizer::SpecialString* Tokenizer::MatchSpecial(std::string_view text) const {
  if (!special_first_bytes_.test(static_cast<uint8_t>(text[0]))) return nullptr;
  // Narrows the sorted specials, byte by byte, to those that begin like `text`. The shortest of a
  // range comes first, so it is the one that may end here.
  const SpecialString* longest = nullptr;
  auto first = specials_.begin();
  auto last = specials_.end();
  for (size_t n = 0; n < text.size() && first != last; ++n) {
    const auto byte_at = [n](const SpecialString& special) {
      return n < special.text.size() ? static_cast<uint8_t>(special.text[n]) : -1;
    };
    const int wanted = static_cast<uint8_t>(text[n]);
    first = std::partition_point(
        first, last, [&](const SpecialString& special) { return byte_at(special) < wanted; });
    last = std::partition_point(
        first, last, [&](const SpecialString& special) { return byte_at(special) == wanted; });
    if (first != last && first->text.size() == n + 1) longest = &*first;
  }
  return longest;
}

Status Tokenizer::CheckId(int32_t id) const {
  if (id >= 0 && static_cast<size_t>(id) < size_) return OkStatus();
  return InvalidArgument("token id ", id, ", want 0 to ", size_ - 1);
}

Result<std::string> Tokenizer::Decode(std::span<const int32_t> ids,
                                      const DecodeOptions& options) const {
  std::string bytes;
  for (const int32_t id : ids) RETURN_IF_ERROR(AppendTokenBytes(id, options, bytes));
  std::string text;
  text.reserve(bytes.size());
  TakeCompleteUtf8(bytes, text);
  if (!bytes.empty()) text.append(kReplacementCharacter);
  return text;
}

Result<std::string_view> Tokenizer::PieceText(int32_t id) const {
  RETURN_IF_ERROR(CheckId(id));
  if (static_cast<size_t>(id) < num_pieces()) {
    const size_t begin = id == 0 ? 0 : text_ends_[id - 1];
    return std::string_view(texts_).substr(begin, text_ends_[id] - begin);
  }
  for (const SpecialString& special : added_) {
    if (special.id == id) return std::string_view(special.text);
  }
  return std::string_view();
}

Status Tokenizer::AppendTokenBytes(int32_t id, const DecodeOptions& options,
                                   std::string& bytes) const {
  ASSIGN_OR_RETURN(std::string_view text, PieceText(id));
  if (IsSpecial(id)) {
    if (!options.skip_special) bytes.append(text);
    return OkStatus();
  }
  if (types_[id] == PieceType::kByte) {
    bytes.push_back(static_cast<char>(ParseBytePiece(text)));
    return OkStatus();
  }
  for (size_t space; (space = text.find(kSpace)) != std::string_view::npos;) {
    bytes.append(text.substr(0, space)).push_back(' ');
    text.remove_prefix(space + kSpace.size());
  }
  bytes.append(text);
  return OkStatus();
}

int32_t Tokenizer::FindSpecial(std::string_view text) const {
  const SpecialString* special = text.empty() ? nullptr : MatchSpecial(text);
  return special != nullptr && special->text.size() == text.size() ? special->id : -1;
}

bool Tokenizer::IsSpecial(int32_t id) const {
  if (id < 0 || static_cast<size_t>(id) >= size_) return false;
  if (static_cast<size_t>(id) >= num_pieces()) return true;
  return types_[id] == PieceType::kControl || types_[id] == PieceType::kUnknown;
}

}  // namespace nestling
