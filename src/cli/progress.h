// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

#include "nestling/nestling.hpp"

namespace nestling::cli {

// One line on stderr that shows how far work is; nothing at all unless stderr is a terminal.
class Progress {
 public:
  explicit Progress(std::string what);
  // Wipes the line.
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  // For the library; empty without a terminal. Borrows this object.
  ProgressCallback Callback();
  // A remark: a line of its own on stderr, terminal or not.
  WarningCallback Warnings();

 private:
  void Show(uint64_t done, uint64_t total);
  void Wipe();

  std::string what_;
  bool terminal_;
  int shown_percent_ = -1;
};

}  // namespace nestling::cli
