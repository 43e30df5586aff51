// SPDX-License-Identifier: Apache-2.0
#include "cli/bench_report.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <numeric>

namespace nestling::cli {
namespace {

using Json = nlohmann::ordered_json;

std::vector<double> Rates(const BenchRow& row) {
  std::vector<double> rates;
  for (const double seconds : row.seconds) rates.push_back(row.tokens() / seconds);
  return rates;
}

double Milliseconds(double seconds) { return 1e3 * seconds; }
double Megabytes(uint64_t bytes) { return static_cast<double>(bytes) / 1e6; }

// What all rows share.
Json Conditions(const BenchReport& report) {
  return {{"model", report.model},
          {"quantisation", report.quantisation},
          {"slice", report.slice},
          {"slice_reason", report.slice_reason},
          {"draft", report.draft},
          {"loaded_parameters", report.loaded_parameters},
          {"kv_type", report.kv_type},
          {"ple", report.ple},
          {"chunk_tokens", report.chunk_tokens},
          {"threads", report.threads},
          {"cpu", report.cpu},
          {"version", report.version},
          {"load_ms", Milliseconds(report.load_seconds)},
          {"peak_resident_bytes", report.peak_resident_bytes}};
}

Json RowToJson(const BenchRow& row) {
  const std::vector<double> rates = Rates(row);
  Json json = {{"test", row.Name()},
               {"prompt_tokens", row.prompt_tokens},
               {"generated_tokens", row.generated_tokens},
               {"depth", row.depth},
               {"repetitions", row.seconds.size()},
               {"tokens_per_second", Mean(rates)},
               {"stddev", Deviation(rates)},
               {"median", Percentile(rates, 50)}};
  // Empty where a row has none, so that every row has the same columns.
  const auto milliseconds = [&json](const char* key, const std::vector<double>& values,
                                    double percent) {
    json[key] = values.empty() ? Json(nullptr) : Json(Milliseconds(Percentile(values, percent)));
  };
  milliseconds("first_token_ms", row.first_token_seconds, 50);
  milliseconds("token_p50_ms", row.token_seconds, 50);
  milliseconds("token_p95_ms", row.token_seconds, 95);
  milliseconds("token_p99_ms", row.token_seconds, 99);
  json["draft_tokens"] = row.draft_tokens;
  json["accepted_tokens"] = row.accepted_tokens;
  json["kv_bytes"] = row.kv_bytes;
  json["ple_bytes_per_token"] = row.ple_bytes_per_token;
  json["ple_hit_rate"] = row.ple_hit_rate;
  json["ple_wait_ms_per_token"] = row.ple_wait_ms_per_token;
  json["resident_bytes"] = row.resident_bytes;
  json["anonymous_bytes"] = row.anonymous_bytes;
  json["file_backed_bytes"] = row.file_backed_bytes;
  return json;
}

void PrintJson(const BenchReport& report) {
  Json json = Conditions(report);
  json["tests"] = Json::array();
  for (const BenchRow& row : report.rows) json["tests"].push_back(RowToJson(row));
  std::printf("%s\n", json.dump(2).c_str());
}

Json FlatRow(const BenchReport& report, const BenchRow& row) {
  Json json = RowToJson(row);
  json.update(Conditions(report));
  return json;
}

void PrintCsv(const BenchReport& report) {
  bool header = true;
  for (const BenchRow& row : report.rows) {
    const Json json = FlatRow(report, row);
    std::string names, values;
    for (const auto& [name, value] : json.items()) {
      if (!names.empty()) {
        names += ',';
        values += ',';
      }
      names += name;
      if (!value.is_null()) values += value.dump();  // strings in quotes
    }
    if (std::exchange(header, false)) std::printf("%s\n", names.c_str());
    std::printf("%s\n", values.c_str());
  }
}

void PrintTable(const BenchReport& report, bool markdown) {
  const char* bar = markdown ? "| " : "";
  const char* gap = markdown ? " | " : "  ";
  const char* end = markdown ? " |" : "";
  std::printf("%s, %s, slice %s, %.1f M parameters loaded, kv %s\n", report.model.c_str(),
              report.quantisation.c_str(), report.slice.c_str(),
              static_cast<double>(report.loaded_parameters) / 1e6, report.kv_type.c_str());
  std::printf("nestling %s, %s, %u threads, chunk %u, load %.0f ms, peak resident %.1f MB\n\n",
              report.version.c_str(), report.cpu.c_str(), report.threads, report.chunk_tokens,
              Milliseconds(report.load_seconds), Megabytes(report.peak_resident_bytes));
  for (const BenchRow& row : report.rows) {
    if (row.draft_tokens == 0) continue;
    std::printf(
        "%s: %s drafted %llu tokens, %.1f %% were accepted\n\n", row.Name().c_str(),
        report.draft.c_str(), static_cast<unsigned long long>(row.draft_tokens),
        100.0 * static_cast<double>(row.accepted_tokens) / static_cast<double>(row.draft_tokens));
  }
  std::printf("%s%-18s%s%10s%s%8s%s%10s%s%14s%s%12s%s%12s%s%8s%s\n", bar, "test", gap, "tokens/s",
              gap, "+-", gap, "median", gap, "first token ms", gap, "anonymous MB", gap, "file MB",
              gap, "kv MB", end);
  if (markdown) std::printf("|---|---:|---:|---:|---:|---:|---:|---:|\n");
  for (const BenchRow& row : report.rows) {
    const std::vector<double> rates = Rates(row);
    char first_token[32] = "";
    if (!row.first_token_seconds.empty()) {
      std::snprintf(first_token, sizeof(first_token), "%.1f",
                    Milliseconds(Percentile(row.first_token_seconds, 50)));
    }
    std::printf("%s%-18s%s%10.2f%s%8.2f%s%10.2f%s%14s%s%12.1f%s%12.1f%s%8.1f%s\n", bar,
                row.Name().c_str(), gap, Mean(rates), gap, Deviation(rates), gap,
                Percentile(rates, 50), gap, first_token, gap, Megabytes(row.anonymous_bytes), gap,
                Megabytes(row.file_backed_bytes), gap, Megabytes(row.kv_bytes), end);
  }
}

}  // namespace

std::string BenchRow::Name() const {
  std::string name = prompt_tokens != 0 ? "pp" + std::to_string(prompt_tokens)
                                        : "tg" + std::to_string(generated_tokens);
  if (depth != 0) name += " @ d" + std::to_string(depth);
  return name;
}

double Mean(const std::vector<double>& values) {
  if (values.empty()) return 0;
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

double Deviation(const std::vector<double>& values) {
  if (values.size() < 2) return 0;
  const double mean = Mean(values);
  double sum = 0;
  for (const double value : values) sum += (value - mean) * (value - mean);
  return std::sqrt(sum / static_cast<double>(values.size() - 1));
}

double Percentile(std::vector<double> values, double percent) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  if (percent == 50 && values.size() % 2 == 0) {
    return (values[values.size() / 2 - 1] + values[values.size() / 2]) / 2;
  }
  const double rank = std::ceil(percent / 100.0 * static_cast<double>(values.size()));
  return values[static_cast<size_t>(std::max(rank, 1.0)) - 1];
}

void PrintReport(const BenchReport& report, const std::string& format) {
  if (format == "json") {
    PrintJson(report);
  } else if (format == "jsonl") {
    for (const BenchRow& row : report.rows) {
      std::printf("%s\n", FlatRow(report, row).dump().c_str());
    }
  } else if (format == "csv") {
    PrintCsv(report);
  } else {
    PrintTable(report, format == "md");
  }
}

}  // namespace nestling::cli
