// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <string>

#include "nestling/nestling.hpp"

namespace nestling::cli {

// MODEL and the options of every command that runs one.
struct ModelOptions {
  std::string model;
  std::string slice;
  uint32_t threads = 0;
  std::string cpu_mask;  // hexadecimal
  uint32_t context = 0;
  uint32_t chunk = 0;
  std::string kv = "auto";
  uint64_t memory_budget = 0;
  double decode_rate = 0;
  std::string ple = "stream";
  uint64_t ple_cache = 0;
  std::string tower = "auto";
  std::string cache_dir;

  // `this` must live until the command line is parsed.
  void AddTo(CLI::App& command);

  EngineOptions ForEngine() const;
  SessionOptions ForSession() const;
};

const char* KvTypeName(nestling_kv_type type);

}  // namespace nestling::cli
