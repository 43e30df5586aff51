// SPDX-License-Identifier: Apache-2.0
#include "cli/progress.h"

#include <unistd.h>

#include <cstdio>
#include <utility>

namespace nestling::cli {

Progress::Progress(std::string what)
    : what_(std::move(what)), terminal_(isatty(STDERR_FILENO) == 1) {}

Progress::~Progress() { Wipe(); }

ProgressCallback Progress::Callback() {
  if (!terminal_) return nullptr;
  return [this](uint64_t done, uint64_t total) { Show(done, total); };
}

WarningCallback Progress::Warnings() {
  return [this](std::string_view message) {
    Wipe();
    std::fprintf(stderr, "nestling: warning: %.*s\n", static_cast<int>(message.size()),
                 message.data());
  };
}

void Progress::Show(uint64_t done, uint64_t total) {
  const int percent =
      total == 0 ? 100
                 : static_cast<int>(100.0 * static_cast<double>(done) / static_cast<double>(total));
  if (percent == shown_percent_) return;
  shown_percent_ = percent;
  std::fprintf(stderr, "\r%s: %3d %% of %.2f GB", what_.c_str(), percent,
               static_cast<double>(total) / 1e9);
  std::fflush(stderr);
}

void Progress::Wipe() {
  if (shown_percent_ < 0) return;
  std::fprintf(stderr, "\r\033[K");
  shown_percent_ = -1;
}

}  // namespace nestling::cli
