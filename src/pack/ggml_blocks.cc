// SPDX-License-Identifier: Apache-2.0
#include "pack/ggml_blocks.h"

#include <bit>
#include <cstring>

#include "base/math.h"

namespace nestling {
namespace {

static_assert(std::endian::native == std::endian::little, "GGUF is little endian");

uint16_t Half(const uint8_t* p) {
  uint16_t bits;
  std::memcpy(&bits, p, sizeof bits);
  return bits;
}

float Scale(const uint8_t* p) { return HalfToFloat(Half(p)); }

// Q4_0, Q4_1, Q5_0, Q5_1: one scale, maybe a minimum, for Q5 a word with the fifth bits, then 16
// bytes of which the low nibbles are the first 16 elements.
template <bool kHasMin, bool kFiveBits>
void SmallBlock(const uint8_t* block, float* out) {
  constexpr int kZero = kHasMin ? 0 : kFiveBits ? 16 : 8;
  const float scale = Scale(block);
  [[maybe_unused]] const float min = kHasMin ? Scale(block + 2) : 0.0f;
  const uint8_t* nibbles = block + (kHasMin ? 4 : 2);
  uint32_t fifth_bits = 0;
  if constexpr (kFiveBits) {
    std::memcpy(&fifth_bits, nibbles, sizeof fifth_bits);
    nibbles += sizeof fifth_bits;
  }
  for (int i = 0; i < 32; ++i) {
    const int nibble = i < 16 ? nibbles[i] & 15 : nibbles[i - 16] >> 4;
    const int code = nibble | static_cast<int>((fifth_bits >> i & 1) << 4);
    out[i] = static_cast<float>(code - kZero) * scale;
    if constexpr (kHasMin) out[i] += min;
  }
}

void BlockQ8_0(const uint8_t* block, float* out) {
  const float scale = Scale(block);
  for (int i = 0; i < 32; ++i)
    out[i] = static_cast<float>(static_cast<int8_t>(block[2 + i])) * scale;
}

// Q4_K and Q5_K: eight groups of 32. Their 6-bit scales and minimums share 12 bytes: the first four
// of each have bytes of their own, whose two top bits belong to the last four.
struct GroupScale {
  int scale;
  int min;
};

GroupScale GroupScaleOf(const uint8_t* packed, int group) {
  if (group < 4) return {packed[group] & 63, packed[group + 4] & 63};
  const uint8_t low = packed[group + 4];
  return {(low & 15) | (packed[group - 4] >> 6 << 4), (low >> 4) | (packed[group] >> 6 << 4)};
}

template <bool kFiveBits>
void BlockK(const uint8_t* block, float* out) {
  const float scale = Scale(block);
  const float min = Scale(block + 2);
  const uint8_t* packed = block + 4;
  const uint8_t* fifth_bits = packed + 12;  // [32]; bit g of byte i is of element i of group g
  const uint8_t* nibbles = fifth_bits + (kFiveBits ? 32 : 0);
  for (int group = 0; group < 8; ++group) {
    const GroupScale s = GroupScaleOf(packed, group);
    const float group_scale = scale * static_cast<float>(s.scale);
    const float group_min = min * static_cast<float>(s.min);
    // Two groups share 32 bytes: the low nibbles, then the high ones.
    const uint8_t* bytes = nibbles + group / 2 * 32;
    for (int i = 0; i < 32; ++i) {
      int code = group % 2 == 0 ? bytes[i] & 15 : bytes[i] >> 4;
      if constexpr (kFiveBits) code |= (fifth_bits[i] >> group & 1) << 4;
      *out++ = group_scale * static_cast<float>(code) - group_min;
    }
  }
}

// 128 bytes of low nibbles, 64 of upper bit pairs, 16 signed scales (of 16 elements each), the
// scale of those. Both halves of the block are made alike: four quarters of 32 elements.
void BlockQ6_K(const uint8_t* block, float* out) {
  const float scale = Scale(block + 208);
  for (int half = 0; half < 2; ++half) {
    const uint8_t* nibbles = block + 64 * half;
    const uint8_t* pairs = block + 128 + 32 * half;
    const uint8_t* scales = block + 192 + 8 * half;
    for (int quarter = 0; quarter < 4; ++quarter) {
      for (int i = 0; i < 32; ++i) {
        const uint8_t byte = nibbles[quarter % 2 * 32 + i];
        const int low = quarter < 2 ? byte & 15 : byte >> 4;
        const int code = (low | (pairs[i] >> (2 * quarter) & 3) << 4) - 32;
        const auto group_scale = static_cast<int8_t>(scales[2 * quarter + i / 16]);
        *out++ = scale * static_cast<float>(group_scale) * static_cast<float>(code);
      }
    }
  }
}

}  // namespace

BlockFormat BlockFormatOf(SourceDType dtype) {
  switch (dtype) {
    case SourceDType::kF32:
      return {1, 4};
    case SourceDType::kF16:
    case SourceDType::kBF16:
      return {1, 2};
    case SourceDType::kQ8_0:
      return {32, 34};
    case SourceDType::kQ4_0:
      return {32, 18};
    case SourceDType::kQ4_1:
      return {32, 20};
    case SourceDType::kQ5_0:
      return {32, 22};
    case SourceDType::kQ5_1:
      return {32, 24};
    case SourceDType::kQ4_K:
      return {256, 144};
    case SourceDType::kQ5_K:
      return {256, 176};
    case SourceDType::kQ6_K:
      return {256, 210};
  }
  return {1, 4};
}

std::optional<SourceDType> SourceDTypeOfGgml(uint32_t ggml_type) {
  switch (ggml_type) {
    case 0:
      return SourceDType::kF32;
    case 1:
      return SourceDType::kF16;
    case 2:
      return SourceDType::kQ4_0;
    case 3:
      return SourceDType::kQ4_1;
    case 6:
      return SourceDType::kQ5_0;
    case 7:
      return SourceDType::kQ5_1;
    case 8:
      return SourceDType::kQ8_0;
    case 12:
      return SourceDType::kQ4_K;
    case 13:
      return SourceDType::kQ5_K;
    case 14:
      return SourceDType::kQ6_K;
    case 30:
      return SourceDType::kBF16;
    default:
      return std::nullopt;
  }
}

void DequantiseBlocks(SourceDType dtype, const std::byte* blocks, size_t num_blocks, float* out) {
  const auto [elements, bytes] = BlockFormatOf(dtype);
  const auto* block = reinterpret_cast<const uint8_t*>(blocks);
  for (size_t b = 0; b < num_blocks; ++b, block += bytes, out += elements) {
    switch (dtype) {
      case SourceDType::kF32:
        std::memcpy(out, block, sizeof(float));
        break;
      case SourceDType::kF16:
        *out = HalfToFloat(Half(block));
        break;
      case SourceDType::kBF16:
        *out = Bf16ToFloat(Half(block));
        break;
      case SourceDType::kQ8_0:
        BlockQ8_0(block, out);
        break;
      case SourceDType::kQ4_0:
        SmallBlock<false, false>(block, out);
        break;
      case SourceDType::kQ4_1:
        SmallBlock<true, false>(block, out);
        break;
      case SourceDType::kQ5_0:
        SmallBlock<false, true>(block, out);
        break;
      case SourceDType::kQ5_1:
        SmallBlock<true, true>(block, out);
        break;
      case SourceDType::kQ4_K:
        BlockK<false>(block, out);
        break;
      case SourceDType::kQ5_K:
        BlockK<true>(block, out);
        break;
      case SourceDType::kQ6_K:
        BlockQ6_K(block, out);
        break;
    }
  }
}

}  // namespace nestling
