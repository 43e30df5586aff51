// SPDX-License-Identifier: Apache-2.0
#include "pack/pack.h"

#include <algorithm>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <utility>

#include "base/file.h"
#include "container/writer.h"
#include "model/tensor_names.h"
#include "pack/checkpoint_tensors.h"
#include "pack/gguf.h"
#include "pack/gguf_config.h"
#include "pack/panels.h"
#include "pack/parallel.h"
#include "pack/safetensors.h"
#include "pack/slicing.h"

namespace nestling {
namespace {

constexpr uint64_t kMaxTokenizerBytes = 64ull << 20;

std::string BaseName(const std::string& path) {
  const std::filesystem::path normal = std::filesystem::path(path).lexically_normal();
  const std::filesystem::path name =
      normal.has_filename() ? normal.filename() : normal.parent_path().filename();
  return name.string();
}

// Text checkpoints without towers may have an embedding of the PLE table's rows only: the rows
// above it stand for soft tokens.
Status AdoptVocabulary(const CheckpointTensors& tensors, HeaderFields* fields) {
  const SourceTensor* embedding = tensors.Find(names::kEmbedTokens);
  TextConfig& text = fields->text;
  if (embedding == nullptr || embedding->shape.empty()) return OkStatus();
  const uint64_t rows = embedding->shape[0];
  const bool has_towers = fields->vision.present || fields->audio.present;
  if (rows == text.ple_vocab_size && !has_towers) text.vocab_size = text.ple_vocab_size;
  return OkStatus();
}

// A tower is there if the configuration and the checkpoint have it.
void AdoptTower(const CheckpointTensors& tensors, SectionKind section, const char* name,
                const WarningCallback& warn, TowerConfig* tower) {
  const bool has_tensors = !tensors.Tower(section).empty();
  if (has_tensors != tower->present && warn) {
    warn(StrCat("the ", name, " tower is left out: the checkpoint has its ",
                has_tensors ? "tensors but no configuration" : "configuration but no tensors"));
  }
  tower->present = tower->present && has_tensors;
  if (!tower->present) *tower = TowerConfig();
}

// The tensor's shape in the checkpoint, where the PLE table is a matrix.
std::vector<uint64_t> SourceShape(const TensorSpec& spec) {
  if (spec.layout != Layout::kPleRows) return spec.shape;
  return {spec.shape[0], spec.shape[1] * spec.shape[2]};
}

// Plans the text tensors of the sub-model `kept` (all layers: the whole model). Formats are those
// of the whole model, so that a sub-model has the same bytes.
Result<std::vector<PackedTensor>> PlanText(const CheckpointTensors& tensors,
                                           const TextConfig& whole, const TextConfig& target,
                                           const std::vector<uint32_t>& kept,
                                           const FormatOptions& formats) {
  const bool is_whole = kept.size() == whole.layers.size();
  // Specs of both come in the same order; those of skipped layers are passed over.
  const std::vector<TensorSpec> target_specs = TextTensors(target);
  auto next = target_specs.begin();
  std::vector<PackedTensor> planned;
  for (const TensorSpec& spec : TextTensors(whole)) {
    ASSIGN_OR_RETURN(const SourceTensor* source, tensors.Get(spec.name, SourceShape(spec)));
    const std::optional<uint32_t> layer = LayerOfTensor(spec.name);
    if (layer && !std::binary_search(kept.begin(), kept.end(), *layer)) continue;
    const StoredForm form = FormFor(spec, source->dtype, whole, formats);
    PackedTensor tensor;
    tensor.plan = {.name = next->name,
                   .section = next->section,
                   .dtype = form.dtype,
                   .layout = form.layout,
                   .shape = next->shape,
                   .num_shells = next->num_shells};
    tensor.source = source;
    const std::span<const uint32_t> shells = ShellsOf(*next, target);
    tensor.shell_ends.assign(shells.begin(), shells.end());
    if (!is_whole && (spec.name == names::kPleTable || spec.name == names::kPleProjection)) {
      tensor.kept_groups = kept;
      tensor.group_size = whole.ple_dim;
    }
    planned.push_back(std::move(tensor));
    ++next;
  }
  return planned;
}

void PlanTower(const CheckpointTensors& tensors, SectionKind section, const FormatOptions& formats,
               std::vector<PackedTensor>* planned) {
  for (const auto& [name, source] : tensors.Tower(section)) {
    PackedTensor tensor;
    const DType dtype = TowerFormatFor(section, name, source->shape, formats);
    tensor.plan = {.name = name,
                   .section = section,
                   .dtype = dtype,
                   .layout = TowerLayoutFor(section, dtype, source->shape),
                   .shape = source->shape};
    tensor.source = source;
    planned->push_back(std::move(tensor));
  }
}

// Empty if there is none.
Result<std::vector<std::byte>> ReadTokenizer(const std::string& folder,
                                             const WarningCallback& warn) {
  const std::string path = folder + "/tokenizer.model";
  std::error_code ignored;
  if (!std::filesystem::exists(path, ignored)) {
    if (warn) warn("no tokenizer.model: the container can evaluate token ids, but no text");
    return std::vector<std::byte>();
  }
  ASSIGN_OR_RETURN(const std::string text, ReadFile(path, kMaxTokenizerBytes));
  if (text.empty()) return BadModel("\"", path, "\" is empty");
  const auto bytes = std::as_bytes(std::span(text));
  return std::vector<std::byte>(bytes.begin(), bytes.end());
}

// What a source holds. The header is not validated yet.
struct Checkpoint {
  HeaderFields fields;
  std::unique_ptr<TensorSource> source;
  CheckpointTensors tensors;
  std::vector<std::byte> tokenizer;  // empty: none
};

Result<Checkpoint> ReadHfCheckpoint(const PackOptions& options, const WarningCallback& warn) {
  Checkpoint checkpoint;
  HeaderFields& fields = checkpoint.fields;
  ASSIGN_OR_RETURN(fields, ReadHfFolder(options.source, options.allow_unknown_config, warn));
  ASSIGN_OR_RETURN(checkpoint.source, SafetensorsReader::Open(options.source));
  ASSIGN_OR_RETURN(checkpoint.tensors, CheckpointTensors::FromHf(*checkpoint.source));
  AdoptTower(checkpoint.tensors, SectionKind::kVision, "vision", warn, &fields.vision);
  AdoptTower(checkpoint.tensors, SectionKind::kAudio, "audio", warn, &fields.audio);
  RETURN_IF_ERROR(AdoptVocabulary(checkpoint.tensors, &fields));
  ASSIGN_OR_RETURN(checkpoint.tokenizer, ReadTokenizer(options.source, warn));
  return checkpoint;
}

Result<Checkpoint> ReadGgufCheckpoint(const PackOptions& options, const WarningCallback& warn) {
  ASSIGN_OR_RETURN(auto reader, GgufReader::Open(options.source));
  Checkpoint checkpoint;
  HeaderFields& fields = checkpoint.fields;
  ASSIGN_OR_RETURN(fields, ReadGgufHeader(*reader, options.allow_unknown_config, warn));
  RETURN_IF_ERROR(ValidateHeaderFields(fields));
  ASSIGN_OR_RETURN(checkpoint.tensors, CheckpointTensors::FromGguf(*reader, fields.text));
  ASSIGN_OR_RETURN(checkpoint.tokenizer, ReadGgufTokenizer(*reader, fields, warn));
  checkpoint.source = std::move(reader);
  return checkpoint;
}

Result<Checkpoint> ReadCheckpoint(const PackOptions& options, const WarningCallback& warn) {
  std::error_code ignored;
  if (std::filesystem::is_directory(options.source, ignored)) {
    return ReadHfCheckpoint(options, warn);
  }
  if (std::filesystem::is_regular_file(options.source, ignored)) {
    return ReadGgufCheckpoint(options, warn);
  }
  return NotFound("\"", options.source, "\" is neither a folder with config.json nor a GGUF file");
}

// The header of the sub-model `slice` of `whole`.
HeaderFields SliceFields(const HeaderFields& whole, const SliceConfig& slice) {
  HeaderFields fields = whole;
  fields.text = SliceText(whole.text, slice);
  fields.slices = SlicesInside(whole.text, slice, whole.slices);
  return fields;
}

}  // namespace

uint64_t HeaderFieldsBytes(const HeaderFields& fields) {
  uint64_t bytes = (8 << 10) + fields.chat_template.size();
  for (const TowerConfig* tower : {&fields.vision, &fields.audio}) {
    bytes += tower->config_json.size() + tower->preprocessor_json.size();
  }
  // Tables, their offsets and alignment take less than the constants here.
  for (const LayerConfig& layer : fields.text.layers) bytes += 64 + 4 * layer.shell_ends.size();
  for (const SliceConfig& slice : fields.slices) {
    bytes += 256 + slice.name.size() + slice.description.size() +
             4 * (slice.ffn.size() + slice.skip_layers.size());
  }
  return bytes + 4 * fields.generation.stop_tokens.size();
}

Status Pack(const PackOptions& options, const ProgressCallback& progress,
            const WarningCallback& warn) {
  RETURN_IF_ERROR(CheckFormatOptions(options.formats));

  // Read and check everything that can be wrong.
  ASSIGN_OR_RETURN(Checkpoint checkpoint, ReadCheckpoint(options, warn));
  HeaderFields& whole = checkpoint.fields;
  const CheckpointTensors& tensors = checkpoint.tensors;
  RETURN_IF_ERROR(ValidateHeaderFields(whole));
  ASSIGN_OR_RETURN(const std::optional<SliceConfig> slice,
                   ResolveSlices(options.add_slices, options.slice, &whole));
  RETURN_IF_ERROR(ValidateHeaderFields(whole));
  RETURN_IF_ERROR(tensors.CheckUnused(whole.text, options.allow_unknown_config, warn));
  HeaderFields fields = slice ? SliceFields(whole, *slice) : whole;
  const std::vector<uint32_t> kept = KeptLayers(whole.text, slice.value_or(SliceConfig()));
  ASSIGN_OR_RETURN(std::vector<PackedTensor> planned,
                   PlanText(tensors, whole.text, fields.text, kept, options.formats));
  for (const SectionKind section : {SectionKind::kVision, SectionKind::kAudio}) {
    const TowerConfig& tower = section == SectionKind::kVision ? fields.vision : fields.audio;
    if (tower.present) PlanTower(tensors, section, options.formats, &planned);
  }
  fields.provenance.source = BaseName(options.source);
  fields.provenance.tool = "nestling pack " NESTLING_VERSION;
  fields.provenance.quantisation = DescribeFormats(options.formats);
  if (slice) fields.provenance.quantisation += StrCat(", slice ", slice->name);

  // Write.
  ASSIGN_OR_RETURN(const auto writer, ContainerWriter::Create(options.output));
  for (const PackedTensor& tensor : planned) RETURN_IF_ERROR(writer->Declare(tensor.plan));
  if (!checkpoint.tokenizer.empty()) {
    RETURN_IF_ERROR(writer->DeclareTokenizer(std::move(checkpoint.tokenizer)));
  }
  RETURN_IF_ERROR(writer->Layout(HeaderFieldsBytes(fields)));
  uint64_t done = 0;
  const auto written = [&](uint64_t bytes) {
    done += bytes;
    if (progress) progress(done, writer->total_bytes());
  };
  RETURN_IF_ERROR(
      WritePanels(*checkpoint.source, planned, ResolveJobs(options.jobs), written, writer.get()));
  RETURN_IF_ERROR(writer->Finish(fields));
  if (progress) progress(writer->total_bytes(), writer->total_bytes());
  return OkStatus();
}

}  // namespace nestling
