// SPDX-License-Identifier: Apache-2.0
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <exception>
#include <string>

#include "cli/command.h"
#include "nestling/nestling.hpp"

namespace nestling::cli {
namespace {

constexpr int kFailed = 1;
constexpr int kCalledWrongly = 2;

int Fail(int exit_code, std::string message) {
  std::replace(message.begin(), message.end(), '\n', ' ');
  std::fprintf(stderr, "nestling: %s\n", message.c_str());
  return exit_code;
}

// The parser itself would only say that a command is missing.
bool HasCommand(const CLI::App& app, const std::string& name) {
  for (const CLI::App* command : app.get_subcommands(nullptr)) {
    if (command->get_name() == name) return true;
  }
  return false;
}

int Main(int argc, char** argv) {
  CLI::App app("Gemma 3n on this machine's CPU", "nestling");
  app.set_version_flag("--version", nestling_version_string());
  app.require_subcommand(1);
  Work work;
  AddRunCommand(app, work);
  AddPackCommand(app, work);
  AddSynthCommand(app, work);
  AddPrepareCommand(app, work);
  AddInspectCommand(app, work);
  AddVerifyCommand(app, work);
  AddMemoryCommand(app, work);
  AddBenchCommand(app, work);
  AddEvalCommand(app, work);
  AddEncodeCommand(app, work);
  if (argc > 1 && argv[1][0] != '-' && !HasCommand(app, argv[1])) {
    return Fail(kCalledWrongly, "unknown command \"" + std::string(argv[1]) + "\"; see --help");
  }
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& success) {  // --help, --version
    return app.exit(success);
  } catch (const CLI::ParseError& error) {
    return Fail(kCalledWrongly, error.what());
  }
  try {
    const int exit_code = work();
    if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0) {
      return Fail(kFailed, "standard output: cannot write");
    }
    return exit_code;
  } catch (const UsageError& error) {
    return Fail(kCalledWrongly, error.what());
  } catch (const std::exception& error) {
    return Fail(kFailed, error.what());
  }
}

}  // namespace
}  // namespace nestling::cli

int main(int argc, char** argv) { return nestling::cli::Main(argc, argv); }
