// SPDX-License-Identifier: Apache-2.0
#include "cli/bench_report.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <iterator>
#include <nlohmann/json.hpp>
#include <numeric>

#include "cli/json_rows.h"
#include "cli/packed_json.h"

namespace nestling::cli {
namespace {

using Json = nlohmann::ordered_json;

std::vector<double> Rates(const BenchRow& row) {
  std::vector<double> rates;
  for (const double seconds : row.seconds) rates.push_back(row.tokens() / seconds);
  return rates;
}

double Milliseconds(double seconds) { return 1e3 * seconds; }
// The rates as shares of what the machine allows at that time, their median: of reading memory for
// decode, of int8 products for prefill. 0: unknown.
double MedianShare(const BenchReport& report, const BenchRow& row, double MachineLimits::*limit,
                   double work_per_token) {
  if (report.limits.*limit == 0) return 0;
  std::vector<double> shares = Rates(row);
  for (size_t i = 0; i < shares.size(); ++i) {
    shares[i] *= work_per_token / ((row.limits.empty() ? report.limits : row.limits[i]).*limit);
  }
  return Percentile(shares, 50);
}
double ShareOfReading(const BenchReport& report, const BenchRow& row) {
  return MedianShare(report, row, &MachineLimits::read_bytes_per_second,
                     row.weight_bytes_per_token);
}
double ShareOfInt8Peak(const BenchReport& report, const BenchRow& row) {
  return MedianShare(report, row, &MachineLimits::int8_operations_per_second,
                     row.int8_operations_per_token);
}

double Megabytes(uint64_t bytes) { return static_cast<double>(bytes) / 1e6; }

// What all rows share.
Json Conditions(const BenchReport& report) {
  const auto cold = [&report](double value) { return report.cold ? Json(value) : Json(nullptr); };
  Json json = {{"model", report.model},
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
               {"cold_load_ms", cold(Milliseconds(report.cold_load_seconds))},
               {"cold_first_token_ms", cold(Milliseconds(report.cold_first_token_seconds))},
               {"cold_cached_bytes", cold(static_cast<double>(report.cold_cached_bytes))},
               {"peak_resident_bytes", report.peak_resident_bytes},
               {"read_bytes_per_second", report.limits.read_bytes_per_second},
               {"int8_operations_per_second", report.limits.int8_operations_per_second}};
  AddPacked(report.packed, &json);
  return json;
}

Json RowToJson(const BenchReport& report, const BenchRow& row) {
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
  json["proportional_bytes"] = row.proportional_bytes;
  json["weight_bytes_per_token"] = row.weight_bytes_per_token;
  json["int8_operations_per_token"] = row.int8_operations_per_token;
  json["share_of_reading"] = ShareOfReading(report, row);
  json["share_of_int8_peak"] = ShareOfInt8Peak(report, row);
  return json;
}

std::string Format(double value, int decimals) {
  char text[32];
  std::snprintf(text, sizeof(text), "%.*f", decimals, value);
  return text;
}

// Empty where a row has no such times.
std::string MillisecondsText(const std::vector<double>& seconds, double percent) {
  return seconds.empty() ? "" : Format(Milliseconds(Percentile(seconds, percent)), 1);
}

struct Column {
  const char* title;
  int width;
  std::string (*text)(const BenchReport& report, const BenchRow& row);
};
constexpr Column kColumns[] = {
    {"tokens/s", 9,
     [](const BenchReport&, const BenchRow& row) { return Format(Mean(Rates(row)), 2); }},
    {"+-", 6,
     [](const BenchReport&, const BenchRow& row) { return Format(Deviation(Rates(row)), 2); }},
    {"median", 8,
     [](const BenchReport&, const BenchRow& row) { return Format(Percentile(Rates(row), 50), 2); }},
    {"limit %", 7,  // prefill: of the int8 peak; decode: of reading memory
     [](const BenchReport& report, const BenchRow& row) {
       const double share =
           row.prompt_tokens != 0 ? ShareOfInt8Peak(report, row) : ShareOfReading(report, row);
       return share != 0 ? Format(100 * share, 1) : std::string();
     }},
    {"first token ms", 14,
     [](const BenchReport&, const BenchRow& row) {
       return MillisecondsText(row.first_token_seconds, 50);
     }},
    {"p50 ms", 7,
     [](const BenchReport&, const BenchRow& row) {
       return MillisecondsText(row.token_seconds, 50);
     }},
    {"p95 ms", 7,
     [](const BenchReport&, const BenchRow& row) {
       return MillisecondsText(row.token_seconds, 95);
     }},
    {"p99 ms", 7,
     [](const BenchReport&, const BenchRow& row) {
       return MillisecondsText(row.token_seconds, 99);
     }},
    {"anonymous MB", 12,
     [](const BenchReport&, const BenchRow& row) {
       return Format(Megabytes(row.anonymous_bytes), 1);
     }},
    {"file MB", 8,
     [](const BenchReport&, const BenchRow& row) {
       return Format(Megabytes(row.file_backed_bytes), 1);
     }},
    {"kv MB", 7,
     [](const BenchReport&, const BenchRow& row) { return Format(Megabytes(row.kv_bytes), 1); }},
};

void PrintHeading(const BenchReport& report) {
  std::printf("%s, %s, slice %s, %.1f M parameters loaded, kv %s\n", report.model.c_str(),
              report.quantisation.c_str(), report.slice.c_str(),
              static_cast<double>(report.loaded_parameters) / 1e6, report.kv_type.c_str());
  std::printf("nestling %s, %s, %u threads, chunk %u, load %.0f ms, peak resident %.1f MB\n",
              report.version.c_str(), report.cpu.c_str(), report.threads, report.chunk_tokens,
              Milliseconds(report.load_seconds), Megabytes(report.peak_resident_bytes));
  if (report.limits.read_bytes_per_second != 0) {
    std::printf("this machine reads %.1f GB/s, int8 peak %.0f GOPS\n",
                report.limits.read_bytes_per_second / 1e9,
                report.limits.int8_operations_per_second / 1e9);
  }
  if (report.cold) {
    std::printf("cold (%.1f MB of the file still cached): load %.0f ms, first token %.0f ms\n",
                Megabytes(report.cold_cached_bytes), Milliseconds(report.cold_load_seconds),
                Milliseconds(report.cold_first_token_seconds));
  }
  for (const BenchRow& row : report.rows) {
    if (row.draft_tokens == 0) continue;
    std::printf(
        "%s: %s drafted %llu tokens, %.1f %% were accepted\n", row.Name().c_str(),
        report.draft.c_str(), static_cast<unsigned long long>(row.draft_tokens),
        100.0 * static_cast<double>(row.accepted_tokens) / static_cast<double>(row.draft_tokens));
  }
  std::printf("\n");
}

void PrintTable(const BenchReport& report, bool markdown) {
  PrintHeading(report);
  const char* gap = markdown ? " | " : "  ";
  const char* end = markdown ? " |\n" : "\n";
  const auto begin_line = [markdown](const char* name) {
    std::printf("%s%-18s", markdown ? "| " : "", name);
  };
  begin_line("test");
  for (const Column& column : kColumns) std::printf("%s%*s", gap, column.width, column.title);
  std::printf("%s", end);
  if (markdown) {
    std::printf("|---|");
    for (size_t i = 0; i < std::size(kColumns); ++i) std::printf("---:|");
    std::printf("\n");
  }
  for (const BenchRow& row : report.rows) {
    begin_line(row.Name().c_str());
    for (const Column& column : kColumns) {
      std::printf("%s%*s", gap, column.width, column.text(report, row).c_str());
    }
    std::printf("%s", end);
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
  if (format == "table" || format == "md") {
    PrintTable(report, format == "md");
    return;
  }
  std::vector<Json> rows;
  for (const BenchRow& row : report.rows) rows.push_back(RowToJson(report, row));
  PrintJsonRows(Conditions(report), rows, format);
}

}  // namespace nestling::cli
