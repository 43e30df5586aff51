// SPDX-License-Identifier: Apache-2.0
#include <memory>
#include <string>

#include "cli/command.h"
#include "cli/progress.h"
#include "cli/quantisation_options.h"
#include "nestling/nestling.hpp"

namespace nestling::cli {
namespace {

struct SynthArguments {
  std::string output;
  SynthesizeOptions options;
};

int RunSynth(SynthArguments& arguments) {
  Progress progress("writing");
  arguments.options.progress = progress.Callback();
  Synthesize(arguments.output, arguments.options);
  return 0;
}

}  // namespace

void AddSynthCommand(CLI::App& app, Work& work) {
  CLI::App* command =
      app.add_subcommand("synth", "Write a container of real shapes with random weights");
  const auto arguments = std::make_shared<SynthArguments>();
  SynthesizeOptions& options = arguments->options;
  command->add_option("--preset", options.preset, "e2b, e4b or tiny")
      ->required()
      ->check(CLI::IsMember({"e2b", "e4b", "tiny"}))
      ->type_name("NAME");
  command->add_option("-o,--output", arguments->output, "Container to write")
      ->required()
      ->type_name("OUT.nest");
  AddQuantisationOptions(*command, options.quantisation);
  command->add_option("--seed", options.seed, "The same seed, the same file")->type_name("N");
  command->add_option("-j,--jobs", options.num_threads, "Threads (0: one for each core)")
      ->check(CLI::Range(0, 1024))
      ->type_name("N");
  command->callback([arguments, &work] { work = [arguments] { return RunSynth(*arguments); }; });
}

}  // namespace nestling::cli
