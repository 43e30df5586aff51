// SPDX-License-Identifier: Apache-2.0
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "cli/command.h"
#include "nestling/nestling.hpp"

namespace nestling::cli {
namespace {

using Json = nlohmann::ordered_json;

struct InspectArguments {
  std::string model;
  bool json = false;
};

double Millions(const Json& count) { return count.get<double>() / 1e6; }
double Megabytes(const Json& bytes) { return bytes.get<double>() / 1e6; }

// "a 1, b 2" of an object's entries that are not objects themselves.
std::string OneLine(const Json& object) {
  std::string line;
  for (const auto& [name, value] : object.items()) {
    if (value.is_object()) continue;
    if (!line.empty()) line += ", ";
    line += name + " " + (value.is_string() ? value.get<std::string>() : value.dump());
  }
  return line;
}

// Runs of equal layers: "0-3 sliding_attention, ffn 8192, sparsity 0.95".
void PrintLayers(const Json& layers) {
  std::printf("\nlayers\n");
  for (size_t first = 0; first < layers.size();) {
    size_t last = first;
    while (last + 1 < layers.size() && layers[last + 1] == layers[first]) ++last;
    std::printf("  %2zu-%-2zu  %s\n", first, last, OneLine(layers[first]).c_str());
    first = last + 1;
  }
}

void PrintSections(const Json& sections) {
  std::printf("\nsections               MB        offset  xxh3\n");
  for (const Json& section : sections) {
    std::printf("  %-14s %8.2f %13llu  %s\n", section["name"].get<std::string>().c_str(),
                Megabytes(section["bytes"]),
                static_cast<unsigned long long>(section["offset"].get<uint64_t>()),
                section["xxh3"].get<std::string>().c_str());
  }
}

// Of a container that was prepared in place.
void PrintPacked(const Json& parts) {
  if (parts.empty()) return;
  std::printf("\npacked: runs on such CPUs and with this library only\n");
  for (const auto& [name, part] : parts.items()) {
    std::printf("  %-7s %s\n", name.c_str(), OneLine(part).c_str());
  }
}

void PrintCounts(const char* title, const Json& groups) {
  std::printf("\n%-16s parameters (M)            MB\n", title);
  for (const auto& [name, group] : groups.items()) {
    if (group.is_object()) {
      std::printf("  %-14s %14.3f %13.2f\n", name.c_str(), Millions(group["parameters"]),
                  Megabytes(group["bytes"]));
    } else {
      std::printf("  %-14s %14.3f\n", name.c_str(), Millions(group));
    }
  }
}

void PrintSlices(const Json& slices) {
  std::printf("\nslices            effective (M)  layers  MMLU %%  description\n");
  for (const Json& slice : slices) {
    const auto accuracy = slice.find("published_mmlu_percent");
    char published[16] = "";
    if (accuracy != slice.end()) {
      std::snprintf(published, sizeof(published), "%.1f", accuracy->get<double>());
    }
    std::printf("  %-16s %12.3f %7zu %7s  %s\n", slice["name"].get<std::string>().c_str(),
                Millions(slice["effective_parameters"]), slice["num_layers"].get<size_t>(),
                published, slice["description"].get<std::string>().c_str());
  }
}

void PrintForPeople(const Json& json) {
  std::printf("container   %s\n", OneLine(json["container"]).c_str());
  std::printf("provenance  %s\n", OneLine(json["provenance"]).c_str());
  std::printf("\ntext\n");
  for (const auto& [name, value] : json["text"].items()) {
    std::printf("  %-24s %s\n", name.c_str(), value.dump().c_str());
  }
  PrintLayers(json["layers"]);
  PrintSections(json["sections"]);
  PrintPacked(json["packed"]);
  PrintCounts("tensors", json["tensors"]);
  PrintCounts("parameters", json["parameters"]);
  PrintSlices(json["slices"]);
  std::printf("\nspecial tokens  %s\n", OneLine(json["special_tokens"]).c_str());
  std::printf("generation      %s\n", OneLine(json["generation"]).c_str());
}

int RunInspect(const InspectArguments& arguments) {
  const std::string text = Inspect(arguments.model);
  if (arguments.json) {
    std::printf("%s\n", text.c_str());
  } else {
    PrintForPeople(Json::parse(text));
  }
  return 0;
}

}  // namespace

void AddInspectCommand(CLI::App& app, Work& work) {
  CLI::App* command = app.add_subcommand(
      "inspect", "Configuration, sections, slices and parameters of a container");
  const auto arguments = std::make_shared<InspectArguments>();
  command->add_option("model", arguments->model, "Container (.nest)")
      ->required()
      ->type_name("MODEL");
  command->add_flag("--json", arguments->json, "One JSON object");
  command->callback([arguments, &work] { work = [arguments] { return RunInspect(*arguments); }; });
}

}  // namespace nestling::cli
