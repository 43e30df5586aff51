// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <benchmark/benchmark.h>

#include <cstdio>
#include <cstdlib>
#include <string>

#include "base/status.h"

namespace nestling {

// main() of a benchmark that needs a container: NAME [benchmark flags] MODEL.nest [threads].
inline int ModelBenchmarkMain(const char* name, int argc, char** argv,
                              Status (*run)(const std::string& path, size_t num_threads)) {
  benchmark::Initialize(&argc, argv);
  if (argc < 2) {
    std::fprintf(stderr, "usage: %s MODEL.nest [threads]\n", name);
    return 2;
  }
  const Status status = run(argv[1], argc > 2 ? static_cast<size_t>(std::atoi(argv[2])) : 0);
  if (!status.ok()) std::fprintf(stderr, "%s\n", status.message().c_str());
  return status.ok() ? 0 : 1;
}

}  // namespace nestling
