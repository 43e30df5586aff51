// SPDX-License-Identifier: Apache-2.0
#include "text/stop_matcher.h"

#include <algorithm>
#include <utility>

#include "text/utf8.h"

namespace nestling {

Result<StopMatcher> StopMatcher::Create(std::span<const std::string> stop_strings) {
  std::vector<Stop> stops;
  for (size_t i = 0; i < stop_strings.size(); ++i) {
    const std::string& text = stop_strings[i];
    if (text.empty()) return InvalidArgument("stop string ", i, " is empty");
    if (const size_t invalid = FindInvalidUtf8(text); invalid != std::string::npos) {
      return InvalidArgument("stop string ", i, ": not UTF-8 at byte ", invalid);
    }
    Stop stop{text, std::vector<size_t>(text.size(), 0)};
    for (size_t n = 1, border = 0; n < text.size(); ++n) {
      while (border > 0 && text[n] != text[border]) border = stop.border[border - 1];
      if (text[n] == text[border]) ++border;
      stop.border[n] = border;
    }
    stops.push_back(std::move(stop));
  }
  return StopMatcher(std::move(stops));
}

void StopMatcher::Advance(Stop& stop, char byte) {
  while (stop.matched > 0 && byte != stop.text[stop.matched]) {
    stop.matched = stop.border[stop.matched - 1];
  }
  if (byte == stop.text[stop.matched]) ++stop.matched;
}

std::string_view StopMatcher::Push(std::string_view text) {
  out_.clear();
  if (stopped_) return out_;
  for (const char byte : text) {
    held_.push_back(byte);
    size_t matched = 0;  // bytes of the longest stop string that ends here
    size_t longest = 0;  // bytes of the longest beginning of one that ends here
    for (Stop& stop : stops_) {
      Advance(stop, byte);
      if (stop.matched == stop.text.size()) matched = std::max(matched, stop.matched);
      longest = std::max(longest, stop.matched);
    }
    if (matched > 0) {
      stopped_ = true;
      out_.append(held_, 0, held_.size() - matched);
      held_.clear();
      return out_;
    }
    out_.append(held_, 0, held_.size() - longest);
    held_.erase(0, held_.size() - longest);
  }
  return out_;
}

std::string_view StopMatcher::Flush() {
  out_ = held_;
  held_.clear();
  stopped_ = false;
  for (Stop& stop : stops_) stop.matched = 0;
  return out_;
}

}  // namespace nestling
