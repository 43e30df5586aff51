// SPDX-License-Identifier: Apache-2.0
#include <memory>
#include <string>

#include "cli/command.h"
#include "cli/progress.h"
#include "cli/quantisation_options.h"
#include "nestling/nestling.hpp"

namespace nestling::cli {
namespace {

struct PackArguments {
  std::string source;
  std::string output;
  PackOptions options;
};

int RunPack(PackArguments& arguments) {
  Progress progress("packing");
  arguments.options.progress = progress.Callback();
  arguments.options.warning = progress.Warnings();
  Pack(arguments.source, arguments.output, arguments.options);
  return 0;
}

}  // namespace

void AddPackCommand(CLI::App& app, Work& work) {
  CLI::App* command = app.add_subcommand("pack", "Convert a model to a container");
  const auto arguments = std::make_shared<PackArguments>();
  PackOptions& options = arguments->options;
  command->add_option("source", arguments->source, "Hugging Face folder, or GGUF file")
      ->required()
      ->type_name("SRC");
  command->add_option("-o,--output", arguments->output, "Container to write")
      ->required()
      ->type_name("OUT.nest");
  AddQuantisationOptions(*command, options.quantisation);
  command->add_option("--add-slice", options.add_slices, "Store a custom slice; repeatable")
      ->type_name("FILE.json")
      ->take_all()
      ->expected(1);
  command->add_option("--slice", options.slice, "Write only this slice: a name, or a JSON file")
      ->type_name("S");
  command->add_option("-j,--jobs", options.num_threads, "Threads (0: one for each core)")
      ->check(CLI::Range(0, 1024))
      ->type_name("N");
  command->add_flag("--allow-unknown-config", options.allow_unknown_config,
                    "Accept keys of the configuration that this version does not know");
  command->callback([arguments, &work] { work = [arguments] { return RunPack(*arguments); }; });
}

}  // namespace nestling::cli
