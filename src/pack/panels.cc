// SPDX-License-Identifier: Apache-2.0
#include "pack/panels.h"

#include <algorithm>
#include <cstring>
#include <mutex>
#include <span>
#include <utility>

#include "pack/parallel.h"
#include "pack/quantise.h"
#include "pack/transpose.h"

namespace nestling {
namespace {

// f32 values that a thread converts at a time: 4 MiB.
constexpr uint64_t kPanelElements = 1 << 20;

// What one thread does at a time: rows of a tensor, or columns (neurons) of one that lies in
// columns.
struct Panel {
  const PackedTensor* tensor;
  uint64_t begin;
  uint64_t end;
  uint32_t shell = 0;  // kTransposed, kTiled: the one that the panel is in
};

struct Scratch {
  std::vector<float> values;
  std::vector<float> gathered;
  std::vector<float> channel_scales;
  QuantisedPanel panel;
};

bool IsPerChannel(DType dtype) { return dtype == DType::kQ8C || dtype == DType::kQ4C; }

uint64_t Product(std::span<const uint64_t> sizes) {
  uint64_t product = 1;  // of a shape that the writer accepted: no overflow
  for (const uint64_t size : sizes) product *= size;
  return product;
}

// A vector is one row.
uint64_t NumRows(const TensorPlan& plan) { return plan.shape.size() == 1 ? 1 : plan.shape[0]; }
uint64_t RowLength(const TensorPlan& plan) { return Product(plan.shape) / NumRows(plan); }

uint64_t SourceRowLength(const PackedTensor& tensor) {
  const auto& shape = tensor.source->shape;
  return shape.size() == 1 ? shape[0] : Product(shape) / shape[0];
}

// Shells of a tiled tensor: [first, second) of its inputs.
std::pair<uint64_t, uint64_t> ShellOf(const PackedTensor& tensor, uint32_t shell) {
  if (tensor.shell_ends.empty()) return {0, RowLength(tensor.plan)};
  return {shell == 0 ? 0 : tensor.shell_ends[shell - 1], tensor.shell_ends[shell]};
}

// Whole tiles of rows, one shell after another.
void AddTiledPanels(const PackedTensor& tensor, std::vector<Panel>* panels) {
  const uint64_t rows = NumRows(tensor.plan);
  const auto num_shells = static_cast<uint32_t>(std::max<size_t>(1, tensor.shell_ends.size()));
  for (uint32_t shell = 0; shell < num_shells; ++shell) {
    const auto [first, last] = ShellOf(tensor, shell);
    const uint64_t step =
        std::max<uint64_t>(1, kPanelElements / ((last - first) * kTileOutputs)) * kTileOutputs;
    for (uint64_t begin = 0; begin < rows; begin += step) {
      panels->push_back({&tensor, begin, std::min(begin + step, rows), shell});
    }
  }
}

void AddNeuronColumnPanels(const PackedTensor& tensor, std::vector<Panel>* panels) {
  const uint64_t out = tensor.plan.shape[0], neurons = tensor.plan.shape[1];
  const uint64_t step = std::max<uint64_t>(1, kPanelElements / out);
  for (uint64_t begin = 0; begin < neurons; begin += step) {
    panels->push_back({&tensor, begin, std::min(begin + step, neurons)});
  }
}

void AddPanels(const PackedTensor& tensor, std::vector<Panel>* panels) {
  if (tensor.plan.layout == Layout::kTiled) return AddTiledPanels(tensor, panels);
  if (tensor.plan.layout == Layout::kNeuronColumns) return AddNeuronColumnPanels(tensor, panels);
  if (tensor.plan.layout != Layout::kTransposed) {
    const uint64_t rows = NumRows(tensor.plan);
    const uint64_t step = std::max<uint64_t>(1, kPanelElements / SourceRowLength(tensor));
    for (uint64_t begin = 0; begin < rows; begin += step) {
      panels->push_back({&tensor, begin, std::min(begin + step, rows)});
    }
    return;
  }
  // Scales of channels are about a whole shell. Otherwise whole blocks are enough.
  const uint64_t out = tensor.plan.shape[0];
  const uint64_t step =
      std::max<uint64_t>(1, kPanelElements / (out * kBlockSize)) * uint64_t{kBlockSize};
  uint64_t begin = 0;
  for (uint32_t shell = 0; shell < tensor.shell_ends.size(); ++shell) {
    const uint64_t end = tensor.shell_ends[shell];
    const uint64_t width = IsPerChannel(tensor.plan.dtype) ? end - begin : step;
    for (; begin < end; begin = std::min(begin + width, end)) {
      panels->push_back({&tensor, begin, std::min(begin + width, end), shell});
    }
  }
}

class PanelWriter {
 public:
  PanelWriter(const TensorSource& source, const std::function<void(uint64_t)>& written,
              ContainerWriter* writer)
      : source_(source), written_(written), writer_(*writer) {}

