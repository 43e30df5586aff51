// SPDX-License-Identifier: Apache-2.0
#include "graph/tiled_ops.h"

#include <algorithm>

#include "base/math.h"
#include "graph/linear_block.h"

namespace nestling {
namespace {

constexpr size_t kAlignment = 64;
// Weights of one task: large enough that a task costs more than handing it out, small enough that
// threads finish together.
constexpr size_t kUnitBytes = 64 << 10;
constexpr size_t kUnitTiles = 2;  // at least: kernels multiply two tiles at a time
// Tasks whose outputs are looked at between them are larger: claiming one holds memory up as well.
constexpr size_t kVisitBytes = 256 << 10;
constexpr size_t kMaxVisitTiles = 256;  // 16 KiB of outputs

constexpr size_t Aligned(size_t bytes) { return RoundUp(bytes, kAlignment); }

size_t BytesOf(DType dtype, size_t elements) {
  return dtype == DType::kQ8C ? elements : elements / 2;
}

// The product of tiles of this type; the container holds no others in tiles.
void RunTiles(DType dtype, const kernels::TiledArgs& args) {
  switch (dtype) {
    case DType::kQ4B32:
      return kernels::TiledLinearInt4(args);
    case DType::kQ4C:
      return kernels::TiledLinearInt4Channel(args);
    default:
      return kernels::TiledLinearInt8(args);
  }
}

// Hands out the workspace from its beginning.
class WorkspaceCutter {
 public:
  explicit WorkspaceCutter(const LinearWorkspace& workspace) : workspace_(workspace) {}
  template <typename T>
  T* Cut(size_t count) {
    std::byte* part = workspace_.data + used_;
    used_ += Aligned(count * sizeof(T));
    NESTLING_DCHECK(used_ <= workspace_.bytes);
    return reinterpret_cast<T*>(part);
  }

 private:
  const LinearWorkspace& workspace_;
  size_t used_ = 0;
};

// A quantised copy of an input in the workspace.
class Quantized {
 public:
  Quantized() = default;
  Quantized(WorkspaceCutter* cutter, size_t num_tokens, size_t k)
      : k_(k),
        codes_(cutter->Cut<int8_t>(num_tokens * k)),
        scales_(cutter->Cut<float>(num_tokens)),
        offsets_(cutter->Cut<int32_t>(num_tokens * k / kernels::kTileInputs)),
        totals_(cutter->Cut<int32_t>(num_tokens)) {}

  // x [tokens, k].
  void Fill(const float* x, size_t token) const {
    kernels::QuantizeInputs(x + token * k_, k_, codes_ + token * k_, scales_ + token,
                            offsets_ + token * k_ / kernels::kTileInputs, totals_ + token);
  }
  kernels::QuantizedInputs view() const { return {codes_, scales_, offsets_, totals_}; }

