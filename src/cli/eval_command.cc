// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "cli/command.h"
#include "cli/media.h"
#include "cli/model_options.h"
#include "cli/npy.h"
#include "cli/score.h"
#include "cli/text_file.h"
#include "cli/token_list.h"
#include "nestling/nestling.hpp"

namespace nestling::cli {
namespace {

using Json = nlohmann::ordered_json;
using Tokens = std::vector<int32_t>;

constexpr uint32_t kDefaultWindow = 512;

struct EvalArguments {
  ModelOptions model;
  std::string tokens;
  std::vector<MediaFile> media;
  std::string text;
  std::string split;
  uint32_t window = 0;
  uint32_t greedy = 0;
  std::string dump;
  std::string reference;
};

void Print(const Json& json) { std::printf("%s\n", json.dump().c_str()); }

SessionOptions SessionFor(const EvalArguments& arguments, size_t num_tokens) {
  SessionOptions options = arguments.model.ForSession();
  // Never more than the model can: the library then says what does not fit.
  if (options.context_tokens == 0) options.context_tokens = static_cast<uint32_t>(num_tokens);
  return options;
}

// Logits of every token, into a file if `dump` names one.
void EvalToFile(Session& session, const Tokens& tokens, std::span<const Part> media,
                const std::string& dump, size_t vocab_size) {
  NpyWriter writer(dump, tokens.size(), vocab_size);
  session.EvalMedia(tokens, media, [&](size_t, std::span<const float> logits) {
    writer.WriteRow(logits);
    return true;
  });
  writer.Finish();
}

Tokens Greedy(Session& session, uint32_t num_tokens) {
  GenerateOptions options;
  options.max_tokens = num_tokens;
  options.sampling = NESTLING_SAMPLING_GREEDY;
  options.ignore_stop_tokens = true;
  Tokens ids;
  session.Generate(options, [&](const Token& token) {
    if (token.id >= 0) ids.push_back(token.id);
    return true;
  });
  if (ids.size() != num_tokens) {
    throw ToolError("the context has room for " + std::to_string(ids.size()) + " of " +
                    std::to_string(num_tokens) + " tokens");
  }
  return ids;
}

// Sequences of at most `window` tokens, each with <bos> in front. Documents do not share one.
std::vector<Tokens> CutWindows(const Engine& engine, const EvalArguments& arguments) {
  const nestling_engine_info info = engine.Info();
  const uint32_t window =
      std::min(arguments.window != 0 ? arguments.window : kDefaultWindow, info.max_context_tokens);
  const std::string text = ReadTextFile(arguments.text);
  std::vector<Tokens> windows;
  size_t begin = 0;
  while (begin < text.size()) {
    size_t end = std::string::npos;
    if (!arguments.split.empty()) end = text.find(arguments.split, begin);
    const size_t length = std::min(end, text.size()) - begin;
    const Tokens document = engine.Tokenize(std::string_view(text).substr(begin, length),
                                            NESTLING_TOKENIZE_PARSE_SPECIAL);
    for (size_t at = 0; at < document.size(); at += window - 1) {
      const size_t count = std::min<size_t>(window - 1, document.size() - at);
      Tokens tokens;
      if (info.bos_token >= 0) tokens.push_back(info.bos_token);
      tokens.insert(tokens.end(), document.begin() + static_cast<ptrdiff_t>(at),
                    document.begin() + static_cast<ptrdiff_t>(at + count));
      if (tokens.size() > 1) windows.push_back(std::move(tokens));
    }
    begin += length + std::max<size_t>(arguments.split.size(), 1);
  }
  if (windows.empty()) throw ToolError("\"" + arguments.text + "\": no text to score");
  return windows;
}

size_t Longest(const std::vector<Tokens>& sequences) {
  size_t longest = 0;
  for (const Tokens& tokens : sequences) longest = std::max(longest, tokens.size());
  return longest;
}

Json ScoreToJson(const Score& score, const Session& session) {
  return {{"tokens", score.num_tokens},
          {"nll", score.MeanNll()},
          {"ppl", score.Perplexity()},
          {"slice", session.Info().slice}};
}

void PrintScore(const EvalArguments& arguments, const Engine& engine,
                const std::vector<Tokens>& sequences) {
  Session session(engine, SessionFor(arguments, Longest(sequences)));
  Score score;
  for (const Tokens& tokens : sequences) AddScore(session, tokens, &score);
  Print(ScoreToJson(score, session));
}

void PrintDivergence(const EvalArguments& arguments, const Engine& engine,
                     const std::vector<Tokens>& sequences) {
  EngineOptions reference_options = arguments.model.ForEngine();
  reference_options.slice.clear();
  const Engine reference_engine(arguments.reference, reference_options);
  if (reference_engine.Info().vocab_size != engine.Info().vocab_size) {
    throw ToolError("\"" + arguments.reference + "\" has a vocabulary of " +
                    std::to_string(reference_engine.Info().vocab_size) + ", the model of " +
                    std::to_string(engine.Info().vocab_size));
  }
  const SessionOptions options = SessionFor(arguments, Longest(sequences));
  Session session(engine, options);
  Session reference(reference_engine, options);
  Divergence divergence;
  for (const Tokens& tokens : sequences) AddDivergence(session, reference, tokens, &divergence);
  Json json = ScoreToJson(divergence.model, session);
  json["reference_nll"] = divergence.reference.MeanNll();
  json["reference_ppl"] = divergence.reference.Perplexity();
  json["mean_kl"] = divergence.MeanKl();
  json["max_kl"] = divergence.max_kl;
  json["top1_agreement"] = divergence.Top1Agreement();
  Print(json);
}

void RunTokens(const EvalArguments& arguments, const std::vector<Media>& media,
               const Engine& engine, const Tokens& tokens) {
  Session session(engine, SessionFor(arguments, tokens.size() + arguments.greedy));
  const std::vector<Part> parts = PartsOf(media);
  if (arguments.dump.empty()) {
    session.PrefillMedia(tokens, parts);
  } else {
    EvalToFile(session, tokens, parts, arguments.dump, engine.Info().vocab_size);
  }
  if (arguments.greedy != 0) Print(Greedy(session, arguments.greedy));
}

int RunEval(const EvalArguments& arguments) {
  if (arguments.tokens.empty() == arguments.text.empty()) {
    throw UsageError("eval needs one of --tokens and --text");
  }
  const bool runs = !arguments.dump.empty() || arguments.greedy != 0;
  if (runs && (arguments.tokens.empty() || !arguments.reference.empty())) {
    throw UsageError("--dump and --greedy go with --tokens, without --reference");
  }
  if (!arguments.media.empty() && !runs) {
    throw UsageError("--image and --audio go with --tokens, and --dump or --greedy");
  }
  Tokens tokens;
  if (!arguments.tokens.empty()) tokens = ReadTokenList(arguments.tokens);
  const std::vector<Media> media = ReadMedia(arguments.media);
  const Engine engine(arguments.model.model, arguments.model.ForEngine());
  if (runs) {
    RunTokens(arguments, media, engine, tokens);
    return 0;
  }
  const std::vector<Tokens> sequences =
      tokens.empty() ? CutWindows(engine, arguments) : std::vector<Tokens>{tokens};
  if (arguments.reference.empty()) {
    PrintScore(arguments, engine, sequences);
  } else {
    PrintDivergence(arguments, engine, sequences);
  }
  return 0;
}

}  // namespace

void AddEvalCommand(CLI::App& app, Work& work) {
  CLI::App* command = app.add_subcommand(
      "eval", "Logits and greedy continuation of tokens; perplexity and KL divergence of a text");
  const auto arguments = std::make_shared<EvalArguments>();
  arguments->model.AddTo(*command);
  command->add_option("--tokens", arguments->tokens, "Ids 1,2,3 or a text file of numbers")
      ->type_name("LIST|FILE");
  AddMediaOptions(*command, &arguments->media);
  command->add_option("--text", arguments->text, "Text file to score; special tokens count")
      ->type_name("FILE");
  command->add_option("--split", arguments->split, "Begin a new document after this text")
      ->type_name("TEXT");
  command
      ->add_option("--window", arguments->window,
                   "Most tokens of a document that are scored together (default: 512)")
      ->check(CLI::Range(2, INT32_MAX))
      ->type_name("N");
  command->add_option("--greedy", arguments->greedy, "Print the N next ids as a JSON array")
      ->type_name("N");
  command
      ->add_option("--dump", arguments->dump, "Write the logits of all tokens, [tokens, vocab] f32")
      ->type_name("X.npy");
  command
      ->add_option("--reference", arguments->reference,
                   "Another container of the vocabulary: print KL(reference || model)")
      ->type_name("MODEL");
  command->callback([arguments, &work] { work = [arguments] { return RunEval(*arguments); }; });
}

}  // namespace nestling::cli
