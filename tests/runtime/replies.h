// SPDX-License-Identifier: Apache-2.0
// What a session says, as tests of this folder compare it.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>
#include <vector>

#include "runtime/session.h"

namespace nestling::testing {

// `count` tokens, the most likely one each time, stop tokens included.
inline GenerateOptions GreedyOptions(size_t count) {
  GenerateOptions options;
  options.max_tokens = static_cast<uint32_t>(count);
  options.sampling.temperature = 0;
  options.ignore_stop_tokens = true;
  return options;
}

inline std::vector<int32_t> GreedyIds(Session& session, size_t count) {
  std::vector<int32_t> ids;
  const auto result = session.Generate(GreedyOptions(count), [&](const GeneratedToken& token) {
    if (token.id >= 0) ids.push_back(token.id);
    return true;
  });
  EXPECT_TRUE(result.ok()) << result.status().message();
  return ids;
}

// The logits of every token, [tokens, vocab].
inline std::vector<float> AllLogits(Session& session, std::span<const int32_t> ids) {
  std::vector<float> all;
  const Status status = session.PrefillWithLogits(ids, [&](size_t, std::span<const float> row) {
    all.insert(all.end(), row.begin(), row.end());
    return OkStatus();
  });
  EXPECT_TRUE(status.ok()) << status.message();
  return all;
}

// rms(a - b) / rms(b).
inline double RelativeRms(std::span<const float> a, std::span<const float> b) {
  EXPECT_EQ(a.size(), b.size());
  double error = 0, power = 0;
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    error += (double{a[i]} - b[i]) * (double{a[i]} - b[i]);
    power += double{b[i]} * b[i];
  }
  return std::sqrt(error / power);
}

}  // namespace nestling::testing
