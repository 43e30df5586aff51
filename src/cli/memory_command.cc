// SPDX-License-Identifier: Apache-2.0
#include <cstdint>
#include <cstdio>
#include <memory>
#include <vector>

#include "cli/command.h"
#include "cli/memory_map.h"
#include "cli/model_options.h"
#include "nestling/nestling.hpp"

namespace nestling::cli {
namespace {

struct MemoryArguments {
  ModelOptions model;
  uint32_t prompt_tokens = 0;
  uint32_t generated_tokens = 0;
  bool vision = false;
  bool audio = false;
};

double Megabytes(uint64_t bytes) { return static_cast<double>(bytes) * 1e-6; }

void PrintEstimate(const MemoryArguments& arguments) {
  EstimateOptions options;
  const EngineOptions engine = arguments.model.ForEngine();
  options.slice = engine.slice;
  options.context_tokens = arguments.model.context;
  options.chunk_tokens = engine.chunk_tokens;
  options.kv_type = arguments.model.ForSession().kv_type;
  options.with_vision = arguments.vision;
  options.with_audio = arguments.audio;
  options.ple_mode = engine.ple_mode;
  options.ple_cache_bytes = engine.ple_cache_bytes;
  const nestling_memory_estimate estimate = EstimateMemory(arguments.model.model, options);
  const struct {
    const char* name;
    uint64_t bytes;
  } groups[] = {{"weights in place", estimate.mapped_weight_bytes},
                {"packed weights", estimate.packed_weight_bytes},
                {"kv cache", estimate.kv_bytes},
                {"scratch, logits", estimate.scratch_bytes},
                {"PLE", estimate.ple_bytes},
                {"vision", estimate.vision_bytes},
                {"audio", estimate.audio_bytes},
                {"other", estimate.other_bytes},
                {"total", estimate.total_bytes}};
  std::printf("at most                    MB\n");
  for (const auto& group : groups)
    std::printf("  %-18s %8.1f\n", group.name, Megabytes(group.bytes));
}

std::vector<int32_t> Prompt(uint32_t count, uint32_t vocab_size) {
  std::vector<int32_t> tokens;
  uint64_t state = 1;
  for (uint32_t i = 0; i < count; ++i) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    tokens.push_back(static_cast<int32_t>((state >> 33) % vocab_size));
  }
  return tokens;
}

// Runs, then says what every part of the process's memory is.
void PrintRun(const MemoryArguments& arguments) {
  const Engine engine(arguments.model.model, arguments.model.ForEngine());
  Session session(engine, arguments.model.ForSession());
  session.Prefill(Prompt(arguments.prompt_tokens, engine.Info().vocab_size));
  if (arguments.generated_tokens != 0) {
    GenerateOptions generate;
    generate.max_tokens = arguments.generated_tokens;
    generate.ignore_stop_tokens = true;
    session.Generate(generate);
  }
  const nestling_engine_residency resident = engine.Residency();
  const MemoryMap map = ReadMemoryMap(arguments.model.model);
  const uint64_t peak = ProcessMemory().peak_resident_bytes;
  const uint64_t weights = resident.text_weight_bytes + resident.embedding_bytes;
  const uint64_t buffers = resident.packed_weight_bytes + resident.ple_cache_bytes +
                           resident.kv_bytes + resident.scratch_bytes + resident.logits_bytes +
                           (resident.ple_table_bytes > map.model ? resident.ple_table_bytes : 0);
  // XNNPACK's packed weights and our buffers are mapped; small ones may lie in the heap.
  const uint64_t memory = map.anonymous + map.heap;
  const uint64_t rest = memory > buffers ? memory - buffers : 0;
  const uint64_t known = weights + buffers + map.code + rest;
  const struct {
    const char* name;
    uint64_t bytes;
  } groups[] = {{"decoder weights, mapped", resident.text_weight_bytes},
                {"embedding and LM head, mapped", resident.embedding_bytes},
                {"packed weights", resident.packed_weight_bytes},
                {"PLE table", resident.ple_table_bytes},
                {"PLE cache", resident.ple_cache_bytes},
                {"kv cache", resident.kv_bytes},
                {"scratch", resident.scratch_bytes},
                {"logits", resident.logits_bytes},
                {"code and libraries", map.code},
                {"heap: tokenizer, operators, lists", map.heap},
                {"stacks and the rest", rest > map.heap ? rest - map.heap : 0},
                {"freed before the end", peak > known ? peak - known : 0},
                {"peak", peak}};
  std::printf("\nresident after %u + %u tokens           MB\n", arguments.prompt_tokens,
              arguments.generated_tokens);
  for (const auto& group : groups) {
    std::printf("  %-34s %8.1f\n", group.name, Megabytes(group.bytes));
  }
  const nestling_engine_memory loaded = engine.Memory();
  const struct {
    const char* name;
    uint64_t count;
  } counts[] = {{"text (as sizes are published)", loaded.text_parameters},
                {"token embedding, LM head", loaded.embedding_parameters},
                {"PLE table", loaded.ple_parameters},
                {"vision tower", loaded.vision_parameters},
                {"audio tower", loaded.audio_parameters}};
  std::printf("\nparameters in memory               millions\n");
  for (const auto& group : counts) {
    std::printf("  %-30s %12.3f\n", group.name, static_cast<double>(group.count) * 1e-6);
  }
}

int RunMemory(const MemoryArguments& arguments) {
  PrintEstimate(arguments);
  if (arguments.prompt_tokens != 0) PrintRun(arguments);
  return 0;
}

}  // namespace

void AddMemoryCommand(CLI::App& app, Work& work) {
  CLI::App* command = app.add_subcommand(
      "memory", "What a model takes: by estimate, and (with -p) what a run makes resident");
  const auto arguments = std::make_shared<MemoryArguments>();
  arguments->model.AddTo(*command);
  command
      ->add_option("-p,--n-prompt", arguments->prompt_tokens,
                   "Runs a prompt of so many random tokens (0: only the estimate)")
      ->type_name("N");
  command->add_option("-n,--n-gen", arguments->generated_tokens, "Tokens to generate after it")
      ->type_name("N");
  command->add_flag("--vision", arguments->vision, "Estimate with the vision tower");
  command->add_flag("--audio", arguments->audio, "Estimate with the audio tower");
  command->callback([arguments, &work] { work = [arguments] { return RunMemory(*arguments); }; });
}

}  // namespace nestling::cli