  Status Write(const Panel& panel, Scratch* scratch) {
    const PackedTensor& tensor = *panel.tensor;
    const Layout layout = tensor.plan.layout;
    const Status status = layout == Layout::kTiled           ? WriteTiles(panel, scratch)
                          : layout == Layout::kTransposed    ? WriteColumns(panel, scratch)
                          : layout == Layout::kNeuronColumns ? WriteNeuronColumns(panel, scratch)
                                                             : WriteRows(panel, scratch);
    if (status.ok()) return status;
    return Status(status.code(),
                  StrCat("tensor \"", tensor.source->name, "\": ", status.message()));
  }

 private:
  Status WriteRows(const Panel& panel, Scratch* scratch) {
    const PackedTensor& tensor = *panel.tensor;
    const TensorPlan& plan = tensor.plan;
    ASSIGN_OR_RETURN(const std::span<const float> values, ReadRows(panel, scratch));
    RETURN_IF_ERROR(CheckValues(plan.dtype, values));
    QuantisedPanel& out = scratch->panel;
    if (plan.layout == Layout::kPleRows) {
      QuantisePleRows(plan.dtype, values, plan.shape.back(), &out);
    } else if (plan.layout == Layout::kNeuronRows) {
      QuantiseNeurons(plan.dtype, values, RowLength(plan), &out);
    } else {
      QuantiseRows(plan.dtype, values, RowLength(plan), &out);
    }
    const uint64_t rows = panel.end - panel.begin;
    return Store(plan.name, panel.begin * (out.elements.size() / rows),
                 panel.begin * (out.scales.size() / rows), out);
  }

  Status WriteTiles(const Panel& panel, Scratch* scratch) {
    const PackedTensor& tensor = *panel.tensor;
    const TensorPlan& plan = tensor.plan;
    const auto [first, last] = ShellOf(tensor, panel.shell);
    const uint64_t width = last - first, out = plan.shape[0];
    std::span<const float> values = scratch->values;
    if (tensor.shell_ends.empty()) {
      ASSIGN_OR_RETURN(values, ReadRows(panel, scratch));
    } else {
      RETURN_IF_ERROR(ReadColumns(tensor, panel.begin, panel.end, first, last, &scratch->values));
      values = scratch->values;
    }
    RETURN_IF_ERROR(CheckValues(plan.dtype, values));
    QuantiseTiles(plan.dtype, values, width, &scratch->panel);
    // Elements, and scales of blocks, before this panel: those of the earlier shells, and of this
    // shell's earlier rows.
    const uint64_t before = out * first + panel.begin * width;
    const uint64_t scale = IsPerChannel(plan.dtype)
                               ? (panel.shell * out + panel.begin) * sizeof(float)
                               : before / kBlockSize * sizeof(uint16_t);
    return Store(plan.name, plan.dtype == DType::kQ8C ? before : before / 2, scale, scratch->panel);
  }

  // The panel's rows as the container has them: without the groups of skipped layers.
  Result<std::span<const float>> ReadRows(const Panel& panel, Scratch* scratch) {
    const PackedTensor& tensor = *panel.tensor;
    const uint64_t length = SourceRowLength(tensor);
    const uint64_t rows = panel.end - panel.begin;
    std::vector<float>& values = scratch->values;
    values.resize(rows * length);
    const std::vector<uint32_t>& kept = tensor.kept_groups;
    if (!kept.empty() && tensor.plan.layout != Layout::kPleRows) {
      for (uint64_t r = 0; r < rows; ++r) {
        const uint64_t row = panel.begin + r;
        const uint64_t source_row =
            kept[row / tensor.group_size] * tensor.group_size + row % tensor.group_size;
        RETURN_IF_ERROR(source_.Read(*tensor.source, source_row * length,
                                     std::span(values).subspan(r * length, length)));
      }
      return std::span<const float>(values);
    }
    RETURN_IF_ERROR(source_.Read(*tensor.source, panel.begin * length, values));
    if (kept.empty()) return std::span<const float>(values);
    std::vector<float>& gathered = scratch->gathered;
    gathered.resize(rows * kept.size() * tensor.group_size);
    float* to = gathered.data();
    for (uint64_t r = 0; r < rows; ++r) {
      for (const uint32_t group : kept) {
        std::memcpy(to, values.data() + r * length + group * tensor.group_size,
                    tensor.group_size * sizeof(float));
        to += tensor.group_size;
      }
    }
    return std::span<const float>(gathered);
  }

