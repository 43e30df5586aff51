// SPDX-License-Identifier: Apache-2.0
#include "cli/run_stats.h"

#include <cstdio>
#include <nlohmann/json.hpp>
#include <string>

#include "cli/interrupt.h"
#include "cli/packed_json.h"

namespace nestling::cli {
namespace {

double Rate(uint64_t tokens, double seconds) {
  return seconds > 0 ? static_cast<double>(tokens) / seconds : 0.0;
}

// Of a tower that the container has.
void AddTower(const Engine& engine, nestling_tower tower, const std::string& name,
              nlohmann::ordered_json* json) {
  const nestling_tower_info info = engine.TowerInfo(tower);
  if (info.state == NESTLING_TOWER_ABSENT) return;
  (*json)[name + "_loads"] = info.num_loads;
  (*json)[name + "_load_seconds"] = info.load_seconds;
  (*json)[name + "_encodes"] = info.num_encodes;
  (*json)[name + "_encode_seconds"] = info.encode_seconds;
  (*json)[name + "_weight_bytes"] = info.weight_bytes;
}

nlohmann::ordered_json ResidentJson(const nestling_engine_residency& residency) {
  return {{"text_weight_bytes", residency.text_weight_bytes},
          {"embedding_bytes", residency.embedding_bytes},
          {"packed_weight_bytes", residency.packed_weight_bytes},
          {"ple_table_bytes", residency.ple_table_bytes},
          {"ple_cache_bytes", residency.ple_cache_bytes},
          {"kv_bytes", residency.kv_bytes},
          {"scratch_bytes", residency.scratch_bytes},
          {"logits_bytes", residency.logits_bytes}};
}

}  // namespace

nestling_generate_result StreamReply(const RunOptions& options, const Engine& engine,
                                     Session& session) {
  nestling_generate_result result;
  {
    const InterruptCancels interrupt(session);
    result = session.Generate(options.generate, [](const Token& token) {
      std::fwrite(token.text.data(), 1, token.text.size(), stdout);
      return std::fflush(stdout) == 0;
    });
  }
  std::fputc('\n', stdout);
  std::fflush(stdout);
  if (options.stats) PrintStats(options, engine, session, result);
  return result;
}

void PrintStats(const RunOptions& options, const Engine& engine, const Session& session,
                const nestling_generate_result& last) {
  const nestling_session_info info = session.Info();
  const nestling_session_counters counters = session.Counters();
  const nestling_engine_info model = engine.Info();
  const nestling_engine_choice choice = engine.Choice();
  const nestling_engine_memory memory = engine.Memory();
  const nestling_process_memory process = ProcessMemory();
  const nestling_soft_token_cache_info cache = engine.SoftTokenCacheInfo();
  const nlohmann::ordered_json resident = ResidentJson(engine.Residency());
  nlohmann::ordered_json json = {
      {"stop_reason", nestling_stop_reason_name(last.stop_reason)},
      {"generated_tokens", last.num_tokens},
      {"seed", last.seed},
      {"load_seconds", options.load_seconds},
      {"first_token_seconds", counters.first_token_seconds},
      {"prefill_tokens", counters.prefill_tokens},
      {"prefill_tokens_per_second", Rate(counters.prefill_tokens, counters.prefill_seconds)},
      {"decode_tokens", counters.decode_tokens},
      {"decode_tokens_per_second", Rate(counters.decode_tokens, counters.decode_seconds)},
      {"session_tokens", info.num_tokens},
      {"context_tokens", info.context_tokens},
      {"threads", model.num_threads},
      {"slice", info.slice},
      {"slice_reason", choice.reason},
      {"estimated_bytes", choice.estimated_bytes},
      {"estimated_decode_tokens_per_second", choice.estimated_decode_rate},
      {"draft_tokens", counters.draft_tokens},
      {"accepted_tokens", counters.accepted_tokens},
      {"kv_type", KvTypeName(info.kv_type)},
      {"kv_bytes", info.kv_bytes},
      {"ple_rows_read", counters.ple_rows_read},
      {"ple_bytes_read", counters.ple_bytes_read},
      {"ple_hits", counters.ple_hits},
      {"ple_misses", counters.ple_misses},
      {"ple_wait_seconds", counters.ple_wait_seconds},
      {"ple_cache_bytes", memory.ple_cache_bytes},
      {"ple_resident_bytes", memory.ple_resident_bytes},
      {"text_parameters", memory.text_parameters},
      {"embedding_parameters", memory.embedding_parameters},
      {"ple_parameters", memory.ple_parameters},
      {"vision_parameters", memory.vision_parameters},
      {"audio_parameters", memory.audio_parameters},
      {"loaded_parameters", memory.loaded_parameters},
      {"mapped_bytes", memory.mapped_bytes},
      {"packed_weight_bytes", memory.packed_weight_bytes},
      {"scratch_bytes", memory.scratch_bytes},
      {"tower_bytes", memory.vision_bytes + memory.audio_bytes},
      {"soft_token_bytes", info.soft_token_bytes},
      {"soft_token_cache_bytes", cache.used_bytes},
      {"soft_token_cache_hits", cache.hits},
      {"soft_token_cache_misses", cache.misses},
      {"all_kv_bytes", memory.kv_bytes},
      {"vision_bytes", memory.vision_bytes},
      {"audio_bytes", memory.audio_bytes},
      {"budget_bytes", memory.budget_bytes},
      {"budgeted_bytes", memory.budgeted_bytes},
      {"ple_cache_shrinks", memory.ple_cache_shrinks},
      {"tower_drops", memory.tower_drops},
      {"chunk_reductions", memory.chunk_reductions},
      {"resident", resident},
      {"resident_bytes", process.resident_bytes},
      {"peak_resident_bytes", process.peak_resident_bytes},
      {"anonymous_bytes", process.anonymous_bytes},
      {"file_backed_bytes", process.file_backed_bytes},
  };
  json["packed"] = PackedJson(engine);
  AddTower(engine, NESTLING_TOWER_VISION, "vision", &json);
  AddTower(engine, NESTLING_TOWER_AUDIO, "audio", &json);
  std::fprintf(stderr, "%s\n", json.dump().c_str());
}

}  // namespace nestling::cli
