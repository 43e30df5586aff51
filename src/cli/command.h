// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <stdexcept>

namespace nestling::cli {

// A call that no input makes right, found after the options were parsed: exit code 2.
class UsageError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// A failure that is not the library's, such as a file of the tool's own: exit code 1.
class ToolError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// Work of the chosen subcommand; returns the exit code.
using Work = std::function<int()>;

// Each adds its subcommand to `app` and sets `work` when it was chosen.
void AddRunCommand(CLI::App& app, Work& work);
void AddPackCommand(CLI::App& app, Work& work);
void AddSynthCommand(CLI::App& app, Work& work);
void AddPrepareCommand(CLI::App& app, Work& work);
void AddInspectCommand(CLI::App& app, Work& work);
void AddVerifyCommand(CLI::App& app, Work& work);
void AddMemoryCommand(CLI::App& app, Work& work);
void AddBenchCommand(CLI::App& app, Work& work);
void AddEvalCommand(CLI::App& app, Work& work);
void AddEncodeCommand(CLI::App& app, Work& work);

}  // namespace nestling::cli