  Status WriteColumns(const Panel& panel, Scratch* scratch) {
    const PackedTensor& tensor = *panel.tensor;
    const TensorPlan& plan = tensor.plan;
    const uint64_t out = plan.shape[0];
    std::vector<float>& values = scratch->values;
    std::vector<float>& scales = scratch->channel_scales;
    if (IsPerChannel(plan.dtype)) {
      // First pass over the shell, a channel at a time.
      scales.resize(out);
      for (uint64_t o = 0; o < out; ++o) {
        RETURN_IF_ERROR(ReadColumns(tensor, o, o + 1, panel.begin, panel.end, &values));
        RETURN_IF_ERROR(CheckValues(plan.dtype, values));
        scales[o] = ChannelScale(plan.dtype, values);
      }
      RETURN_IF_ERROR(writer_.WriteScales(plan.name, panel.shell * out * sizeof(float),
                                          std::as_bytes(std::span(scales))));
    }
    const uint64_t step = std::max<uint64_t>(1, kPanelElements / (out * kBlockSize)) * kBlockSize;
    for (uint64_t begin = panel.begin; begin < panel.end; begin += step) {
      const uint64_t end = std::min(begin + step, panel.end);
      RETURN_IF_ERROR(ReadColumns(tensor, 0, out, begin, end, &values));
      RETURN_IF_ERROR(CheckValues(plan.dtype, values));
      QuantiseTransposed(plan.dtype, values, end - begin, scales, &scratch->panel);
      const uint64_t row_bytes = scratch->panel.elements.size() / (end - begin);
      RETURN_IF_ERROR(Store(plan.name, begin * row_bytes,
                            begin / kBlockSize * out * sizeof(uint16_t), scratch->panel));
    }
    return OkStatus();
  }

  Status WriteNeuronColumns(const Panel& panel, Scratch* scratch) {
    const TensorPlan& plan = panel.tensor->plan;
    const uint64_t out = plan.shape[0], neurons = panel.end - panel.begin;
    RETURN_IF_ERROR(ReadColumns(*panel.tensor, 0, out, panel.begin, panel.end, &scratch->values));
    RETURN_IF_ERROR(CheckValues(plan.dtype, scratch->values));
    scratch->gathered.resize(scratch->values.size());
    Transpose(scratch->values.data(), out, neurons, scratch->gathered.data());
    QuantiseNeurons(plan.dtype, scratch->gathered, out, &scratch->panel);
    return Store(plan.name, panel.begin * (scratch->panel.elements.size() / neurons),
                 panel.begin * (scratch->panel.scales.size() / neurons), scratch->panel);
  }

  // values = [row_end - row_begin, end - begin] of the source.
  Status ReadColumns(const PackedTensor& tensor, uint64_t row_begin, uint64_t row_end,
                     uint64_t begin, uint64_t end, std::vector<float>* values) {
    const uint64_t length = tensor.source->shape[1];
    const uint64_t columns = end - begin;
    values->resize((row_end - row_begin) * columns);
    for (uint64_t row = row_begin; row < row_end; ++row) {
      RETURN_IF_ERROR(
          source_.Read(*tensor.source, row * length + begin,
                       std::span(*values).subspan((row - row_begin) * columns, columns)));
    }
    return OkStatus();
  }

  Status Store(const std::string& name, uint64_t elements_offset, uint64_t scales_offset,
               const QuantisedPanel& panel) {
    RETURN_IF_ERROR(writer_.WriteElements(name, elements_offset, panel.elements));
    if (!panel.scales.empty()) {
      RETURN_IF_ERROR(writer_.WriteScales(name, scales_offset, panel.scales));
    }
    if (written_) {
      const std::lock_guard<std::mutex> lock(mutex_);
      written_(panel.elements.size() + panel.scales.size());
    }
    return OkStatus();
  }

  const TensorSource& source_;
  const std::function<void(uint64_t)>& written_;
  ContainerWriter& writer_;
  std::mutex mutex_;
};

}  // namespace

Status WritePanels(const TensorSource& source, const std::vector<PackedTensor>& tensors,
                   size_t jobs, const std::function<void(uint64_t bytes)>& written,
                   ContainerWriter* writer) {
  std::vector<Panel> panels;
  for (const PackedTensor& tensor : tensors) AddPanels(tensor, &panels);
  PanelWriter panel_writer(source, written, writer);
  std::vector<Scratch> scratch(jobs);
  return ParallelTasks(jobs, panels.size(), [&](size_t i, size_t worker) {
    return panel_writer.Write(panels[i], &scratch[worker]);
  });
}

}  // namespace nestling
