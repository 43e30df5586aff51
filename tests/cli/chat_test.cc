// SPDX-License-Identifier: Apache-2.0
// The interactive part of `run`, on a terminal of its own.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <pty.h>
#include <sys/wait.h>
#include <unistd.h>

#include <string>

#include "tests/cli/media_files.h"
#include "tests/cli/tool.h"

namespace nestling::testing {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

class Terminal {
 public:
  explicit Terminal(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), NESTLING_TOOL);
    pid_ = forkpty(&fd_, nullptr, nullptr, nullptr);
    if (pid_ != 0) return;
    std::vector<char*> argv;
    for (std::string& argument : arguments) argv.push_back(argument.data());
    argv.push_back(nullptr);
    execv(NESTLING_TOOL, argv.data());
    _exit(127);
  }
  ~Terminal() {
    if (fd_ >= 0) close(fd_);
    if (pid_ > 0) {
      kill(pid_, SIGKILL);
      waitpid(pid_, nullptr, 0);
    }
  }

  void Type(const std::string& text) {
    EXPECT_EQ(write(fd_, text.data(), text.size()), static_cast<ssize_t>(text.size()));
  }

  // What appears until `end` does; all of it if the tool ends or is silent for a minute.
  std::string ReadUntil(const std::string& end) {
    std::string text;
    while (text.find(end) == std::string::npos) {
      pollfd ready{fd_, POLLIN, 0};
      char buffer[4096];
      if (poll(&ready, 1, /*timeout_ms=*/60000) <= 0) break;
      const ssize_t bytes = read(fd_, buffer, sizeof(buffer));
      if (bytes <= 0) break;  // EIO: the other side is gone
      text.append(buffer, static_cast<size_t>(bytes));
    }
    return text;
  }

  int Wait() {
    ReadUntil("\x01 never");
    int status = 0;
    waitpid(std::exchange(pid_, -1), &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }

 private:
  int fd_ = -1;
  pid_t pid_ = -1;
};

std::vector<std::string> ChatCall(const std::string& max_tokens) {
  return {"run", ChatModel(), "--threads", "1", "--temperature", "0", "--max-tokens", max_tokens};
}

TEST(ChatTest, AnswersKeepsHistoryAndObeysItsCommands) {
  Terminal terminal(ChatCall("5"));
  terminal.ReadUntil("> ");
  terminal.Type("/help\n");
  EXPECT_THAT(terminal.ReadUntil("> "), HasSubstr("/reset"));
  terminal.Type("/what\n");
  EXPECT_THAT(terminal.ReadUntil("> "), HasSubstr("unknown command"));
  // Tokens in the session after another message and its reply.
  const auto tokens_after = [&](const std::string& message) {
    terminal.Type(message + "\n");
    terminal.ReadUntil("> ");
    terminal.Type("/stats\n");
    const std::string text = terminal.ReadUntil("> ");
    const size_t begin = text.find('{'), end = text.rfind('}');
    return nlohmann::json::parse(text.substr(begin, end + 1 - begin))["session_tokens"].get<int>();
  };
  const int first = tokens_after("hello");
  EXPECT_GT(tokens_after("hello"), first + 5);  // there is history now
  terminal.Type("/reset\n");
  terminal.ReadUntil("> ");
  EXPECT_EQ(tokens_after("hello"), first);
  terminal.Type("/exit\n");
  EXPECT_EQ(terminal.Wait(), 0);
}

// Its replies are longer than what a terminal holds, so that the tool waits for whoever reads.
std::string TalkativeModel() {
  static const TemporaryPath path("talkative.nest");
  static const bool written = [] {
    TinyModelOptions options = ChatModelOptions();
    options.max_position_embeddings = 1 << 17;
    return WriteTinyModel(path.path(), options).ok();
  }();
  EXPECT_TRUE(written);
  return path.path();
}

