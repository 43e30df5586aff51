// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/status.h"
#include "text/tokenizer.h"

namespace nestling {

// Turns tokens into text as they come. A token may end within a character; its bytes are then held
// back until the character is complete, or until it is certain that it never will be (U+FFFD). The
// concatenation of everything returned, Flush() included, is what Tokenizer::Decode returns for all
// tokens. One stream at a time, one thread at a time. No allocation after construction.
class StreamingDetokenizer {
 public:
  // `tokenizer` is borrowed.
  StreamingDetokenizer(const Tokenizer& tokenizer, const DecodeOptions& options);

  // Text that this token completes, often the token's own; valid until the next call.
  // kInvalidArgument for an id that the tokenizer does not know; the stream is unchanged.
  Result<std::string_view> Push(int32_t id);

  // Ends the stream: U+FFFD when a character is incomplete, else nothing. A new one can begin.
  std::string_view Flush();

 private:
  const Tokenizer& tokenizer_;
  DecodeOptions options_;
  std::string pending_;  // the beginning of a character
  std::string text_;
};

}  // namespace nestling
