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
  wide.name = matrix->name;
  wide.out = matrix->out;
  wide.in = matrix->in;
  wide.data = memory.data();
  wide.data_bytes = count * sizeof(float);
  *matrix = wide;
  return memory;
}

// Of a matrix [out, in] that is quantised here: codes, slack, scales.
struct QuantisedPlace {
  explicit QuantisedPlace(const Matrix& matrix)
      : tiled(matrix.out % kTileOutputs == 0 && matrix.in % kBlockSize == 0),
        codes_bytes(
            RoundUp(matrix.out * matrix.in + kSlackBytes, AlignedBuffer<float>::kAlignment)),
        bytes(codes_bytes + matrix.out * sizeof(float) + kSlackBytes) {}
  bool tiled;
  size_t codes_bytes;
  size_t bytes;
};

// Rows of f32 as int8 with a scale per row, in tiles where they fit (container/FORMAT.md).
Status Quantise(const Matrix& matrix, std::byte* memory) {
  const QuantisedPlace place(matrix);
  const size_t out = matrix.out, in = matrix.in;
  ASSIGN_OR_RETURN(AlignedBuffer<int8_t> row_codes, AlignedBuffer<int8_t>::Create(in));
  auto* const codes = reinterpret_cast<int8_t*>(memory);
  auto* const scales = reinterpret_cast<float*>(memory + place.codes_bytes);
  const auto* const floats = reinterpret_cast<const float*>(matrix.data);
  for (size_t row = 0; row < out; ++row) {
    kernels::QuantizeInt8(floats + row * in, row_codes.data(), &scales[row], in);
    if (!place.tiled) {
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
  return OkStatus();
}

Matrix QuantisedView(const Matrix& matrix, const std::byte* memory) {
  const QuantisedPlace place(matrix);
  Matrix quantised;
  quantised.name = matrix.name;
  quantised.dtype = DType::kQ8C;
  quantised.layout = place.tiled ? Layout::kTiled : Layout::kRowMajor;
  quantised.out = matrix.out;
  quantised.in = matrix.in;
  quantised.data = memory;
  quantised.data_bytes = matrix.out * matrix.in;
  quantised.scales = memory + place.codes_bytes;
  quantised.scales_bytes = matrix.out * sizeof(float);
  return quantised;
}

}  // namespace

Result<AudioWeights> AudioWeights::Create(const ContainerReader& reader, AudioCompute compute,
                                          PackedWeights& packed) {
  ASSIGN_OR_RETURN(MappedRegion region, reader.MapSection(SectionKind::kAudio));
  return AudioWeights(std::move(region), compute, packed);
}

Result<Matrix> AudioWeights::View(const ContainerReader& reader, const std::string& name) const {
  const TensorInfo* tensor = reader.FindTensor(name);
  if (tensor == nullptr || tensor->section != SectionKind::kAudio) {
    return BadModel("tensor \"", name, "\" is missing from the audio tower");
  }
  if (tensor->shape.size() > 1) return MatrixView(*tensor, region_.bytes());
  Matrix vector;  // one row of f32 (ReadAudioConfig)
  vector.name = tensor->name;
  vector.layout = tensor->layout;
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
  ASSIGN_OR_RETURN(const std::span<const std::byte> packed,
                   packed_.Blob(name + " f32 rows", floats.size_bytes(),
                                [&](std::span<std::byte> out) -> Status {
                                  RETURN_IF_ERROR(RequireStored(matrix));
                                  auto* const rows = reinterpret_cast<float*>(out.data());
                                  for (size_t row = 0; row < matrix.out; ++row) {
                                    DequantizeRow(matrix, row, rows + row * matrix.in);
                                  }
                                  ReleasePages(matrix);
                                  return OkStatus();
                                }));
  std::memcpy(floats.data(), packed.data(), packed.size());
  return floats;
}

// What the operator of a stored matrix computes with. Memory that it is made in, and that is not
// needed once XNNPACK has packed it, goes to `temporary`.
Result<LinearWeight> AudioWeights::Prepare(const Matrix& stored,
                                           std::vector<LazyMemory>* temporary) {
  const bool half = stored.dtype == DType::kF16 || stored.dtype == DType::kBF16;
  const bool quantise = compute_ == AudioCompute::kInt8 && stored.dtype != DType::kQ8C;
  const bool widen =
      half || ((compute_ == AudioCompute::kF32 || quantise) && stored.dtype != DType::kF32);
  Matrix matrix = stored;
  const auto widened = [&]() -> Status {
    RETURN_IF_ERROR(RequireStored(stored));
    if (!widen) return OkStatus();
    ASSIGN_OR_RETURN(LazyMemory memory, Widen(&matrix));
    temporary->push_back(std::move(memory));
    return OkStatus();
  };
  if (!quantise) {
    if (stored.layout == Layout::kTiled && !widen) {
      tiled_bytes_ += stored.data_bytes + stored.scales_bytes;
      return LinearWeight::All(stored);
    }
    Matrix packed = stored;  // as it would be, to ask by its name
    if (widen) packed.dtype = DType::kF32, packed.layout = Layout::kRowMajor;
    if (packed_.Has(LinearWeight::All(packed).PackedName())) return LinearWeight::All(packed);
    RETURN_IF_ERROR(widened());
    return LinearWeight::All(matrix);
  }
  const QuantisedPlace place(stored);
  const auto make = [&](std::span<std::byte> out) -> Status {
    RETURN_IF_ERROR(widened());
    return Quantise(matrix, out.data());
  };
  if (place.tiled) {  // read in place by our own kernels
    ASSIGN_OR_RETURN(const std::span<const std::byte> packed,
                     packed_.Blob(StrCat(stored.name, " int8 tiles"), place.bytes, make));
    return LinearWeight::All(QuantisedView(stored, packed.data()));
  }
  const LinearWeight weight = LinearWeight::All(QuantisedView(stored, nullptr));
  if (packed_.Has(weight.PackedName())) return weight;
  ASSIGN_OR_RETURN(LazyMemory memory, LazyMemory::Create(place.bytes));
  RETURN_IF_ERROR(make({memory.data(), place.bytes}));
  const Matrix view = QuantisedView(stored, memory.data());
  temporary->push_back(std::move(memory));
  return LinearWeight::All(view);
}

Result<std::unique_ptr<LinearBlock>> AudioWeights::Block(const ContainerReader& reader,
                                                         GraphContext& context,
                                                         std::span<const AudioLinear> operators) {
  std::vector<LinearOp> ops;
  std::vector<Matrix> copied;  // as they are stored
  // Not of the heap: what is freed there, in between what stays, does not go back to the system.
  std::vector<LazyMemory> temporary;
  for (const AudioLinear& linear : operators) {
    ASSIGN_OR_RETURN(const Matrix stored, View(reader, linear.name));
    ASSIGN_OR_RETURN(const LinearWeight weight, Prepare(stored, &temporary));
    const Matrix& used = weight.matrix;
    if (used.data != stored.data || used.layout != Layout::kTiled) copied.push_back(stored);
    ops.push_back({weight, linear.input});
  }
  ASSIGN_OR_RETURN(std::unique_ptr<LinearBlock> block, LinearBlock::Create(context, ops));
  for (const Matrix& matrix : copied) ReleasePages(matrix);
  return block;
}

Result<std::unique_ptr<LinearBlock>> FloatBlock(GraphContext& context, std::string_view name,
                                                const float* weights, size_t out, size_t in) {
  Matrix matrix;
  matrix.name = name;
  matrix.out = out;
  matrix.in = in;
  matrix.data = reinterpret_cast<const std::byte*>(weights);
  matrix.data_bytes = out * in * sizeof(float);
  const LinearOp op = {LinearWeight::All(matrix), 0};
  return LinearBlock::Create(context, std::span(&op, 1));
}

}  // namespace nestling
