// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace nestling {

// Element formats. Values equal fbs::DType (static_assert-ed in the reader).
enum class DType : uint8_t {
  kF32 = 0,
  kF16 = 1,
  kBF16 = 2,
  kQ8C = 3,    // int8, f32 scale per output channel
  kQ4C = 4,    // 4-bit unsigned with zero point 8, f32 scale per output channel
  kQ4B32 = 5,  // 4-bit unsigned with zero point 8, bf16 scale per 32 inputs of a channel
};
inline constexpr size_t kNumDTypes = 6;
inline constexpr uint32_t kBlockSize = 32;
inline constexpr size_t kMaxRank = 8;
inline constexpr uint32_t kMaxShells = 64;  // of a layer
inline constexpr uint32_t kMaxPleDim = 8192;

enum class Layout : uint8_t {
  kRowMajor = 0,
  kTransposed = 1,
  kPleRows = 2,
  kTiled = 3,
  kNeuronRows = 4,     // an up projection read a neuron (an output) at a time
  kNeuronColumns = 5,  // a down projection read a neuron (an input) at a time
  kPacked = 6,         // no bytes of its own: only the section of packed weights holds it
};
inline constexpr size_t kNumLayouts = 7;

// Whether kernels of our own read matrices of a layout where they lie. The others are packed for
// XNNPACK.
inline bool IsReadInPlace(Layout layout) {
  return layout >= Layout::kTiled && layout != Layout::kPacked;
}
inline bool IsByNeuron(Layout layout) {
  return layout == Layout::kNeuronRows || layout == Layout::kNeuronColumns;
}

// Outputs of a tile of the tiled layout.
inline constexpr uint32_t kTileOutputs = 16;

enum class SectionKind : uint8_t {
  kText = 0,
  kEmbed = 1,
  kPle = 2,
  kVision = 3,
  kAudio = 4,
  kTokenizer = 5,
  // A file of packed weights (packed_file.h) each.
  kPackedText = 6,
  kPackedVision = 7,
  kPackedAudio = 8,
};
inline constexpr size_t kNumSections = 9;

// A part of the model whose weights may be packed for one kind of CPU.
struct PackedPart {
  const char* name;     // in the key of packed weights: "vision"
  SectionKind section;  // of the tensors
  SectionKind packed;   // of their packed form, in a container that was prepared in place
};
inline constexpr std::array<PackedPart, 3> kPackedParts = {{
    {"text", SectionKind::kText, SectionKind::kPackedText},
    {"vision", SectionKind::kVision, SectionKind::kPackedVision},
    {"audio", SectionKind::kAudio, SectionKind::kPackedAudio},
}};

const char* DTypeName(DType dtype);  // "f32", ..., "q4b32"
Result<DType> ParseDType(std::string_view name);
const char* SectionName(SectionKind section);  // "TEXT", ...

// Bytes of a tensor's elements and of its scales.
struct StorageSize {
  uint64_t bytes = 0;
  uint64_t scales_bytes = 0;
};

// Number of elements of `shape`. kBadModel: as f32 they would take more bytes than there are.
Result<uint64_t> CountElements(std::span<const uint64_t> shape);

// Storage of `shape` ([out, in] for matrices; [vocab, layers, ple_dim] for kPleRows; rank 1 to 8
// for row-major tensors, which quantised are the matrix [shape[0], product of the rest]).
// `num_shells` matters to kTransposed and kTiled only.
// kBadModel when the format cannot hold the shape (q4b32: `in` not a multiple of 32; 4 bit: odd
// row length; a zero dimension) or when a product overflows. kPacked: nothing.
Result<StorageSize> ComputeStorageSize(DType dtype, Layout layout, std::span<const uint64_t> shape,
                                       uint32_t num_shells);

// Bytes of one layer's span in a row of the PLE table: values, then scales
// (q8c and q4c: one f32; q4b32: ple_dim / 32 bf16).
Result<uint64_t> PleSpanBytes(DType dtype, uint64_t ple_dim);

inline constexpr std::array<char, 4> kMagic = {'N', 'E', 'S', 'T'};
inline constexpr uint16_t kVersionMajor = 1;
inline constexpr uint16_t kVersionMinor = 1;
inline constexpr uint64_t kSectionAlignment = 16384;
inline constexpr uint64_t kTensorAlignment = 64;
// Longest header that a reader accepts: a directory of all tensors needs well below 1 MiB.
inline constexpr uint64_t kMaxHeaderBytes = 64ull << 20;

// First bytes of the file, little endian; the flatbuffer follows at once.
struct Preamble {
  std::array<char, 4> magic = kMagic;
  uint16_t version_major = kVersionMajor;
  uint16_t version_minor = kVersionMinor;
  uint64_t header_bytes = 0;
  uint64_t header_xxh3 = 0;
  uint64_t file_bytes = 0;  // of the whole container: a truncated copy is known at once
};
static_assert(sizeof(Preamble) == 32);

}  // namespace nestling
