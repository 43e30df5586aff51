// SPDX-License-Identifier: Apache-2.0
#include "text/detokenizer.h"

#include "text/utf8.h"

namespace nestling {

StreamingDetokenizer::StreamingDetokenizer(const Tokenizer& tokenizer, const DecodeOptions& options)
    : tokenizer_(tokenizer), options_(options) {
  pending_.reserve(kMaxPieceBytes + 3);
  text_.reserve(3 * (kMaxPieceBytes + 3));  // every byte may become a U+FFFD
}

Result<std::string_view> StreamingDetokenizer::Push(int32_t id) {
  RETURN_IF_ERROR(tokenizer_.AppendTokenBytes(id, options_, pending_));
  text_.clear();
  TakeCompleteUtf8(pending_, text_);
  return std::string_view(text_);
}

std::string_view StreamingDetokenizer::Flush() {
  text_.assign(pending_.empty() ? std::string_view() : kReplacementCharacter);
  pending_.clear();
  return text_;
}

}  // namespace nestling
