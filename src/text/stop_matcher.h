// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace nestling {

// Finds stop strings in text that arrives in parts. Nothing of a stop string is ever given out: an
// end that may be the beginning of one is held back until that is decided. How the text is cut into
// parts changes nothing: the stop string that is complete first ends the text, and of several that
// end at the same byte the longest counts. Costs one comparison per byte and stop string.
class StopMatcher {
 public:
  // kInvalidArgument for an empty string and one that is not UTF-8. No strings: passes all through.
  static Result<StopMatcher> Create(std::span<const std::string> stop_strings);

  // Text that can be given out now; valid until the next call. Empty once stopped().
  std::string_view Push(std::string_view text);

  // Ends the text: what was held back, if it stopped for another reason. A new text can begin.
  std::string_view Flush();

  // A stop string was found; everything since is dropped.
  bool stopped() const { return stopped_; }

 private:
  // One string with its Knuth-Morris-Pratt automaton.
  struct Stop {
    std::string text;
    std::vector<size_t> border;  // [i]: longest proper prefix of text[0, i] that also ends it
    size_t matched = 0;          // bytes of `text` that end the text so far
  };

  explicit StopMatcher(std::vector<Stop> stops) : stops_(std::move(stops)) {}
  static void Advance(Stop& stop, char byte);

  std::vector<Stop> stops_;
  std::string held_;  // then also the text of the current Push
  std::string out_;
  bool stopped_ = false;
};

}  // namespace nestling