 private:
  size_t k_ = 0;
  int8_t* codes_ = nullptr;
  float* scales_ = nullptr;
  int32_t* offsets_ = nullptr;
  int32_t* totals_ = nullptr;
};

template <typename Body>
void ForTokens(const ThreadPool& pool, size_t num_tokens, const Body& body) {
  constexpr size_t kFewTokens = 8;  // not worth waking a worker
  if (num_tokens <= kFewTokens) {
    for (size_t token = 0; token < num_tokens; ++token) body(token);
  } else {
    pool.ParallelFor(num_tokens, body);
  }
}

}  // namespace

size_t LinearWorkspaceBytes(size_t num_tokens, size_t total_channels, size_t num_inputs) {
  const size_t codes = num_tokens * total_channels;
  // Four spans per input, each rounded up.
  return codes + codes / kernels::kTileInputs * sizeof(int32_t) +
         num_inputs * (num_tokens * (sizeof(float) + sizeof(int32_t)) + 4 * kAlignment);
}

kernels::QuantizedInputs QuantizeRows(const ThreadPool& pool, size_t num_tokens, size_t k,
                                      const float* x, const LinearWorkspace& workspace) {
  WorkspaceCutter cutter(workspace);
  const Quantized quantized(&cutter, num_tokens, k);
  ForTokens(pool, num_tokens, [&](size_t token) { quantized.Fill(x, token); });
  return quantized.view();
}

const uint8_t* TiledOps::Op::CodesFrom(size_t tile) const {
  return codes + tile * BytesOf(dtype, in * kernels::kTileOutputs);
}

const void* TiledOps::Op::ScalesFrom(size_t tile) const {
  const size_t tile_bytes = dtype == DType::kQ4B32
                                ? in / kBlockSize * kernels::kTileOutputs * sizeof(uint16_t)
                                : kernels::kTileOutputs * sizeof(float);
  return static_cast<const std::byte*>(scales) + tile * tile_bytes;
}

void TiledOps::Add(const LinearWeight& weight, size_t input, size_t output) {
  const Matrix& matrix = weight.matrix;
  // Elements of the matrix before this part: earlier rows of tiles, or earlier shells.
  const size_t before = weight.out_begin * matrix.in + weight.in_begin * matrix.out;
  Op op;
  op.dtype = matrix.dtype;
  op.codes = reinterpret_cast<const uint8_t*>(matrix.data) + BytesOf(matrix.dtype, before);
  op.scales =
      matrix.scales + (matrix.dtype == DType::kQ4B32
                           ? before / kBlockSize * sizeof(uint16_t)
                           : (weight.shell * matrix.out + weight.out_begin) * sizeof(float));
  op.in = weight.in;
  op.out = weight.out;
  op.input = input;
  op.output = output;
  if (input_channels_.size() <= input) input_channels_.resize(input + 1);
  input_channels_[input] = op.in;

  const size_t tiles = op.out / kernels::kTileOutputs;
  const size_t tile_bytes = BytesOf(op.dtype, op.in * kernels::kTileOutputs);
  const size_t step = std::max(kUnitTiles, kUnitBytes / tile_bytes / kUnitTiles * kUnitTiles);
  for (size_t begin = 0; begin < tiles; begin += step) {
    units_.push_back({ops_.size(), begin, std::min(tiles, begin + step)});
  }
  ops_.push_back(op);
}

void TiledOps::Run(const ThreadPool& pool, size_t num_tokens, std::span<const float* const> inputs,
                   std::span<float* const> outputs, const LinearWorkspace& workspace) const {
  Quantized quantized[LinearBlock::kMaxInputs];
  WorkspaceCutter cutter(workspace);
  for (size_t i = 0; i < input_channels_.size(); ++i) {
    const size_t k = input_channels_[i];
    if (k != 0) quantized[i] = Quantized(&cutter, num_tokens, k);
  }
  ForTokens(pool, num_tokens, [&](size_t token) {
    for (size_t i = 0; i < input_channels_.size(); ++i) {
      if (input_channels_[i] != 0) quantized[i].Fill(inputs[i], token);
    }
  });
  pool.ParallelFor(units_.size(), [&](size_t index) {
    const Unit& unit = units_[index];
    const Op& op = ops_[unit.op];
    const Quantized& q = quantized[op.input];
    kernels::TiledArgs args;
    args.x = q.view();
    args.rows = num_tokens;
    args.k = op.in;
    args.codes = op.codes;
    args.scales = op.scales;
    args.tile_begin = unit.tile_begin;
    args.tile_end = unit.tile_end;
    args.out = outputs[op.output];
    args.out_stride = op.out;
    RunTiles(op.dtype, args);
  });
}

void TiledOps::VisitBlocks(const ThreadPool& pool, const float* x, const LinearWorkspace& workspace,
                           VisitOutputs visit) const {
  NESTLING_DCHECK(ops_.size() == 1);
  const Op& op = ops_[0];
  WorkspaceCutter cutter(workspace);
  const Quantized quantized(&cutter, /*num_tokens=*/1, op.in);
  quantized.Fill(x, /*token=*/0);
  const size_t tiles = op.out / kernels::kTileOutputs;
  const size_t tile_bytes = BytesOf(op.dtype, op.in * kernels::kTileOutputs);
  const size_t step = std::clamp(kVisitBytes / tile_bytes, kUnitTiles, kMaxVisitTiles);
  pool.ParallelFor(DivUp(tiles, step), [&](size_t task, size_t thread) {
    const size_t tile = task * step, count = std::min(step, tiles - tile);
    alignas(kAlignment) float values[kMaxVisitTiles * kernels::kTileOutputs];
    kernels::TiledArgs args;
    args.x = quantized.view();
    args.rows = 1;
    args.k = op.in;
    args.codes = op.CodesFrom(tile);
    args.scales = op.ScalesFrom(tile);
    args.tile_begin = 0;
    args.tile_end = count;
    args.out = values;
    args.out_stride = count * kernels::kTileOutputs;
    RunTiles(op.dtype, args);
    visit(thread, tile * kernels::kTileOutputs, std::span(values, args.out_stride));
  });
}

}  // namespace nestling
