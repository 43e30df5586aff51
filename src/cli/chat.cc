// SPDX-License-Identifier: Apache-2.0
#include "cli/chat.h"

#include <cstdio>
#include <iostream>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "cli/command.h"
#include "cli/interrupt.h"
#include "cli/run_stats.h"

namespace nestling::cli {
namespace {

constexpr const char* kHelp =
    "/image FILE  put an image before the next message (PNG, JPEG, BMP, GIF, PPM)\n"
    "/audio FILE  put a sound before the next message (WAV, FLAC, OGG, MP3)\n"
    "/drop        put none of them there\n"
    "/reset       forget the conversation\n"
    "/stats       figures of this session, as JSON\n"
    "/exit        leave (also Ctrl-D)\n"
    "/help        this list\n"
    "Ctrl-C stops a reply; what it has said so far stays in the history.\n";

class ChatLoop {
 public:
  ChatLoop(const RunOptions& options, std::vector<Media> media, const Engine& engine,
           Session& session)
      : options_(options), engine_(engine), session_(session), media_(std::move(media)) {
    last_ = MakeStruct<nestling_generate_result>();
  }

  void Run() {
    Begin();
    std::fprintf(stderr, "Type a message; /help lists the commands.\n");
    ListMedia();
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
      media_.clear();
      Begin();
    } else if (line.starts_with("/image ")) {
      Attach(MediaKind::kImage, line.substr(7));
    } else if (line.starts_with("/audio ")) {
      Attach(MediaKind::kAudio, line.substr(7));
    } else if (line == "/drop") {
      media_.clear();
    } else if (line == "/stats") {
      PrintStats(options_, engine_, session_, last_);
    } else if (line == "/help") {
      std::fputs(kHelp, stderr);
    } else {
      std::fprintf(stderr, "unknown command %s; /help lists them\n", line.c_str());
    }
  }

  // Refuses at once what the next message could not have. Spaces around a path are typing.
  void Attach(MediaKind kind, std::string path) {
    path.erase(0, path.find_first_not_of(' '));
    path.erase(path.find_last_not_of(' ') + 1);
    try {
      Media media = Media::Read({kind, path});
      engine_.MeasureMedia(media.part());
      media_.push_back(std::move(media));
    } catch (const std::runtime_error& error) {
      std::fprintf(stderr, "%s\n", error.what());
    }
    ListMedia();
  }

  void ListMedia() const {
    if (media_.empty()) return;
    std::fputs("with the next message:", stderr);
    const char* separator = " ";
    for (const Media& media : media_) {
      std::fprintf(stderr, "%s%s", separator, media.Describe().c_str());
      separator = ", ";
    }
    std::fputc('\n', stderr);
  }

  void AddMessage(const std::string& line) {
    const InterruptCancels interrupt(session_);  // images take seconds
    std::vector<Part> parts = PartsOf(media_);
    parts.push_back(Part::Text(line));
    session_.AddMessage(Role::kUser, parts);
    media_.clear();
  }

  void Answer(const std::string& line) {
    try {
      AddMessage(line);
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
  std::vector<Media> media_;  // that the next message begins with
  nestling_generate_result last_;
};

}  // namespace

void Chat(const RunOptions& options, std::vector<Media> media, const Engine& engine,
          Session& session) {
  ChatLoop(options, std::move(media), engine, session).Run();
}

}  // namespace nestling::cli
