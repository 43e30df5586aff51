// SPDX-License-Identifier: Apache-2.0
#include <cstdio>
#include <memory>
#include <string>

#include "cli/command.h"
#include "cli/progress.h"
#include "nestling/nestling.hpp"

namespace nestling::cli {
namespace {

int RunVerify(const std::string& model) {
  {
    Progress progress("verifying");
    Verify(model, progress.Callback());
  }
  std::printf("%s: OK\n", model.c_str());
  return 0;
}

}  // namespace

void AddVerifyCommand(CLI::App& app, Work& work) {
  CLI::App* command = app.add_subcommand("verify", "Check bounds and checksums of a container");
  const auto model = std::make_shared<std::string>();
  command->add_option("model", *model, "Container (.nest)")->required()->type_name("MODEL");
  command->callback([model, &work] { work = [model] { return RunVerify(*model); }; });
}

}  // namespace nestling::cli
