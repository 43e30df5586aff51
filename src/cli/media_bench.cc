// SPDX-License-Identifier: Apache-2.0
#include "cli/media_bench.h"

#include <chrono>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "cli/bench_report.h"
#include "cli/json_rows.h"
#include "cli/packed_json.h"
#include "cli/system_info.h"
#include "nestling/nestling.hpp"

namespace nestling::cli {
namespace {

using Json = nlohmann::ordered_json;

struct MediaRow {
  std::string name;
  double seconds_of_sound = 0;
  uint32_t soft_tokens = 0;
  double load_seconds = 0;
  double first_seconds = 0;     // load included
  std::vector<double> seconds;  // of each repetition
  uint64_t weight_bytes = 0;
  nestling_packed_info packed = {};
  uint64_t resident_bytes = 0;  // of the process after the row

  // Time per second of sound; 0 for images.
  double RealTimeFactor() const {
    return seconds_of_sound == 0 ? 0 : Percentile(seconds, 50) / seconds_of_sound;
  }
};

double TimeEncode(Engine& engine, const Part& part) {
  engine.ClearSoftTokenCache();
  const auto start = std::chrono::steady_clock::now();
  engine.Encode(part);
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

MediaRow Measure(Engine& engine, const Media& media, uint32_t repetitions) {
  const bool image = media.kind() == MediaKind::kImage;
  const nestling_tower tower = image ? NESTLING_TOWER_VISION : NESTLING_TOWER_AUDIO;
  const Part part = media.part();
  MediaRow row;
  row.name = (image ? "image " : "audio ") + media.path();
  row.seconds_of_sound = media.seconds();
  row.soft_tokens = engine.MeasureMedia(part).num_soft_tokens;
  engine.UnloadTower(tower);  // that the file before may have loaded
  row.first_seconds = TimeEncode(engine, part);
  for (uint32_t i = 0; i < repetitions; ++i) row.seconds.push_back(TimeEncode(engine, part));
  const nestling_tower_info info = engine.TowerInfo(tower);
  row.load_seconds = info.load_seconds;
  row.weight_bytes = info.weight_bytes;
  row.packed = engine.Packed(image ? NESTLING_PACKED_VISION : NESTLING_PACKED_AUDIO);
  row.resident_bytes = ProcessMemory().resident_bytes;
  return row;
}

Json RowToJson(const MediaRow& row) {
  Json json = {{"test", row.name},
               {"soft_tokens", row.soft_tokens},
               {"repetitions", row.seconds.size()},
               {"load_ms", 1e3 * row.load_seconds},
               {"first_ms", 1e3 * row.first_seconds},
               {"encode_ms", 1e3 * Mean(row.seconds)},
               {"stddev_ms", 1e3 * Deviation(row.seconds)},
               {"median_ms", 1e3 * Percentile(row.seconds, 50)},
               {"seconds_of_sound", nullptr},
               {"real_time_factor", nullptr},
               {"tower_bytes", row.weight_bytes},
               {"resident_bytes", row.resident_bytes}};
  AddPacked(row.packed, &json);
  if (row.seconds_of_sound != 0) {
    json["seconds_of_sound"] = row.seconds_of_sound;
    json["real_time_factor"] = row.RealTimeFactor();
  }
  return json;
}

void PrintTable(const Json& conditions, const std::vector<MediaRow>& rows, bool markdown) {
  const char* bar = markdown ? "| " : "";
  const char* gap = markdown ? " | " : "  ";
  const char* end = markdown ? " |" : "";
  std::printf("%s, towers %s\nnestling %s, %s, %u threads\n\n",
              conditions["model"].get<std::string>().c_str(),
              conditions["tower"].get<std::string>().c_str(),
              conditions["version"].get<std::string>().c_str(),
              conditions["cpu"].get<std::string>().c_str(), conditions["threads"].get<uint32_t>());
  std::printf("%s%-24s%s%11s%s%10s%s%10s%s%10s%s%8s%s%10s%s%9s%s%11s%s\n", bar, "test", gap,
              "soft tokens", gap, "load ms", gap, "first ms", gap, "median ms", gap, "+-", gap,
              "real time", gap, "tower MB", gap, "resident MB", end);
  if (markdown) std::printf("|---|---:|---:|---:|---:|---:|---:|---:|---:|\n");
  for (const MediaRow& row : rows) {
    char factor[32] = "";
    if (row.seconds_of_sound != 0) {
      std::snprintf(factor, sizeof(factor), "%.4f", row.RealTimeFactor());
    }
    std::printf("%s%-24s%s%11u%s%10.1f%s%10.1f%s%10.1f%s%8.1f%s%10s%s%9.1f%s%11.1f%s\n", bar,
                row.name.c_str(), gap, row.soft_tokens, gap, 1e3 * row.load_seconds, gap,
                1e3 * row.first_seconds, gap, 1e3 * Percentile(row.seconds, 50), gap,
                1e3 * Deviation(row.seconds), gap, factor, gap,
                static_cast<double>(row.weight_bytes) / 1e6, gap,
                static_cast<double>(row.resident_bytes) / 1e6, end);
  }
}

}  // namespace

void BenchMedia(const ModelOptions& model, const std::vector<MediaFile>& files,
                uint32_t repetitions, const std::string& format) {
  const std::vector<Media> media = ReadMedia(files);
  Engine engine(model.model, model.ForEngine());
  std::vector<MediaRow> rows;
  for (const Media& one : media) rows.push_back(Measure(engine, one, repetitions));
  const Json conditions = {{"model", model.model},
                           {"tower", model.tower},
                           {"threads", engine.Info().num_threads},
                           {"cpu", CpuName()},
                           {"version", nestling_version_string()},
                           {"peak_resident_bytes", ProcessMemory().peak_resident_bytes}};
  if (format == "table" || format == "md") {
    PrintTable(conditions, rows, format == "md");
    return;
  }
  std::vector<Json> json;
  for (const MediaRow& row : rows) json.push_back(RowToJson(row));
  PrintJsonRows(conditions, json, format);
}

}  // namespace nestling::cli
