// SPDX-License-Identifier: Apache-2.0
#include <unistd.h>

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "cli/chat.h"
#include "cli/command.h"
#include "cli/interrupt.h"
#include "cli/media.h"
#include "cli/run_options.h"
#include "cli/run_stats.h"
#include "cli/text_file.h"
#include "nestling/nestling.hpp"

namespace nestling::cli {
namespace {

// As typed; unset options leave the model's own defaults.
struct RunArguments {
  RunOptions run;
  std::optional<std::string> prompt;
  bool raw = false;
  std::optional<float> temperature;
  std::optional<int32_t> top_k;
  std::optional<float> top_p;
  std::optional<float> min_p;
  std::optional<uint64_t> seed;
};

void SetSampling(const RunArguments& arguments, GenerateOptions* options) {
  if (arguments.temperature == 0.0f) {
    options->sampling = NESTLING_SAMPLING_GREEDY;
  } else if (arguments.temperature || arguments.top_k || arguments.top_p || arguments.min_p) {
    options->sampling = NESTLING_SAMPLING_RANDOM;  // who sets these wants to sample
  }
  options->temperature = arguments.temperature.value_or(0);
  if (arguments.top_k)
    options->top_k = *arguments.top_k != 0 ? *arguments.top_k : NESTLING_TOP_K_OFF;
  options->top_p = arguments.top_p.value_or(0);
  options->min_p = arguments.min_p.value_or(0);
  // Zero asks the library for a new seed; a typed zero is as good a seed as any.
  if (arguments.seed) options->seed = *arguments.seed != 0 ? *arguments.seed : uint64_t{1} << 63;
}

void AddPrompt(const RunArguments& arguments, const std::string& prompt,
               const std::vector<Media>& media, const Engine& engine, Session& session) {
  const InterruptCancels interrupt(session);  // images take seconds
  std::vector<Part> parts = PartsOf(media);
  if (arguments.raw) {
    uint32_t flags = NESTLING_TOKENIZE_ADD_BOS | NESTLING_TOKENIZE_PARSE_SPECIAL;
    if (!media.empty()) flags |= NESTLING_TOKENIZE_EXPAND_MEDIA;
    session.PrefillMedia(engine.Tokenize(prompt, flags), parts);
    return;
  }
  if (!arguments.run.system.empty()) session.AddMessage(Role::kSystem, arguments.run.system);
  parts.push_back(Part::Text(prompt));
  session.AddMessage(Role::kUser, parts);
}

int Run(RunArguments& arguments) {
  SetSampling(arguments, &arguments.run.generate);
  const bool interactive = !arguments.prompt && isatty(STDIN_FILENO) == 1;
  if (interactive && arguments.raw) throw UsageError("--raw needs a prompt: -p, or standard input");
  // Before the model: whoever pipes a prompt in waits for nothing then.
  std::optional<std::string> prompt = arguments.prompt;
  if (!interactive && !prompt) prompt = ReadStandardInput();
  std::vector<Media> media = ReadMedia(arguments.run.media);

  const auto start = std::chrono::steady_clock::now();
  const Engine engine(arguments.run.model.model, arguments.run.model.ForEngine());
  if (engine.Info().has_tokenizer == 0) {
    throw ToolError("\"" + arguments.run.model.model +
                    "\" has no tokenizer: `run` needs one (`eval` works with token ids)");
  }
  Session session(engine, arguments.run.model.ForSession());
  arguments.run.load_seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();

  if (interactive) {
    Chat(arguments.run, std::move(media), engine, session);
    return 0;
  }
  AddPrompt(arguments, *prompt, media, engine, session);
  media.clear();
  const nestling_generate_result result = StreamReply(arguments.run, engine, session);
  if (result.stop_reason == NESTLING_STOP_CANCELLED) throw ToolError("cancelled");
  return 0;
}

}  // namespace

void AddRunCommand(CLI::App& app, Work& work) {
  CLI::App* command =
      app.add_subcommand("run", "Answer a prompt (-p, or standard input), or chat on a terminal");
  const auto arguments = std::make_shared<RunArguments>();
  arguments->run.model.AddTo(*command);
  GenerateOptions& generate = arguments->run.generate;
  command->add_option("-p,--prompt", arguments->prompt, "Prompt")->type_name("TEXT");
  AddMediaOptions(*command, &arguments->run.media);
  command->add_option("--system", arguments->run.system, "System text of the conversation")
      ->type_name("TEXT");
  command->add_flag("--raw", arguments->raw,
                    "No chat template: the prompt as it is, after <bos>; special tokens count, and "
                    "<image_soft_token> or <audio_soft_token> stands for an image or a sound");
  command
      ->add_option("-n,--max-tokens", generate.max_tokens, "Most tokens of a reply (0: no limit)")
      ->type_name("N");
  command->add_option("--temperature", arguments->temperature, "0: always the most likely token")
      ->check(CLI::Range(0.0, 100.0))
      ->type_name("T");
  command->add_option("--top-k", arguments->top_k, "Only the K most likely tokens (0: off)")
      ->check(CLI::Range(0, INT32_MAX))
      ->type_name("K");
  command
      ->add_option("--top-p", arguments->top_p, "Only the most likely tokens of this mass (1: off)")
      ->check(CLI::Range(1e-6, 1.0))
      ->type_name("P");
  command
      ->add_option("--min-p", arguments->min_p,
                   "Only tokens this likely, relative to the most likely one (0: off)")
      ->check(CLI::Range(0.0, 1.0))
      ->type_name("P");
  command
      ->add_option("--repeat-penalty", generate.repetition_penalty,
                   "Makes recent tokens less likely (1: off)")
      ->check(CLI::Range(0.01, 100.0))
      ->type_name("X");
  command->add_option("--seed", arguments->seed, "The same seed, the same reply")->type_name("S");
  command
      ->add_option("--stop", generate.stop_strings, "Ends the reply before this text; repeatable")
      ->type_name("TEXT")
      ->take_all()
      ->expected(1);
  command
      ->add_option("--draft", generate.draft_slice,
                   "Self-speculative decoding: this slice drafts, the session's verifies")
      ->type_name("SLICE");
  command->add_option("--draft-tokens", generate.draft_tokens, "Most drafts of a step (0: 4)")
      ->check(CLI::Range(0, 15))
      ->type_name("N");
  command->add_flag("--stats", arguments->run.stats, "One line of JSON on stderr after a reply");
  command->callback([arguments, &work] { work = [arguments] { return Run(*arguments); }; });
}

}  // namespace nestling::cli
