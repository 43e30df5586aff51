// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "cli/machine_limits.h"
#include "nestling/nestling.h"

namespace nestling::cli {

// One row: a prefill of `prompt_tokens` or a decode of `generated_tokens`, after `depth` tokens.
struct BenchRow {
  uint32_t prompt_tokens = 0;
  uint32_t generated_tokens = 0;
  uint32_t depth = 0;
  std::vector<double> seconds;  // of each repetition
  // Just before and after each repetition, the mean of both; empty where they are measured at the
  // end only.
  std::vector<MachineLimits> limits;
  // Prefill rows: from the first prompt token going in to the first token coming out.
  std::vector<double> first_token_seconds;
  // Decode rows: between tokens, of all repetitions.
  std::vector<double> token_seconds;
  uint64_t draft_tokens = 0;  // of all repetitions
  uint64_t accepted_tokens = 0;
  uint64_t kv_bytes = 0;
  uint64_t ple_bytes_per_token = 0;
  double ple_hit_rate = 0;  // of rows that were looked up
  double ple_wait_ms_per_token = 0;
  uint64_t resident_bytes = 0;  // of the process after the row
  uint64_t anonymous_bytes = 0;
  uint64_t file_backed_bytes = 0;
  uint64_t proportional_bytes = 0;       // resident, of shared pages this process's part
  double weight_bytes_per_token = 0;     // decode rows: weights that a token's step reads
  double int8_operations_per_token = 0;  // prefill rows: 2 for each product with a weight

  uint32_t tokens() const { return prompt_tokens + generated_tokens; }
  // "pp512", "tg32 @ d4096": llama-bench's names.
  std::string Name() const;
};

struct BenchReport {
  std::string model;
  std::string quantisation;
  std::string slice;
  std::string slice_reason;
  std::string draft;  // slice that drafts; empty: none
  std::string kv_type;
  std::string ple;
  std::string cpu;
  std::string version;
  uint32_t threads = 0;
  uint32_t chunk_tokens = 0;
  uint64_t loaded_parameters = 0;
  double load_seconds = 0;  // engine and session; the page cache as it was found
  // With --cold, before: load, and load to the first token of a short prompt, after the file was
  // dropped from the page cache, where `cold_cached_bytes` of it stayed.
  bool cold = false;
  double cold_load_seconds = 0;
  double cold_first_token_seconds = 0;
  uint64_t cold_cached_bytes = 0;
  nestling_packed_info packed = {};  // of the decoder
  uint64_t peak_resident_bytes = 0;  // without what measuring the limits takes
  MachineLimits limits;              // medians
  std::vector<BenchRow> rows;
};

// Mean, sample standard deviation (0 for one value), median and percentile (nearest rank).
double Mean(const std::vector<double>& values);
double Deviation(const std::vector<double>& values);
double Percentile(std::vector<double> values, double percent);

// `format`: table (for eyes), md, json (one object), jsonl (one line per row), csv.
void PrintReport(const BenchReport& report, const std::string& format);

}  // namespace nestling::cli
