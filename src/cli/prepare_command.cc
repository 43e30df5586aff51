// SPDX-License-Identifier: Apache-2.0
#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>
#include <system_error>

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

double Megabytes(const std::string& path) {
  std::error_code error;
  const auto bytes = std::filesystem::file_size(path, error);
  return error ? 0 : static_cast<double>(bytes) * 1e-6;
}

int RunPrepare(PrepareArguments& arguments) {
  const PrepareOptions& options = arguments.options;
  if (!options.output.empty() && !options.in_place)
    throw UsageError("--output: only with --in-place");
  const double before = Megabytes(arguments.model);
  nestling_prepare_outcome outcome;
  if (arguments.precision == "f32") arguments.options.tower_precision = NESTLING_TOWER_F32;
  if (arguments.precision == "int8") arguments.options.tower_precision = NESTLING_TOWER_INT8;
  {
    Progress progress("preparing");
    outcome = Prepare(arguments.model, options, progress.Callback());
  }
  const std::string& made = options.output.empty() ? arguments.model : options.output;
  if (outcome == NESTLING_PREPARE_NOTHING) {
    std::printf("%s: nothing in it has to be packed\n", made.c_str());
  } else if (outcome == NESTLING_PREPARE_ALREADY) {
    std::printf("%s: holds packed weights for this CPU already\n", made.c_str());
  } else if (options.in_place) {
    std::printf(
        "%s: %.1f MB, was %.1f MB; it holds packed weights and runs on CPUs like this one only\n",
        made.c_str(), Megabytes(made), before);
  } else {
    std::printf("%s: prepared\n", made.c_str());
  }
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
  command->add_flag("--in-place", options.in_place,
                    "No files: a container that holds the packed form instead of the weights that "
                    "were packed. It then runs on CPUs like this one only, and with this version. "
                    "While it is made, both are on the disk");
  command
      ->add_option("-o,--output", options.output,
                   "With --in-place: container to write; default: it replaces the model")
      ->type_name("FILE");
  command->callback([arguments, &work] { work = [arguments] { return RunPrepare(*arguments); }; });
}

}  // namespace nestling::cli