TEST(ChatTest, InterruptStopsTheReplyAndNotTheChat) {
  Terminal terminal(
      {"run", TalkativeModel(), "--threads", "1", "--temperature", "0", "--context", "131072"});
  terminal.ReadUntil("> ");
  terminal.Type("hello\n");
  terminal.ReadUntil("hello\r\n");
  terminal.ReadUntil("l");  // the reply has begun
  terminal.Type("\x03");
  const std::string rest = terminal.ReadUntil("> ");
  EXPECT_THAT(rest, Not(HasSubstr("context is full")));
  terminal.Type("/exit\n");
  EXPECT_EQ(terminal.Wait(), 0);
}

TEST(ChatTest, AnInterruptAtThePromptEndsTheChat) {
  Terminal terminal(ChatCall("5"));
  terminal.ReadUntil("> ");
  terminal.Type("\x03");
  EXPECT_NE(terminal.Wait(), 0);
}

// Figures that /stats shows.
nlohmann::json Stats(Terminal& terminal) {
  terminal.Type("/stats\n");
  const std::string text = terminal.ReadUntil("> ");
  const size_t begin = text.find('{'), end = text.rfind('}');
  return nlohmann::json::parse(text.substr(begin, end + 1 - begin));
}

TEST(ChatTest, ImagesAndSoundsGoWithTheNextMessageAndBadFilesDoNotEndTheChat) {
  Terminal terminal({"run", GetMediaFiles().model, "--threads", "1", "--temperature", "0",
                     "--max-tokens", "3", "--audio", GetMediaFiles().sound});
  EXPECT_THAT(terminal.ReadUntil("> "), HasSubstr("voice.wav (2.1 s)"));
  terminal.Type("/image /no/such.png\n");
  EXPECT_THAT(terminal.ReadUntil("> "), HasSubstr("/no/such.png"));
  terminal.Type("/image   " + GetMediaFiles().image + " \n");
  EXPECT_THAT(terminal.ReadUntil("> "), HasSubstr("picture.bmp ("));
  EXPECT_EQ(Stats(terminal)["vision_encodes"], 0);
  terminal.Type("hello\n");
  terminal.ReadUntil("> ");
  const nlohmann::json both = Stats(terminal);
  EXPECT_EQ(both["vision_encodes"], 1);
  EXPECT_EQ(both["audio_encodes"], 1);
  EXPECT_GT(both["session_tokens"], 36);
  // The next message has none of them, and neither has one after /drop.
  terminal.Type("hello\n");
  terminal.ReadUntil("> ");
  const nlohmann::json text = Stats(terminal);
  EXPECT_LT(text["session_tokens"].get<int>() - both["session_tokens"].get<int>(), 36);
  terminal.Type("/audio " + GetMediaFiles().sound + "\n");
  terminal.ReadUntil("> ");
  terminal.Type("/drop\n");
  terminal.ReadUntil("> ");
  terminal.Type("hello\n");
  terminal.ReadUntil("> ");
  const nlohmann::json dropped = Stats(terminal);
  EXPECT_LT(dropped["session_tokens"].get<int>() - text["session_tokens"].get<int>(), 36);
  EXPECT_EQ(dropped["soft_token_cache_hits"], 0);
  // What was encoded before is not encoded again.
  terminal.Type("/audio " + GetMediaFiles().sound + "\n");
  terminal.ReadUntil("> ");
  terminal.Type("hello\n");
  terminal.ReadUntil("> ");
  EXPECT_EQ(Stats(terminal)["soft_token_cache_hits"], 1);
  terminal.Type("/exit\n");
  EXPECT_EQ(terminal.Wait(), 0);
}

TEST(ChatTest, AModelWithoutTheTowerRefusesAtOnce) {
  Terminal terminal(ChatCall("3"));
  terminal.ReadUntil("> ");
  terminal.Type("/image " + GetMediaFiles().image + "\n");
  const std::string refusal = terminal.ReadUntil("> ");
  EXPECT_THAT(refusal, HasSubstr("vision"));
  EXPECT_THAT(refusal, Not(HasSubstr("with the next message")));
  terminal.Type("/exit\n");
  EXPECT_EQ(terminal.Wait(), 0);
}

}  // namespace
}  // namespace nestling::testing
