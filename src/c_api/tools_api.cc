// SPDX-License-Identifier: Apache-2.0
#include <memory>
#include <optional>
#include <string>

#include "c_api/arguments.h"
#include "c_api/guard.h"
#include "container/reader.h"
#include "pack/inspect.h"
#include "pack/pack.h"
#include "pack/synth.h"

namespace nestling {
namespace {

constexpr uint32_t kMaxThreads = 1024;
constexpr size_t kMaxSlices = 1024;

Status ReadThreads(uint32_t num_threads, size_t* jobs) {
  if (num_threads > kMaxThreads) {
    return InvalidArgument("options.num_threads: ", num_threads, ", want at most ", kMaxThreads);
  }
  *jobs = num_threads;
  return OkStatus();
}

Status ReadFormat(const char* name, const char* option, std::optional<DType>* out) {
  if (name == nullptr) return OkStatus();
  const Result<DType> parsed = ParseDType(name);
  if (!parsed.ok()) return InvalidArgument("options.", option, ": ", parsed.status().message());
  *out = *parsed;
  return OkStatus();
}

// Of either options struct: both have the four names.
template <typename Options>
Result<FormatOptions> ReadFormats(const Options& options) {
  FormatOptions formats;
  std::optional<DType> quant;
  RETURN_IF_ERROR(ReadFormat(options.quantisation, "quantisation", &quant));
  formats.quant = quant.value_or(formats.quant);
  RETURN_IF_ERROR(ReadFormat(options.ple_quantisation, "ple_quantisation", &formats.ple_quant));
  RETURN_IF_ERROR(
      ReadFormat(options.embed_quantisation, "embed_quantisation", &formats.embed_quant));
  RETURN_IF_ERROR(
      ReadFormat(options.tower_quantisation, "tower_quantisation", &formats.tower_quant));
  return formats;
}

ProgressCallback WrapProgress(nestling_progress_callback progress, void* user) {
  if (progress == nullptr) return nullptr;
  return [progress, user](uint64_t done, uint64_t total) { progress(user, done, total); };
}

Result<PackOptions> ReadPackOptions(const nestling_pack_options& read) {
  PackOptions options;
  ASSIGN_OR_RETURN(options.formats, ReadFormats(read));
  RETURN_IF_ERROR(ReadThreads(read.num_threads, &options.jobs));
  if (read.slice != nullptr) options.slice = read.slice;
  if (read.num_add_slices > kMaxSlices) {
    return InvalidArgument("options.num_add_slices: ", read.num_add_slices, ", want at most ",
                           kMaxSlices);
  }
  if (read.num_add_slices != 0) {
    RETURN_IF_ERROR(RequireNotNull(read.add_slices, "options.add_slices"));
  }
  for (size_t i = 0; i < read.num_add_slices; ++i) {
    if (read.add_slices[i] == nullptr) {
      return InvalidArgument("options.add_slices[", i, "]: NULL");
    }
    options.add_slices.emplace_back(read.add_slices[i]);
  }
  options.allow_unknown_config = read.allow_unknown_config != 0;
  return options;
}

}  // namespace
}  // namespace nestling

extern "C" {

nestling_status nestling_pack(const char* source, const char* output,
                              const nestling_pack_options* options) {
  return nestling::Guard([&]() -> nestling::Status {
    RETURN_IF_ERROR(nestling::RequireNotNull(source, "source"));
    RETURN_IF_ERROR(nestling::RequireNotNull(output, "output"));
    nestling_pack_options read;
    RETURN_IF_ERROR(nestling::ReadOptions(options, "options", &read));
    ASSIGN_OR_RETURN(nestling::PackOptions pack, nestling::ReadPackOptions(read));
    pack.source = source;
    pack.output = output;
    nestling::WarningCallback warn;
    if (read.warning != nullptr) {
      warn = [&read](const std::string& message) { read.warning(read.user, message.c_str()); };
    }
    return nestling::Pack(pack, nestling::WrapProgress(read.progress, read.user), warn);
  });
}

nestling_status nestling_synthesize(const char* output,
                                    const nestling_synthesize_options* options) {
  return nestling::Guard([&]() -> nestling::Status {
    RETURN_IF_ERROR(nestling::RequireNotNull(output, "output"));
    nestling_synthesize_options read;
    RETURN_IF_ERROR(nestling::ReadOptions(options, "options", &read));
    nestling::SynthOptions synth;
    ASSIGN_OR_RETURN(synth.formats, nestling::ReadFormats(read));
    RETURN_IF_ERROR(nestling::ReadThreads(read.num_threads, &synth.jobs));
    if (read.preset != nullptr) synth.preset = read.preset;
    if (read.seed != 0) synth.seed = read.seed;
    synth.output = output;
    return nestling::Synthesize(synth, nestling::WrapProgress(read.progress, read.user));
  });
}

nestling_status nestling_verify(const char* path, nestling_progress_callback progress, void* user) {
  return nestling::Guard([&]() -> nestling::Status {
    RETURN_IF_ERROR(nestling::RequireNotNull(path, "path"));
    ASSIGN_OR_RETURN(const std::unique_ptr<nestling::ContainerReader> reader,
                     nestling::ContainerReader::Open(std::string(path)));
    if (progress == nullptr) return nestling::VerifyContainer(*reader, {});
    return nestling::VerifyContainer(
        *reader, [&](uint64_t done, uint64_t total) { progress(user, done, total); });
  });
}

nestling_status nestling_inspect(const char* path, char* buffer, size_t capacity,
                                 size_t* out_needed) {
  return nestling::Guard([&]() -> nestling::Status {
    RETURN_IF_ERROR(nestling::RequireNotNull(path, "path"));
    RETURN_IF_ERROR(nestling::CheckCopyOut(buffer, capacity, out_needed, "out_needed"));
    ASSIGN_OR_RETURN(const std::unique_ptr<nestling::ContainerReader> reader,
                     nestling::ContainerReader::Open(std::string(path)));
    return nestling::CopyOutText(nestling::InspectJson(*reader), buffer, capacity, out_needed);
  });
}

}  // extern "C"
