// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "cli/bench_report.h"
#include "cli/command.h"
#include "cli/limits_probe.h"
#include "cli/media.h"
#include "cli/media_bench.h"
#include "cli/model_options.h"
#include "cli/system_info.h"
#include "nestling/nestling.hpp"

namespace nestling::cli {
namespace {

using Clock = std::chrono::steady_clock;

double SecondsSince(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// llama-bench's.
const std::vector<uint32_t> kDefaultPrompts = {512};
const std::vector<uint32_t> kDefaultGenerates = {128};
constexpr size_t kColdPromptTokens = 16;

struct BenchArguments {
  ModelOptions model;
  std::vector<uint32_t> prompts;
  std::vector<uint32_t> generates;
  std::vector<uint32_t> depths = {0};
  std::vector<MediaFile> media;
  uint32_t repetitions = 5;
  bool no_warmup = false;
  bool no_limits = false;
  bool cold = false;
  std::string draft;
  uint32_t draft_tokens = 0;
  std::string format = "table";
};

// The same ids for every run and machine. The last sixteenth of the vocabulary is left out: there
// are the placeholders of images and sounds.
std::vector<int32_t> RandomTokens(size_t count, uint32_t vocab_size) {
  std::mt19937 random(20251125);
  const uint32_t range = std::max(vocab_size - vocab_size / 16, 1u);
  std::vector<int32_t> tokens(count);
  for (int32_t& token : tokens) token = static_cast<int32_t>(random() % range);
  return tokens;
}

GenerateOptions Greedy(uint32_t num_tokens) {
  GenerateOptions options;
  options.max_tokens = num_tokens;
  options.sampling = NESTLING_SAMPLING_GREEDY;
  options.ignore_stop_tokens = true;
  return options;
}

// Runs the repetitions of one row on a session that has room for it.
class RowRunner {
 public:
  RowRunner(const BenchArguments& arguments, Session& session, BenchRow* row,
            const std::vector<int32_t>& tokens, LimitsProbe* probe)
      : arguments_(arguments), session_(session), row_(*row), tokens_(tokens), probe_(*probe) {}

  void Run() {
    if (!arguments_.no_warmup) {
      Repeat();
      row_.seconds.clear();
      row_.first_token_seconds.clear();
      row_.token_seconds.clear();
      row_.draft_tokens = row_.accepted_tokens = 0;
    }
    if (arguments_.no_limits || !probe_.CanMeasureBetween()) {
      for (uint32_t i = 0; i < arguments_.repetitions; ++i) Repeat();
      return;
    }
    MachineLimits before = probe_.Measure();
    for (uint32_t i = 0; i < arguments_.repetitions; ++i) {
      Repeat();
      const MachineLimits after = probe_.Measure();
      row_.limits.push_back(
          {(before.read_bytes_per_second + after.read_bytes_per_second) / 2,
           (before.int8_operations_per_second + after.int8_operations_per_second) / 2});
      before = after;
    }
  }

 private:
  void Repeat() {
    if (row_.prompt_tokens != 0) {
      Prefill();
    } else {
      Decode();
    }
  }

  // The session holds the first `num_tokens` tokens, and no others. Prefilled again only when it
  // cannot go back to them: a sliding layer keeps its window and little more.
  void Fill(uint32_t num_tokens) {
    if (session_.Info().num_tokens > num_tokens && num_tokens > 0) {
      try {
        session_.Truncate(num_tokens);
        return;
      } catch (const Error& error) {
        if (error.status() != NESTLING_FAILED_PRECONDITION) throw;
      }
    }
    session_.Reset();
    session_.Prefill(std::span(tokens_).first(num_tokens));
  }

  void Prefill() {
    Fill(row_.depth);
    const auto prompt = std::span(tokens_).subspan(row_.depth, row_.prompt_tokens);
    const uint64_t products = session_.Counters().weight_products;
    const Clock::time_point start = Clock::now();
    session_.Prefill(prompt);
    session_.Logits();  // as llama-bench, which counts the output head of the last token
    row_.seconds.push_back(SecondsSince(start));
    row_.int8_operations_per_token =
        2.0 * static_cast<double>(session_.Counters().weight_products - products) /
        row_.prompt_tokens;
    session_.Generate(Greedy(1));
    row_.first_token_seconds.push_back(SecondsSince(start));
  }

  // The first token needs no step of its own, as prefill leaves its activations: it starts the
  // clock.
  void Decode() {
    Fill(std::max(row_.depth, 1u));
    std::vector<Clock::time_point> times;
    times.reserve(row_.generated_tokens + 1);
    uint64_t bytes = 0;
    GenerateOptions options = Greedy(row_.generated_tokens + 1);
    options.draft_slice = arguments_.draft;
    options.draft_tokens = arguments_.draft_tokens;
    const nestling_generate_result result = session_.Generate(options, [&](const Token& token) {
      if (token.id < 0) return true;
      if (times.empty()) bytes = session_.Counters().weight_bytes_read;
      times.push_back(Clock::now());
      return true;
    });
    bytes = session_.Counters().weight_bytes_read - bytes;
    row_.weight_bytes_per_token = static_cast<double>(bytes) / row_.generated_tokens;
    row_.draft_tokens += result.num_drafted;
    row_.accepted_tokens += result.num_accepted;
    for (size_t i = 1; i < times.size(); ++i) {
      row_.token_seconds.push_back(std::chrono::duration<double>(times[i] - times[i - 1]).count());
    }
    row_.seconds.push_back(std::chrono::duration<double>(times.back() - times.front()).count());
  }

  const BenchArguments& arguments_;
  Session& session_;
  BenchRow& row_;
  const std::vector<int32_t>& tokens_;
  LimitsProbe& probe_;
};

// Tokens that a row needs room for.
uint32_t RoomFor(const BenchRow& row) {
  return row.prompt_tokens != 0 ? row.depth + row.prompt_tokens + 1
                                : std::max(row.depth, 1u) + row.generated_tokens + 1;
}

std::vector<BenchRow> ListRows(const BenchArguments& arguments, uint32_t max_context) {
  std::vector<BenchRow> rows;
  // What was not asked for must not fail: small models have short contexts.
  const auto add = [&](uint32_t prompt, uint32_t generated, uint32_t depth, bool asked_for) {
    BenchRow row;
    row.prompt_tokens = prompt;
    row.generated_tokens = generated;
    row.depth = depth;
    if (row.tokens() != 0 && (asked_for || RoomFor(row) <= max_context)) rows.push_back(row);
  };
  const bool no_prompts = arguments.prompts.empty(), no_generates = arguments.generates.empty();
  for (const uint32_t depth : arguments.depths) {
    for (const uint32_t tokens : no_prompts ? kDefaultPrompts : arguments.prompts) {
      add(tokens, 0, depth, !no_prompts);
    }
    for (const uint32_t tokens : no_generates ? kDefaultGenerates : arguments.generates) {
      add(0, tokens, depth, !no_generates);
    }
  }
  if (rows.empty()) throw UsageError("bench: nothing to measure; see -p and -n");
  return rows;
}

void RunRow(const BenchArguments& arguments, const Engine& engine, uint32_t context, BenchRow* row,
            LimitsProbe* probe) {
  SessionOptions options = arguments.model.ForSession();
  if (options.context_tokens == 0) options.context_tokens = context;
  Session session(engine, options);
  const std::vector<int32_t> tokens = RandomTokens(RoomFor(*row), engine.Info().vocab_size);
  RowRunner(arguments, session, row, tokens, probe).Run();
  const nestling_session_counters counters = session.Counters();
  row->kv_bytes = session.Info().kv_bytes;
  if (counters.ple_rows_read != 0) {
    row->ple_bytes_per_token = counters.ple_bytes_read / counters.ple_rows_read;
    row->ple_wait_ms_per_token =
        counters.ple_wait_seconds * 1e3 / static_cast<double>(counters.ple_rows_read);
  }
  if (const uint64_t lookups = counters.ple_hits + counters.ple_misses; lookups != 0) {
    row->ple_hit_rate = static_cast<double>(counters.ple_hits) / static_cast<double>(lookups);
  }
  const nestling_process_memory memory = ProcessMemory();
  row->resident_bytes = memory.resident_bytes;
  row->anonymous_bytes = memory.anonymous_bytes;
  row->file_backed_bytes = memory.file_backed_bytes;
  row->proportional_bytes = ProportionalBytes();
}

// Load and first token as after a restart of the machine, as far as the system lets go of the file.
void MeasureCold(const BenchArguments& arguments, BenchReport* report) {
  report->cold = true;
  report->cold_cached_bytes = DropFromPageCache(arguments.model.model);
  const Clock::time_point start = Clock::now();
  const Engine engine(arguments.model.model, arguments.model.ForEngine());
  Session session(engine, arguments.model.ForSession());
  report->cold_load_seconds = SecondsSince(start);
  const size_t num_tokens = std::min<size_t>(kColdPromptTokens, session.Info().context_tokens - 1);
  session.Prefill(RandomTokens(num_tokens, engine.Info().vocab_size));
  session.Generate(Greedy(1));
  report->cold_first_token_seconds = SecondsSince(start);
}

BenchReport MeasureModel(const BenchArguments& arguments) {
  BenchReport report;
  if (arguments.cold) MeasureCold(arguments, &report);
  const Clock::time_point start = Clock::now();
  const Engine engine(arguments.model.model, arguments.model.ForEngine());
  const nestling_engine_info info = engine.Info();
  report.rows = ListRows(arguments, info.max_context_tokens);
  uint32_t context = 0;
  for (const BenchRow& row : report.rows) context = std::max(context, RoomFor(row));
  {
    SessionOptions options = arguments.model.ForSession();
    if (options.context_tokens == 0) options.context_tokens = context;
    const Session session(engine, options);
    report.load_seconds = SecondsSince(start);
    report.slice = session.Info().slice;
    report.kv_type = KvTypeName(session.Info().kv_type);
  }
  report.model = arguments.model.model;
  report.slice_reason = engine.Choice().reason;
  report.draft = arguments.draft;
  report.quantisation = info.quantisation;
  report.cpu = CpuName();
  report.version = nestling_version_string();
  report.ple = arguments.model.ple;
  report.threads = info.num_threads;
  report.chunk_tokens = info.chunk_tokens;
  LimitsProbe probe(report.threads);
  for (BenchRow& row : report.rows) RunRow(arguments, engine, context, &row, &probe);
  report.loaded_parameters = engine.Memory().loaded_parameters;
  report.packed = engine.Packed(NESTLING_PACKED_DECODER);
  report.peak_resident_bytes = probe.PeakResident();
  if (arguments.no_limits) return report;
  if (!probe.CanMeasureBetween()) probe.Measure();
  report.limits = probe.Median();
  return report;
}

int RunBench(const BenchArguments& arguments) {
  if (!arguments.media.empty()) {
    if (!arguments.prompts.empty() || !arguments.generates.empty()) {
      throw UsageError("bench: --image and --audio go without -p and -n: their rows are others");
    }
    BenchMedia(arguments.model, arguments.media, arguments.repetitions, arguments.format);
    return 0;
  }
  PrintReport(MeasureModel(arguments), arguments.format);
  return 0;
}

}  // namespace

void AddBenchCommand(CLI::App& app, Work& work) {
  CLI::App* command = app.add_subcommand(
      "bench",
      "Measure prefill (pp) and decode (tg) rates, load time and memory; or how long images "
      "and sounds take to encode");
  const auto arguments = std::make_shared<BenchArguments>();
  arguments->model.AddTo(*command);
  command
      ->add_option("-p,--n-prompt", arguments->prompts,
                   "Prefill rows: numbers of tokens (default 512; 0: none)")
      ->delimiter(',')
      ->type_name("N,...");
  command
      ->add_option("-n,--n-gen", arguments->generates,
                   "Decode rows: numbers of tokens (default 128; 0: none)")
      ->delimiter(',')
      ->type_name("N,...");
  command
      ->add_option("-d,--depth", arguments->depths,
                   "Tokens in the session before a row begins; not timed")
      ->delimiter(',')
      ->type_name("N,...");
  AddMediaOptions(*command, &arguments->media);
  command->add_option("-r,--repetitions", arguments->repetitions, "Runs of each row")
      ->check(CLI::Range(1, 1000))
      ->type_name("N");
  command
      ->add_option("--draft", arguments->draft,
                   "Decode rows with self-speculative decoding: this slice drafts")
      ->type_name("SLICE");
  command->add_option("--draft-tokens", arguments->draft_tokens, "Most drafts of a step (0: 4)")
      ->check(CLI::Range(0, 15))
      ->type_name("N");
  command->add_flag("--no-warmup", arguments->no_warmup, "No untimed run before a row");
  command->add_flag("--no-limits", arguments->no_limits,
                    "Do not measure the machine's limits, which takes 128 MB between the runs");
  command->add_flag("--cold", arguments->cold,
                    "First load, and make one token, with the file out of the page cache");
  command->add_option("-o,--output", arguments->format, "table, md, csv, json, jsonl")
      ->check(CLI::IsMember({"table", "md", "csv", "json", "jsonl"}))
      ->type_name("FORMAT");
  command->callback([arguments, &work] { work = [arguments] { return RunBench(*arguments); }; });
}

}  // namespace nestling::cli
