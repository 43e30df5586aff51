// SPDX-License-Identifier: Apache-2.0
#include <cstdio>
#include <memory>
#include <string>

#include "cli/command.h"
#include "cli/progress.h"
#include "nestling/nestling.hpp"

namespace nestling::cli {
namespace {

struct PrepareArguments {
  std::string model;
  std::string precision = "auto";
  PrepareOptions options;
};

int RunPrepare(PrepareArguments& arguments) {
  if (arguments.precision == "f32") arguments.options.tower_precision = NESTLING_TOWER_F32;
  if (arguments.precision == "int8") arguments.options.tower_precision = NESTLING_TOWER_INT8;
  {
    Progress progress("preparing");
    Prepare(arguments.model, arguments.options, progress.Callback());
  }
  std::printf("%s: prepared\n", arguments.model.c_str());
  return 0;
}

}  // namespace

void AddPrepareCommand(CLI::App& app, Work& work) {
  CLI::App* command = app.add_subcommand(
      "prepare", "Pack weights for this CPU into files, so that starts are fast");
  const auto arguments = std::make_shared<PrepareArguments>();
  PrepareOptions& options = arguments->options;
  command->add_option("model", arguments->model, "Container (.nest)")
      ->required()
      ->type_name("MODEL");
  command
      ->add_option("--cache-dir", options.cache_dir,
                   "Folder of the files, which --cache-dir of other commands then names; default: "
                   "beside the model, where it is found without")
      ->type_name("DIR");
  command->add_option("--slice", options.slice, "Slice: a name in the container, or a JSON file")
      ->type_name("NAME");
  command->add_option("-t,--threads", options.num_threads, "Threads (0: one for each core)")
      ->check(CLI::Range(0, 256))
      ->type_name("N");
  command
      ->add_option("--tower", arguments->precision,
                   "As with the commands that will run it: auto, f32, int8")
      ->check(CLI::IsMember({"auto", "f32", "int8"}))
      ->type_name("TYPE");
  command->callback([arguments, &work] { work = [arguments] { return RunPrepare(*arguments); }; });
}

}  // namespace nestling::cli
