// SPDX-License-Identifier: Apache-2.0
// Rows of the PLE table from storage: NESTLING_BENCH_MODEL=model.nest ple_bench
//
//   rows/<mechanism>/<warm|cold>/<batch>  distinct random rows, no cache of ours; items are rows.
//                                         Cold: the file's pages are dropped before each batch.
//   zipf/<cache MB>                       rows by Zipf's law of exponent 1 through the row cache.
#include <benchmark/benchmark.h>
#include <fcntl.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "container/reader.h"
#include "ple/ple_batch.h"
#include "ple/ple_store.h"

namespace nestling {
namespace {

constexpr uint64_t kNoCache = 1;

// Where io_uring is refused, threads read.
class WithoutIoUring : public StorageCalls {
 public:
  int IoUringSetup(unsigned, io_uring_params*) override { return -ENOSYS; }
};

struct Mechanism {
  const char* name;
  PleMode mode;
  StorageCalls* calls;
};

// The whole row, as a slice that keeps all layers reads it.
PleSelection AllLayers(const ContainerReader& model, const PleTable& table) {
  std::vector<uint32_t> layers(model.header().text.num_layers());
  for (uint32_t i = 0; i < layers.size(); ++i) layers[i] = i;
  return table.Select(layers);
}

std::unique_ptr<PleStore> OpenStore(const ContainerReader& model, const PleOptions& options) {
  auto store = PleStore::Create(model, options);
  if (!store.ok()) {
    std::fprintf(stderr, "%s\n", store.status().message().c_str());
    std::exit(1);
  }
  return std::move(store).value();
}

std::unique_ptr<PleBatch> OpenBatch(PleStore& store, size_t max_tokens) {
  auto batch = PleBatch::Create(store, max_tokens);
  if (!batch.ok()) {
    std::fprintf(stderr, "%s\n", batch.status().message().c_str());
    std::exit(1);
  }
  return std::move(batch).value();
}

void DropPages(const File& file) { posix_fadvise(file.descriptor(), 0, 0, POSIX_FADV_DONTNEED); }

// Touches what a step would, so that mapped rows are read as well.
uint64_t Touch(const PleBatch& batch, size_t count, size_t row_bytes) {
  uint64_t sum = 0;
  for (size_t i = 0; i < count; ++i) {
    for (size_t at = 0; at < row_bytes; at += 64) {
      sum += static_cast<uint64_t>(batch.row(i)[at]);
    }
  }
  return sum;
}

void BenchRows(benchmark::State& state, const ContainerReader& model, const Mechanism& mechanism,
               bool cold) {
  const size_t count = static_cast<size_t>(state.range(0));
  const auto store =
      OpenStore(model, {.mode = mechanism.mode, .cache_bytes = kNoCache, .calls = mechanism.calls});
  const auto batch = OpenBatch(*store, count);
  const PleSelection selection = AllLayers(model, store->table());
  std::mt19937 random(5);
  std::vector<int32_t> ids(count);
  // Warm: few enough rows that all are in the page cache after one round.
  const uint32_t num_rows = store->table().num_rows();
  const uint32_t range = cold ? num_rows : std::min<uint32_t>(num_rows, 8192);
  if (!cold) {
    for (uint32_t row = 0; row < range; ++row) {
      const int32_t id = static_cast<int32_t>(row * (num_rows / range));
      batch->Start({&id, 1}, selection);
      if (!batch->Wait().ok()) state.SkipWithError("cannot read");
      benchmark::DoNotOptimize(Touch(*batch, 1, store->table().row_bytes()));
    }
  }
  for (auto _ : state) {
    for (int32_t& id : ids) {
      id = static_cast<int32_t>(random() % range * (num_rows / range));
    }
    if (cold) {
      state.PauseTiming();
      DropPages(model.file());
      state.ResumeTiming();
    }
    batch->Start(ids, selection);
    if (!batch->Wait().ok()) state.SkipWithError("cannot read");
    benchmark::DoNotOptimize(Touch(*batch, count, store->table().row_bytes()));
  }
  state.SetItemsProcessed(state.iterations() * static_cast<int64_t>(count));
  state.SetLabel(store->mechanism());
}

void BenchZipf(benchmark::State& state, const ContainerReader& model) {
  const auto store = OpenStore(model, {.cache_bytes = static_cast<uint64_t>(state.range(0)) << 20});
  const auto batch = OpenBatch(*store, 1);
  const PleSelection selection = AllLayers(model, store->table());
  const uint32_t num_rows = store->table().num_rows();
  // The inverse of the sum of 1/k, which is about the logarithm; ranks are scattered over the
  // table.
  std::mt19937_64 random(7);
  std::uniform_real_distribution<double> uniform(0.0, std::log(static_cast<double>(num_rows)));
  const auto next = [&] {
    const auto rank = static_cast<uint64_t>(std::exp(uniform(random)));
    return static_cast<int32_t>(rank * 100003 % num_rows);
  };
  const auto read = [&] {
    const int32_t id = next();
    batch->Start({&id, 1}, selection);
    if (!batch->Wait().ok()) state.SkipWithError("cannot read");
  };
  for (int i = 0; i < 200000; ++i) read();
  const PleCounters before = batch->counters();
  for (auto _ : state) read();
  const PleCounters after = batch->counters();
  const double hits = static_cast<double>(after.hits - before.hits);
  state.counters["hit_rate"] = hits / static_cast<double>(after.rows - before.rows);
  state.SetItemsProcessed(state.iterations());
}

int Main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  const char* path = std::getenv("NESTLING_BENCH_MODEL");
  if (path == nullptr) {
    std::fprintf(stderr, "ple_bench: set NESTLING_BENCH_MODEL to a container (.nest)\n");
    return 2;
  }
  const auto model = ContainerReader::Open(path);
  if (!model.ok()) {
    std::fprintf(stderr, "ple_bench: %s\n", model.status().message().c_str());
    return 1;
  }
  WithoutIoUring without_io_uring;
  const Mechanism mechanisms[] = {{"io_uring", PleMode::kStream, nullptr},
                                  {"threads", PleMode::kStream, &without_io_uring},
                                  {"mmap", PleMode::kMmap, nullptr},
                                  {"resident", PleMode::kResident, nullptr}};
  for (const Mechanism& mechanism : mechanisms) {
    for (const bool cold : {false, true}) {
      if (cold && mechanism.mode == PleMode::kResident) continue;
      const std::string name = std::string("rows/") + mechanism.name + (cold ? "/cold" : "/warm");
      auto* bench = benchmark::RegisterBenchmark(
          name.c_str(), [&model, &mechanism, cold](benchmark::State& state) {
            BenchRows(state, **model, mechanism, cold);
          });
      for (const int count : {1, 8, 32, 128, 512}) bench->Arg(count);
      bench->UseRealTime()->Unit(benchmark::kMicrosecond);
      if (cold) bench->Iterations(40);
    }
  }
  benchmark::RegisterBenchmark("zipf",
                               [&model](benchmark::State& state) { BenchZipf(state, **model); })
      ->Arg(4)
      ->Arg(8)
      ->Arg(16)
      ->Arg(32)
      ->Arg(64)
      ->UseRealTime();
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}

}  // namespace
}  // namespace nestling

int main(int argc, char** argv) { return nestling::Main(argc, argv); }
