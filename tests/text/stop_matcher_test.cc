// SPDX-License-Identifier: Apache-2.0
#include "text/stop_matcher.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <optional>
#include <random>
#include <string>
#include <vector>

namespace nestling {
namespace {

using Strings = std::vector<std::string>;

StopMatcher Make(const Strings& stops) {
  auto matcher = StopMatcher::Create(stops);
  EXPECT_TRUE(matcher.ok()) << matcher.status().message();
  return std::move(matcher).value();
}

// What each part gives out.
Strings PushAll(StopMatcher& matcher, const Strings& parts) {
  Strings out;
  for (const std::string& part : parts) out.emplace_back(matcher.Push(part));
  return out;
}

TEST(StopMatcherTest, PassesEverythingWithoutStopStrings) {
  StopMatcher matcher = Make({});
  EXPECT_EQ(PushAll(matcher, {"hello", "", " world"}), (Strings{"hello", "", " world"}));
  EXPECT_FALSE(matcher.stopped());
  EXPECT_EQ(matcher.Flush(), "");
}

TEST(StopMatcherTest, HoldsBackWhatMayBecomeAStopString) {
  StopMatcher matcher = Make({"END"});
  EXPECT_EQ(PushAll(matcher, {"the E", "N", "x"}), (Strings{"the ", "", "ENx"}));
  EXPECT_EQ(PushAll(matcher, {"EEN", "D", "more"}), (Strings{"E", "", ""}));
  EXPECT_TRUE(matcher.stopped());
}

TEST(StopMatcherTest, FindsAStopStringWithinOnePart) {
  StopMatcher matcher = Make({"\n\n"});
  EXPECT_EQ(matcher.Push("one\ntwo\n\nthree"), "one\ntwo");
  EXPECT_TRUE(matcher.stopped());
  EXPECT_EQ(matcher.Flush(), "");
}

TEST(StopMatcherTest, GivesOutWhatWasHeldWhenTheTextEnds) {
  StopMatcher matcher = Make({"STOP"});
  EXPECT_EQ(matcher.Push("go STO"), "go ");
  EXPECT_EQ(matcher.Flush(), "STO");
  // A new text does not remember the old one.
  EXPECT_EQ(matcher.Push("P"), "P");
  EXPECT_FALSE(matcher.stopped());
}

TEST(StopMatcherTest, CanBeginAnewAfterAStop) {
  StopMatcher matcher = Make({"x"});
  EXPECT_EQ(matcher.Push("axb"), "a");
  EXPECT_EQ(matcher.Flush(), "");
  EXPECT_EQ(matcher.Push("b"), "b");
}

TEST(StopMatcherTest, TakesTheOneThatIsCompleteFirstAndOfThoseTheLongest) {
  EXPECT_EQ(Make({"abc", "b"}).Push("xabc"), "xa");
  EXPECT_EQ(Make({"b", "ab"}).Push("xab"), "x");
}

TEST(StopMatcherTest, FollowsStringsThatRepeatThemselves) {
  StopMatcher matcher = Make({"aab"});
  EXPECT_EQ(PushAll(matcher, {"a", "a", "a", "a", "b"}), (Strings{"", "", "a", "a", ""}));
  EXPECT_TRUE(matcher.stopped());
}

TEST(StopMatcherTest, RefusesEmptyAndIllFormedStrings) {
  EXPECT_EQ(StopMatcher::Create(Strings{"a", ""}).status().code(), StatusCode::kInvalidArgument);
  const auto bad = StopMatcher::Create(Strings{"\xC3"});
  EXPECT_EQ(bad.status().code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(bad.status().message(), testing::HasSubstr("stop string 0: not UTF-8 at byte 0"));
}

// The rules by definition, on the whole text.
std::optional<std::string> TextBeforeStop(const std::string& text, const Strings& stops) {
  for (size_t end = 1; end <= text.size(); ++end) {
    size_t longest = 0;
    for (const std::string& stop : stops) {
      if (text.substr(0, end).ends_with(stop)) longest = std::max(longest, stop.size());
    }
    if (longest > 0) return text.substr(0, end - longest);
  }
  return std::nullopt;
}

// Bytes at the end of the text that have to be held: they begin a stop string.
size_t BytesToHold(const std::string& text, const Strings& stops) {
  size_t held = 0;
  for (const std::string& stop : stops) {
    for (size_t n = 1; n < stop.size(); ++n) {
      if (text.ends_with(stop.substr(0, n))) held = std::max(held, n);
    }
  }
  return held;
}

TEST(StopMatcherTest, DoesWhatTheRulesSayHoweverTheTextIsCut) {
  std::mt19937 random(13);
  const auto random_string = [&](size_t size) {
    std::string text(size, '\0');
    for (char& c : text) c = static_cast<char>('a' + random() % 3);
    return text;
  };
  size_t stops_found = 0;
  for (int round = 0; round < 3000; ++round) {
    Strings stops(random() % 3 + 1);
    for (std::string& stop : stops) stop = random_string(random() % 5 + 2);
    StopMatcher matcher = Make(stops);
    std::string text;
    std::string out;
    while (text.size() < 40) {
      const std::string part = random_string(random() % 6);
      text += part;
      out += matcher.Push(part);
      if (matcher.stopped()) break;
      ASSERT_EQ(out.size(), text.size() - BytesToHold(text, stops));
    }
    const bool stopped = matcher.stopped();
    out += matcher.Flush();
    const auto want = TextBeforeStop(text, stops);
    ASSERT_EQ(stopped, want.has_value());
    ASSERT_EQ(out, want.value_or(text));
    stops_found += stopped;
  }
  EXPECT_GT(stops_found, 500u);
  EXPECT_LT(stops_found, 2900u);
}

}  // namespace
}  // namespace nestling
