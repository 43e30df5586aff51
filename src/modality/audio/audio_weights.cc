// SPDX-License-Identifier: Apache-2.0
#include "modality/audio/audio_weights.h"

#include <algorithm>
#include <cstring>

#include "base/math.h"
#include "kernels/convert/convert.h"
#include "model/weights.h"

namespace nestling {
namespace {

// Kernels may read a little past the end of what they are given.
constexpr size_t kSlackBytes = AlignedBuffer<float>::kSlackBytes;

// [out, in] f32 of any matrix; `matrix` becomes its view.
Result<LazyMemory> Widen(Matrix* matrix) {
  const size_t count = matrix->out * matrix->in;
  ASSIGN_OR_RETURN(LazyMemory memory, LazyMemory::Create(count * sizeof(float) + kSlackBytes));
  auto* const floats = reinterpret_cast<float*>(memory.data());
  const auto* const halves = reinterpret_cast<const uint16_t*>(matrix->data);
  if (matrix->dtype == DType::kF16) {
    kernels::WidenHalf(halves, floats, count);
  } else if (matrix->dtype == DType::kBF16) {
    kernels::WidenBf16(halves, floats, count);
  } else {
    for (size_t row = 0; row < matrix->out; ++row) {
      DequantizeRow(*matrix, row, floats + row * matrix->in);
    }
  }
  Matrix wide;
  wide.out = matrix->out;
  wide.in = matrix->in;
  wide.data = memory.data();
  wide.data_bytes = count * sizeof(float);
  *matrix = wide;
  return memory;
}

// Rows of f32 as int8 with a scale per row, in tiles where they fit (container/FORMAT.md);
// `matrix` becomes their view.
Result<LazyMemory> Quantise(Matrix* matrix) {
  const size_t out = matrix->out, in = matrix->in, count = out * in;
  const bool tiles = out % kTileOutputs == 0 && in % kBlockSize == 0;
  const size_t codes_bytes = RoundUp(count + kSlackBytes, AlignedBuffer<float>::kAlignment);
  ASSIGN_OR_RETURN(LazyMemory memory,
                   LazyMemory::Create(codes_bytes + out * sizeof(float) + kSlackBytes));
  ASSIGN_OR_RETURN(AlignedBuffer<int8_t> row_codes, AlignedBuffer<int8_t>::Create(in));
  auto* const codes = reinterpret_cast<int8_t*>(memory.data());
  auto* const scales = reinterpret_cast<float*>(memory.data() + codes_bytes);
  const auto* const floats = reinterpret_cast<const float*>(matrix->data);
  for (size_t row = 0; row < out; ++row) {
    kernels::QuantizeInt8(floats + row * in, row_codes.data(), &scales[row], in);
    if (!tiles) {
      std::memcpy(codes + row * in, row_codes.data(), in);
      scales[row] = std::max(scales[row], 1e-30f);  // XNNPACK wants more than 0; codes are zeros
      continue;
    }
    // Of a tile, four inputs of each output follow one another.
    int8_t* const tile = codes + row / kTileOutputs * kTileOutputs * in;
    const size_t lane = row % kTileOutputs * 4;
    for (size_t i = 0; i < in; i += 4) {
      std::memcpy(tile + i * kTileOutputs + lane, row_codes.data() + i, 4);
    }
  }
  Matrix quantised;
  quantised.dtype = DType::kQ8C;
  quantised.layout = tiles ? Layout::kTiled : Layout::kRowMajor;
  quantised.out = out;
  quantised.in = in;
  quantised.data = memory.data();
  quantised.data_bytes = count;
  quantised.scales = memory.data() + codes_bytes;
  quantised.scales_bytes = out * sizeof(float);
  *matrix = quantised;
  return memory;
}

}  // namespace

Result<AudioWeights> AudioWeights::Create(const ContainerReader& reader, AudioCompute compute) {
  ASSIGN_OR_RETURN(MappedRegion region, reader.MapSection(SectionKind::kAudio));
  return AudioWeights(std::move(region), compute);
}

Result<Matrix> AudioWeights::View(const ContainerReader& reader, const std::string& name) const {
  const TensorInfo* tensor = reader.FindTensor(name);
  if (tensor == nullptr || tensor->section != SectionKind::kAudio) {
    return BadModel("tensor \"", name, "\" is missing from the audio tower");
  }
  if (tensor->shape.size() > 1) return MatrixView(*tensor, region_.bytes());
  Matrix vector;  // one row of f32 (ReadAudioConfig)
  vector.out = 1;
  vector.in = tensor->shape[0];
  vector.data = region_.bytes().data() + tensor->offset;
  vector.data_bytes = tensor->bytes;
  return vector;
}

void AudioWeights::ReleasePages(const Matrix& matrix) const {
  region_.ReleasePages({matrix.data, matrix.data_bytes});
  if (matrix.scales != nullptr) region_.ReleasePages({matrix.scales, matrix.scales_bytes});
}

Result<AlignedBuffer<float>> AudioWeights::Floats(const ContainerReader& reader,
                                                  const std::string& name) const {
  ASSIGN_OR_RETURN(const Matrix matrix, View(reader, name));
  ASSIGN_OR_RETURN(AlignedBuffer<float> floats,
                   AlignedBuffer<float>::Create(matrix.out * matrix.in));
  for (size_t row = 0; row < matrix.out; ++row) {
    DequantizeRow(matrix, row, floats.data() + row * matrix.in);
  }
  ReleasePages(matrix);
  return floats;
}

Result<std::unique_ptr<LinearBlock>> AudioWeights::Block(const ContainerReader& reader,
                                                         GraphContext& context,
                                                         std::span<const AudioLinear> operators) {
  std::vector<LinearOp> ops;
  std::vector<Matrix> copied;  // as they are stored
  // Not of the heap: what is freed there, in between what stays, does not go back to the system.
  std::vector<LazyMemory> temporary;
  for (const AudioLinear& linear : operators) {
    ASSIGN_OR_RETURN(Matrix matrix, View(reader, linear.name));
    const Matrix stored = matrix;
    const bool half = matrix.dtype == DType::kF16 || matrix.dtype == DType::kBF16;
    const bool quantise = compute_ == AudioCompute::kInt8 && matrix.dtype != DType::kQ8C;
    const bool to_float = compute_ == AudioCompute::kF32 || quantise;
    if (half || (to_float && matrix.dtype != DType::kF32)) {
      ASSIGN_OR_RETURN(LazyMemory memory, Widen(&matrix));
      temporary.push_back(std::move(memory));
    }
    if (quantise) {
      ASSIGN_OR_RETURN(LazyMemory memory, Quantise(&matrix));
      (matrix.layout == Layout::kTiled ? tiles_ : temporary).push_back(std::move(memory));
    }
    if (matrix.layout == Layout::kTiled) tiled_bytes_ += matrix.data_bytes + matrix.scales_bytes;
    if (matrix.data != stored.data || matrix.layout != Layout::kTiled) copied.push_back(stored);
    ops.push_back({LinearWeight::All(matrix), linear.input});
  }
  ASSIGN_OR_RETURN(std::unique_ptr<LinearBlock> block, LinearBlock::Create(context, ops));
  for (const Matrix& matrix : copied) ReleasePages(matrix);
  return block;
}

Result<std::unique_ptr<LinearBlock>> FloatBlock(GraphContext& context, const float* weights,
                                                size_t out, size_t in) {
  Matrix matrix;
  matrix.out = out;
  matrix.in = in;
  matrix.data = reinterpret_cast<const std::byte*>(weights);
  matrix.data_bytes = out * in * sizeof(float);
  const LinearOp op = {LinearWeight::All(matrix), 0};
  return LinearBlock::Create(context, std::span(&op, 1));
}

}  // namespace nestling
