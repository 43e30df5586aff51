// SPDX-License-Identifier: Apache-2.0
#include "cli/model_options.h"

namespace nestling::cli {
namespace {

struct KvName {
  const char* name;
  nestling_kv_type type;
};
constexpr KvName kKvNames[] = {{"auto", NESTLING_KV_AUTO},
                               {"f32", NESTLING_KV_F32},
                               {"f16", NESTLING_KV_F16},
                               {"int8", NESTLING_KV_INT8}};

struct PleName {
  const char* name;
  nestling_ple_mode mode;
};
constexpr PleName kPleNames[] = {{"stream", NESTLING_PLE_STREAM},
                                 {"resident", NESTLING_PLE_RESIDENT},
                                 {"mmap", NESTLING_PLE_MMAP}};

struct PrecisionName {
  const char* name;
  nestling_tower_precision precision;
};
constexpr PrecisionName kPrecisionNames[] = {
    {"auto", NESTLING_TOWER_AUTO}, {"f32", NESTLING_TOWER_F32}, {"int8", NESTLING_TOWER_INT8}};

}  // namespace

void ModelOptions::AddTo(CLI::App& command) {
  command.add_option("model", model, "Container (.nest)")->required()->type_name("MODEL");
  command.add_option("--slice", slice, "Slice: a name in the container, or a JSON file")
      ->type_name("NAME");
  command.add_option("-t,--threads", threads, "Threads (0: one for each performance core)")
      ->check(CLI::Range(0, 256))
      ->type_name("N");
  command
      .add_option("--cpu-mask", cpu_mask,
                  "Cores of the worker threads, hexadecimal: f0 is cores 4 to 7 (default: the "
                  "performance cores)")
      ->check([](const std::string& text) {
        const bool good = !text.empty() && text.size() <= 16 &&
                          text.find_first_not_of("0123456789abcdefABCDEF") == std::string::npos;
        return good ? std::string() : "\"" + text + "\" is not a mask of 1 to 16 hex digits";
      })
      ->type_name("HEX");
  command.add_option("--context", context, "Tokens that prompt and output may have together")
      ->type_name("N");
  command.add_option("--chunk", chunk, "Most tokens of one prefill step")->type_name("N");
  command.add_option("--kv", kv, "Numbers of the kv cache: auto, f32, f16, int8")
      ->check(CLI::IsMember({"auto", "f32", "f16", "int8"}))
      ->type_name("TYPE");
  command
      .add_option("--memory-budget", memory_budget,
                  "Bytes that may be resident (k, M, G: powers of 1024): chooses the best slice "
                  "that fits, unless --slice names one")
      ->transform(CLI::AsSizeValue(false))
      ->type_name("BYTES");
  command
      .add_option("--decode-rate", decode_rate,
                  "Tokens per second: chooses the best slice that is so fast by estimate")
      ->check(CLI::NonNegativeNumber)
      ->type_name("N");
  command
      .add_option("--ple", ple,
                  "Rows of the PLE table: stream them from storage, keep the whole table resident, "
                  "or mmap it (for comparison)")
      ->check(CLI::IsMember({"stream", "resident", "mmap"}))
      ->type_name("MODE");
  command
      .add_option("--ple-cache", ple_cache,
                  "Bytes of the cache of streamed rows (k, M, G: powers of 1024; default 16M; 1: "
                  "none)")
      ->transform(CLI::AsSizeValue(false))
      ->type_name("BYTES");
  command
      .add_option("--tower", tower,
                  "What the vision and audio towers compute in: auto (as the container stores "
                  "them), f32, int8")
      ->check(CLI::IsMember({"auto", "f32", "int8"}))
      ->type_name("TYPE");
  command
      .add_option("--cache-dir", cache_dir,
                  "Folder in which packed weights are kept between runs (default: what `prepare` "
                  "put beside the model is used, nothing is written)")
      ->type_name("DIR");
}

EngineOptions ModelOptions::ForEngine() const {
  EngineOptions options;
  options.num_threads = threads;
  if (!cpu_mask.empty()) options.cpu_mask = std::stoull(cpu_mask, nullptr, 16);
  options.chunk_tokens = chunk;
  options.slice = slice;
  options.memory_budget_bytes = memory_budget;
  options.target_decode_rate = decode_rate;
  options.budget_context_tokens = context;
  for (const PleName& known : kPleNames) {
    if (ple == known.name) options.ple_mode = known.mode;
  }
  options.ple_cache_bytes = ple_cache;
  for (const PrecisionName& known : kPrecisionNames) {
    if (tower == known.name) options.tower_precision = known.precision;
  }
  options.cache_dir = cache_dir;
  return options;
}

SessionOptions ModelOptions::ForSession() const {
  SessionOptions options;
  options.context_tokens = context;
  for (const KvName& known : kKvNames) {
    if (kv == known.name) options.kv_type = known.type;
  }
  return options;
}

const char* KvTypeName(nestling_kv_type type) {
  for (const KvName& known : kKvNames) {
    if (type == known.type) return known.name;
  }
  return "unknown";
}

}  // namespace nestling::cli
