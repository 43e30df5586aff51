// SPDX-License-Identifier: Apache-2.0
#include <chrono>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

#include "cli/command.h"
#include "cli/media.h"
#include "cli/model_options.h"
#include "cli/npy.h"
#include "nestling/nestling.hpp"

namespace nestling::cli {
namespace {

struct EncodeArguments {
  ModelOptions model;
  std::vector<MediaFile> files;
  std::string dump;
};

int RunEncode(const EncodeArguments& arguments) {
  if (arguments.files.size() != 1) throw UsageError("encode needs one --image or --audio");
  // Before the model: a file that cannot be read is said at once.
  const Media media = Media::Read(arguments.files[0]);
  Engine engine(arguments.model.model, arguments.model.ForEngine());
  const nestling_media_size size = engine.MeasureMedia(media.part());
  const auto start = std::chrono::steady_clock::now();
  const std::vector<float> values = engine.Encode(media.part());
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();

  const size_t hidden = values.size() / size.num_soft_tokens;
  NpyWriter writer(arguments.dump, size.num_soft_tokens, hidden);
  for (size_t i = 0; i < size.num_soft_tokens; ++i) {
    writer.WriteRow(std::span(values).subspan(i * hidden, hidden));
  }
  writer.Finish();

  const bool image = media.kind() == MediaKind::kImage;
  const nestling_tower_info tower =
      engine.TowerInfo(image ? NESTLING_TOWER_VISION : NESTLING_TOWER_AUDIO);
  const nlohmann::ordered_json json = {
      {"soft_tokens", size.num_soft_tokens}, {"hidden_size", hidden},
      {"positions", size.num_positions},     {"clips", size.num_clips},
      {"seconds_of_sound", media.seconds()}, {"total_seconds", seconds},
      {"load_seconds", tower.load_seconds},  {"encode_seconds", tower.encode_seconds},
      {"tower_bytes", tower.weight_bytes}};
  std::printf("%s\n", json.dump().c_str());
  return 0;
}

}  // namespace

void AddEncodeCommand(CLI::App& app, Work& work) {
  CLI::App* command = app.add_subcommand(
      "encode", "Soft tokens of an image or a sound, [soft tokens, hidden size] f32");
  const auto arguments = std::make_shared<EncodeArguments>();
  arguments->model.AddTo(*command);
  AddMediaOptions(*command, &arguments->files);
  command->add_option("--dump", arguments->dump, "Write the soft tokens")
      ->required()
      ->type_name("X.npy");
  command->callback([arguments, &work] { work = [arguments] { return RunEncode(*arguments); }; });
}

}  // namespace nestling::cli
