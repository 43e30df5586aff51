// SPDX-License-Identifier: Apache-2.0
#include "modality/audio/audio_weights.h"

#include <vector>

#include "base/lazy_memory.h"
#include "kernels/convert/convert.h"
#include "model/weights.h"

namespace nestling {

Result<AudioWeights> AudioWeights::Create(const ContainerReader& reader) {
  ASSIGN_OR_RETURN(MappedRegion region, reader.MapSection(SectionKind::kAudio));
  return AudioWeights(std::move(region));
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
  std::vector<Matrix> stored;
  // Not of the heap: what is freed there, in between what stays, does not go back to the system.
  std::vector<LazyMemory> widened;
  for (const AudioLinear& linear : operators) {
    ASSIGN_OR_RETURN(Matrix matrix, View(reader, linear.name));
    stored.push_back(matrix);
    const bool half = matrix.dtype == DType::kF16 || matrix.dtype == DType::kBF16;
    if (half) {
      const size_t count = matrix.out * matrix.in;
      ASSIGN_OR_RETURN(LazyMemory memory, LazyMemory::Create(count * sizeof(float)));
      auto* const floats = reinterpret_cast<float*>(memory.data());
      const auto* const halves = reinterpret_cast<const uint16_t*>(matrix.data);
      if (matrix.dtype == DType::kF16) {
        kernels::WidenHalf(halves, floats, count);
      } else {
        kernels::WidenBf16(halves, floats, count);
      }
      matrix.dtype = DType::kF32;
      matrix.data = memory.data();
      matrix.data_bytes = count * sizeof(float);
      widened.push_back(std::move(memory));
    }
    ops.push_back({LinearWeight::All(matrix), linear.input});
  }
  ASSIGN_OR_RETURN(std::unique_ptr<LinearBlock> block, LinearBlock::Create(context, ops));
  for (const Matrix& matrix : stored) {
    if (matrix.layout == Layout::kTiled) {
      tiled_bytes_ += matrix.data_bytes + matrix.scales_bytes;
    } else {
      ReleasePages(matrix);
    }
  }
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
