// SPDX-License-Identifier: Apache-2.0
#include "cli/chat.h"

#include <cstdio>
#include <iostream>
#include <string>

#include "cli/run_stats.h"

namespace nestling::cli {
namespace {

constexpr const char* kHelp =
    "/reset  forget the conversation\n"
    "/stats  figures of this session, as JSON\n"
    "/exit   leave (also Ctrl-D)\n"
    "/help   this list\n"
    "Ctrl-C stops a reply; what it has said so far stays in the history.\n";

class ChatLoop {
 public:
  ChatLoop(const RunOptions& options, const Engine& engine, Session& session)
      : options_(options), engine_(engine), session_(session) {
    last_ = MakeStruct<nestling_generate_result>();
  }

  void Run() {
    Begin();
    std::fprintf(stderr, "Type a message; /help lists the commands.\n");
    for (std::string line; Ask(line);) {
      if (line.empty()) continue;
      if (line == "/exit") return;
      if (line.front() == '/') {
        Command(line);
      } else {
        Answer(line);
      }
    }
    std::fputc('\n', stderr);
  }

 private:
  // The system text cannot fail once it was accepted: the session is empty then.
  void Begin() {
    if (!options_.system.empty()) session_.AddMessage(Role::kSystem, options_.system);
  }

  static bool Ask(std::string& line) {
    std::fputs("> ", stderr);
    return static_cast<bool>(std::getline(std::cin, line));
  }

  void Command(const std::string& line) {
    if (line == "/reset") {
      session_.Reset();
      Begin();
    } else if (line == "/stats") {
      PrintStats(options_, engine_, session_, last_);
    } else if (line == "/help") {
      std::fputs(kHelp, stderr);
    } else {
      std::fprintf(stderr, "unknown command %s; /help lists them\n", line.c_str());
    }
  }

  void Answer(const std::string& line) {
    try {
      session_.AddMessage(Role::kUser, line);
      last_ = StreamReply(options_, engine_, session_);
      if (last_.stop_reason == NESTLING_STOP_CONTEXT_FULL) {
        std::fprintf(stderr, "the context is full: /reset begins a new conversation\n");
      }
    } catch (const Error& error) {
      std::fprintf(stderr, "%s\n", error.what());
    }
  }

  const RunOptions& options_;
  const Engine& engine_;
  Session& session_;
  nestling_generate_result last_;
};

}  // namespace

void Chat(const RunOptions& options, const Engine& engine, Session& session) {
  ChatLoop(options, engine, session).Run();
}

}  // namespace nestling::cli
