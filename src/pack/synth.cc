// SPDX-License-Identifier: Apache-2.0
#include "pack/synth.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <memory>
#include <mutex>
#include <numbers>
#include <span>
#include <utility>
#include <vector>

#include "base/math.h"
#include "container/writer.h"
#include "model/tensor_names.h"
#include "pack/parallel.h"
#include "pack/tower_tensors.h"

namespace nestling {
namespace {

// Draws that a thread turns into weights at a time.
constexpr uint64_t kPanelDraws = 1 << 20;
// Each draw is 16 random bits; a mixed counter gives four.
constexpr uint64_t kDrawsPerMix = 4;
constexpr size_t kNumDraws = 1 << 16;

// SplitMix64's output function.
uint64_t Mix(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

// A stream of draws, each computed from its position: any thread can make any part of it.
class Stream {
 public:
  Stream(std::string_view name, uint64_t seed) : key_(Mix(seed + 0x9e3779b97f4a7c15u)) {
    for (const char c : name) key_ = Mix(key_ + static_cast<unsigned char>(c));
  }

  // values[i] = table[draw first + i]; `first` is a multiple of kDrawsPerMix.
  template <typename T>
  void Fill(uint64_t first, const std::array<T, kNumDraws>& table, std::span<T> values) const {
    uint64_t counter = first / kDrawsPerMix;
    size_t i = 0;
    for (; i + kDrawsPerMix <= values.size(); i += kDrawsPerMix) {
      const uint64_t bits = Mix(key_ + counter++ * 0x9e3779b97f4a7c15u);
      for (size_t k = 0; k < kDrawsPerMix; ++k) {
        values[i + k] = table[static_cast<uint16_t>(bits >> (16 * k))];
      }
    }
    const uint64_t bits = Mix(key_ + counter * 0x9e3779b97f4a7c15u);
    for (size_t k = 0; i + k < values.size(); ++k) {
      values[i + k] = table[static_cast<uint16_t>(bits >> (16 * k))];
    }
  }

 private:
  uint64_t key_;
};

using FloatTable = std::array<float, kNumDraws>;

// The quantiles of the normal distribution, in ascending order: a uniform index draws from it.
const FloatTable& NormalTable() {
  static const FloatTable table = [] {
    FloatTable quantiles;
    double x = -5.0;
    for (size_t i = 0; i < kNumDraws; ++i) {
      const double wanted = (static_cast<double>(i) + 0.5) / static_cast<double>(kNumDraws);
      for (int step = 0; step < 20; ++step) {  // Newton, from the quantile before
        const double cdf = 0.5 * std::erfc(-x * std::numbers::sqrt2 / 2.0);
        const double pdf = std::exp(-0.5 * x * x) / std::sqrt(2.0 * std::numbers::pi);
        const double change = std::clamp((cdf - wanted) / pdf, -0.5, 0.5);
        x -= change;
        if (std::abs(change) < 1e-12) break;
      }
      quantiles[i] = static_cast<float>(x);
    }
    return quantiles;
  }();
  return table;
}

// Codes of normally distributed weights, one or two in a byte, and their standard deviation in
// steps. Symmetric, so that the weights have mean 0.
struct CodeTable {
  std::array<uint8_t, kNumDraws> bytes;
  float deviation;
};

const CodeTable& Int8Codes() {
  static const CodeTable table = [] {
    CodeTable codes;
    double squares = 0.0;
    for (size_t i = 0; i < kNumDraws; ++i) {
      const float code = std::clamp(std::nearbyint(36.0f * NormalTable()[i]), -127.0f, 127.0f);
      codes.bytes[i] = static_cast<uint8_t>(static_cast<int8_t>(code));
      squares += static_cast<double>(code) * static_cast<double>(code);
    }
    codes.deviation = static_cast<float>(std::sqrt(squares / static_cast<double>(kNumDraws)));
    return codes;
  }();
  return table;
}

const CodeTable& Int4Codes() {
  static const CodeTable table = [] {
    std::array<int, 256> code_of;  // 8 bits of a draw are one code
    double squares = 0.0;
    for (size_t i = 0; i < code_of.size(); ++i) {
      const float quantile = NormalTable()[i * 256 + 128];
      const float code = std::clamp(std::nearbyint(2.8f * quantile), -7.0f, 7.0f);
      code_of[i] = static_cast<int>(code) + 8;
      squares += static_cast<double>(code) * static_cast<double>(code);
    }
    CodeTable codes;
    for (size_t i = 0; i < kNumDraws; ++i) {
      codes.bytes[i] = static_cast<uint8_t>(code_of[i & 255] | code_of[i >> 8] << 4);
    }
    codes.deviation = static_cast<float>(std::sqrt(squares / static_cast<double>(code_of.size())));
    return codes;
  }();
  return table;
}

// Weights are mean + deviation * normal, kept in [mean - limit, mean + limit].
struct Recipe {
  float mean = 0.0f;
  float deviation = 1.0f;
  float limit = INFINITY;
};

Recipe Around(float mean) { return {mean, 0.2f * mean, 0.5f * mean}; }

// The distributions that keep activations of order 1 through dozens of random layers.
Recipe RecipeFor(std::string_view name, std::span<const uint64_t> shape) {
  const auto inverse_root = [](uint64_t n) { return 1.0f / std::sqrt(static_cast<float>(n)); };
  if (shape.size() == 1) {
    if (name.ends_with("q_norm") || name.ends_with("k_norm")) return Around(0.6f);
    if (name.ends_with("post_attention_layernorm")) return Around(0.6f);
    if (name.ends_with("post_per_layer_input_norm")) return Around(0.5f);
    if (name.ends_with("post_feedforward_layernorm")) return Around(0.4f);
    if (name.ends_with("layer_scale.gamma")) return Around(0.35f);
    if (name.ends_with("per_dim_scale")) return {0.0f, 0.5f};
    if (name.ends_with(".bias")) return {0.0f, 0.25f};
    return Around(1.0f);  // norms, correct_output_scale
  }
  if (name == names::kEmbedTokens) return {0.0f, 2.0f * inverse_root(shape[1])};
  if (name == names::kPleTable) return {0.0f, inverse_root(shape[2])};
  // The router sees a normed input divided by its length.
  if (name.ends_with("modality_router")) return {0.0f, 0.8f / inverse_root(shape[1])};
  if (name.ends_with("prediction_coefs")) return {0.0f, 0.06f};
  if (name.ends_with("correction_coefs")) return {0.0f, 0.1f};
  if (name == "embed_vision.embedding" || name == "embed_audio.embedding") return {};
  uint64_t fan_in = 1;
  for (const uint64_t size : shape.subspan(1)) fan_in *= size;
  return {0.0f, inverse_root(fan_in)};
}

bool IsInt4(DType dtype) { return dtype == DType::kQ4C || dtype == DType::kQ4B32; }
bool IsQuantised(DType dtype) { return dtype == DType::kQ8C || IsInt4(dtype); }

// Bytes that one draw makes.
uint64_t DrawBytes(DType dtype) {
  if (dtype == DType::kF32) return 4;
  return IsQuantised(dtype) ? 1 : 2;
}

// Makes the bytes of one tensor.
class TensorMaker {
 public:
  TensorMaker(const TensorPlan& plan, uint64_t seed)
      : dtype_(plan.dtype),
        elements_(plan.name, seed),
        scales_(plan.name + " scales", seed),
        recipe_(RecipeFor(plan.name, plan.shape)) {
    const FloatTable& normal = NormalTable();
    if (IsQuantised(dtype_)) {
      // Scales vary as those of real weights do.
      const float deviation = (IsInt4(dtype_) ? Int4Codes() : Int8Codes()).deviation;
      Tabulate([&](size_t i) {
        const float wobble = 0.8f + 0.4f * static_cast<float>(i) / static_cast<float>(kNumDraws);
        return recipe_.deviation / deviation * wobble;
      });
    } else {
      Tabulate([&](size_t i) {
        const float offset = recipe_.deviation * normal[i];
        return recipe_.mean + std::clamp(offset, -recipe_.limit, recipe_.limit);
      });
    }
  }

  // Elements from draw `first` on.
  void Elements(uint64_t first, std::span<std::byte> out) const {
    if (IsQuantised(dtype_)) {
      const CodeTable& codes = IsInt4(dtype_) ? Int4Codes() : Int8Codes();
      const std::span bytes(reinterpret_cast<uint8_t*>(out.data()), out.size());
      elements_.Fill(first, codes.bytes, bytes);
    } else if (dtype_ == DType::kF32) {
      FillCopies(elements_, first, floats_, out);
    } else {
      FillCopies(elements_, first, halves_, out);
    }
  }

  // Scales from number `first` on, f32 or bf16.
  void Scales(uint64_t first, std::span<std::byte> out) const {
    if (dtype_ == DType::kQ4B32) {
      FillCopies(scales_, first, halves_, out);
    } else {
      FillCopies(scales_, first, floats_, out);
    }
  }

 private:
  template <typename Value>
  void Tabulate(const Value& value) {
    const bool half = dtype_ == DType::kF16;
    for (size_t i = 0; i < kNumDraws; ++i) {
      floats_[i] = value(i);
      halves_[i] = half ? FloatToHalf(floats_[i]) : FloatToBf16(floats_[i]);
    }
  }

  template <typename T>
  static void FillCopies(const Stream& stream, uint64_t first,
                         const std::array<T, kNumDraws>& table, std::span<std::byte> out) {
    if (out.empty()) return;  // scales of a format without any
    std::vector<T> values(out.size() / sizeof(T));
    stream.Fill(first, table, std::span(values));
    std::memcpy(out.data(), values.data(), out.size());
  }

  DType dtype_;
  Stream elements_;
  Stream scales_;
  Recipe recipe_;
  FloatTable floats_;                       // weights, or scales
  std::array<uint16_t, kNumDraws> halves_;  // the same as f16 or bf16
};

// What one thread writes at a time: bytes [begin, end) of a tensor's elements or scales; for the
// PLE table whole tokens.
struct Panel {
  const TensorPlan* plan;
  bool scales;
  uint64_t begin;
  uint64_t end;
};

Status AddPanels(const TensorPlan& plan, std::vector<Panel>* panels) {
  ASSIGN_OR_RETURN(const StorageSize size,
                   ComputeStorageSize(plan.dtype, plan.layout, plan.shape, plan.num_shells));
  uint64_t step = kPanelDraws * DrawBytes(plan.dtype);
  if (plan.layout == Layout::kPleRows) {
    const uint64_t row_bytes = size.bytes / plan.shape[0];
    step = std::max<uint64_t>(1, step / row_bytes) * row_bytes;
  }
  for (uint64_t begin = 0; begin < size.bytes; begin += step) {
    panels->push_back({&plan, false, begin, std::min(begin + step, size.bytes)});
  }
  if (size.scales_bytes != 0) panels->push_back({&plan, true, 0, size.scales_bytes});
  return OkStatus();
}

// Values of a span, then its scales, each span with its own stretch of both streams.
Status FillPleSpans(const TensorMaker& maker, const Panel& panel, std::span<std::byte> out) {
  const uint64_t ple_dim = panel.plan->shape[2];
  ASSIGN_OR_RETURN(const uint64_t span_bytes, PleSpanBytes(panel.plan->dtype, ple_dim));
  const DType dtype = panel.plan->dtype;
  const uint64_t element_bytes = IsInt4(dtype) ? ple_dim / 2 : ple_dim * DrawBytes(dtype);
  for (uint64_t offset = 0; offset < out.size(); offset += span_bytes) {
    // A multiple of kDrawsPerMix that no other span reaches.
    const uint64_t first = (panel.begin + offset) / span_bytes * RoundUp(ple_dim, kDrawsPerMix);
    const std::span<std::byte> span = out.subspan(offset, span_bytes);
    maker.Elements(first, span.first(element_bytes));
    maker.Scales(first, span.subspan(element_bytes));
  }
  return OkStatus();
}

// All tensors of the header's text decoder and towers.
std::vector<TensorPlan> PlanTensors(const HeaderFields& fields, const FormatOptions& formats) {
  std::vector<TensorPlan> plans;
  for (TensorSpec& spec : TextTensors(fields.text)) {
    const StoredForm form = FormFor(spec, SourceDType::kF32, fields.text, formats);
    plans.push_back({.name = spec.name,
                     .section = spec.section,
                     .dtype = form.dtype,
                     .layout = form.layout,
                     .shape = std::move(spec.shape),
                     .num_shells = spec.num_shells});
  }
  const auto add_tower = [&](SectionKind section, std::vector<TowerTensor> tensors) {
    for (TowerTensor& tensor : tensors) {
      const DType dtype = TowerFormatFor(section, tensor.name, tensor.shape, formats);
      plans.push_back({.name = std::move(tensor.name),
                       .section = section,
                       .dtype = dtype,
                       .layout = TowerLayoutFor(section, dtype, tensor.shape),
                       .shape = std::move(tensor.shape)});
    }
  };
  if (fields.vision.present) {
    add_tower(SectionKind::kVision, VisionTensors(fields.text.hidden_size));
  }
  if (fields.audio.present) add_tower(SectionKind::kAudio, AudioTensors(fields.text.hidden_size));
  return plans;
}

// A thread's maker of the tensor that it worked on last: tables take longer than small panels.
struct Worker {
  const TensorPlan* plan = nullptr;
  std::unique_ptr<TensorMaker> maker;
  std::vector<std::byte> bytes;
};

Status WritePanel(const Panel& panel, uint64_t seed, Worker* worker, ContainerWriter* writer) {
  if (worker->plan != panel.plan) {
    worker->maker = std::make_unique<TensorMaker>(*panel.plan, seed);
    worker->plan = panel.plan;
  }
  const TensorMaker& maker = *worker->maker;
  worker->bytes.resize(panel.end - panel.begin);
  if (panel.scales) {
    maker.Scales(0, worker->bytes);
    return writer->WriteScales(panel.plan->name, panel.begin, worker->bytes);
  }
  if (panel.plan->layout == Layout::kPleRows) {
    RETURN_IF_ERROR(FillPleSpans(maker, panel, worker->bytes));
  } else {
    maker.Elements(panel.begin / DrawBytes(panel.plan->dtype), worker->bytes);
  }
  return writer->WriteElements(panel.plan->name, panel.begin, worker->bytes);
}

}  // namespace

Status Synthesize(const SynthOptions& options, const ProgressCallback& progress) {
  RETURN_IF_ERROR(CheckFormatOptions(options.formats));
  ASSIGN_OR_RETURN(HeaderFields fields, PresetFields(options.preset));
  fields.provenance = {.source = StrCat("synthetic ", options.preset, ", seed ", options.seed),
                       .tool = "nestling synth " NESTLING_VERSION,
                       .quantisation = DescribeFormats(options.formats)};
  const std::vector<TensorPlan> plans = PlanTensors(fields, options.formats);
  ASSIGN_OR_RETURN(const auto writer, ContainerWriter::Create(options.output));
  std::vector<Panel> panels;
  for (const TensorPlan& plan : plans) {
    RETURN_IF_ERROR(writer->Declare(plan));
    RETURN_IF_ERROR(AddPanels(plan, &panels));
  }
  RETURN_IF_ERROR(writer->Layout(HeaderFieldsBytes(fields)));
  const size_t jobs = ResolveJobs(options.jobs);
  std::vector<Worker> workers(jobs);
  std::mutex mutex;
  uint64_t done = 0;
  const auto write_panel = [&](size_t i, size_t worker) {
    Status status = WritePanel(panels[i], options.seed, &workers[worker], writer.get());
    const std::lock_guard<std::mutex> lock(mutex);
    done += panels[i].end - panels[i].begin;
    if (status.ok() && progress) progress(done, writer->total_bytes());
    return status;
  };
  RETURN_IF_ERROR(ParallelTasks(jobs, panels.size(), write_panel));
  RETURN_IF_ERROR(writer->Finish(fields));
  if (progress) progress(writer->total_bytes(), writer->total_bytes());
  return OkStatus();
}

}  // namespace nestling
