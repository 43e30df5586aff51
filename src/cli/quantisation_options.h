// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "nestling/nestling.hpp"

namespace nestling::cli {

// --quant and its relatives, for `pack` and `synth`. Names are the library's to check.
inline void AddQuantisationOptions(CLI::App& command, Quantisation& quantisation) {
  const CLI::IsMember formats({"f32", "f16", "bf16", "q8c", "q4c", "q4b32"});
  command.add_option("--quant", quantisation.decoder, "Weights: f32, q8c, q4c, q4b32 (default)")
      ->check(CLI::IsMember({"f32", "q8c", "q4c", "q4b32"}))
      ->type_name("Q");
  command.add_option("--ple-quant", quantisation.ple, "PLE table (default: as --quant)")
      ->check(formats)
      ->type_name("Q");
  command.add_option("--embed-quant", quantisation.embed, "Token embedding (default: as --quant)")
      ->check(formats)
      ->type_name("Q");
  command.add_option("--tower-quant", quantisation.towers, "Vision and audio: f32, f16, bf16, q8c")
      ->check(formats)
      ->type_name("Q");
}

}  // namespace nestling::cli
