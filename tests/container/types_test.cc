// SPDX-License-Identifier: Apache-2.0
#include "container/types.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <vector>

namespace nestling {
namespace {

struct StorageCase {
  DType dtype;
  Layout layout;
  std::vector<uint64_t> shape;
  uint32_t num_shells;
  uint64_t bytes;
  uint64_t scales_bytes;
};

TEST(StorageSizeTest, FollowsFromTypeLayoutAndShape) {
  const StorageCase cases[] = {
      {DType::kF32, Layout::kRowMajor, {7}, 1, 28, 0},
      {DType::kF16, Layout::kRowMajor, {2, 3, 5, 1}, 1, 60, 0},
      {DType::kBF16, Layout::kTransposed, {3, 5}, 2, 30, 0},
      {DType::kQ8C, Layout::kRowMajor, {3, 5}, 1, 15, 12},
      {DType::kQ8C, Layout::kRowMajor, {4, 2, 3, 3}, 1, 72, 16},
      {DType::kQ8C, Layout::kTransposed, {4, 6}, 3, 24, 48},
      {DType::kQ4C, Layout::kRowMajor, {3, 6}, 1, 9, 12},
      {DType::kQ4C, Layout::kTransposed, {4, 5}, 2, 10, 32},
      {DType::kQ4B32, Layout::kRowMajor, {3, 64}, 1, 96, 12},
      {DType::kQ4B32, Layout::kTransposed, {6, 64}, 2, 192, 24},
      {DType::kQ8C, Layout::kTiled, {32, 64}, 3, 2048, 384},
      {DType::kQ4C, Layout::kTiled, {32, 64}, 3, 1024, 384},
      {DType::kQ4B32, Layout::kTiled, {32, 64}, 3, 1024, 128},
      {DType::kF32, Layout::kNeuronRows, {3, 5}, 1, 60, 0},
      {DType::kQ8C, Layout::kNeuronRows, {3, 64}, 1, 192, 12},
      {DType::kQ8C, Layout::kNeuronColumns, {64, 3}, 1, 192, 12},
      {DType::kQ4B32, Layout::kNeuronRows, {3, 64}, 1, 96, 12},
      {DType::kQ4B32, Layout::kNeuronColumns, {64, 3}, 1, 96, 12},
      {DType::kF32, Layout::kPleRows, {10, 3, 8}, 1, 960, 0},
      {DType::kQ8C, Layout::kPleRows, {10, 3, 8}, 1, 360, 0},
      {DType::kQ4C, Layout::kPleRows, {10, 3, 8}, 1, 240, 0},
      {DType::kQ4B32, Layout::kPleRows, {10, 3, 256}, 1, 30 * (128 + 16), 0},
      {DType::kQ8C, Layout::kPacked, {10, 3, 7}, 1, 0, 0},
  };
  for (const StorageCase& c : cases) {
    SCOPED_TRACE(::testing::Message()
                 << DTypeName(c.dtype) << " layout " << static_cast<int>(c.layout));
    const auto size = ComputeStorageSize(c.dtype, c.layout, c.shape, c.num_shells);
    ASSERT_TRUE(size.ok()) << size.status().message();
    EXPECT_EQ(size->bytes, c.bytes);
    EXPECT_EQ(size->scales_bytes, c.scales_bytes);
  }
}

TEST(StorageSizeTest, RefusesShapesThatTheFormatCannotHold) {
  const uint64_t big = uint64_t{1} << 62;
  const StorageCase cases[] = {
      {DType::kF32, Layout::kRowMajor, {}, 1, 0, 0},                           // rank 0
      {DType::kF32, Layout::kRowMajor, {1, 1, 1, 1, 1, 1, 1, 1, 1}, 1, 0, 0},  // rank 9
      {DType::kF32, Layout::kRowMajor, {3, 0}, 1, 0, 0},
      {DType::kF32, Layout::kRowMajor, {big}, 1, 0, 0},        // bytes overflow
      {DType::kQ8C, Layout::kRowMajor, {big, 2}, 1, 0, 0},     // 2^63 fits, its scales do not
      {DType::kQ8C, Layout::kRowMajor, {big, 4}, 1, 0, 0},     // the count overflows to 0
      {DType::kF32, Layout::kRowMajor, {2, big, 4}, 1, 0, 0},  // the inner product overflows
      {DType::kQ8C, Layout::kRowMajor, {8}, 1, 0, 0},          // a vector has no channels
      {DType::kQ4C, Layout::kRowMajor, {4, 5}, 1, 0, 0},       // odd row
      {DType::kQ4C, Layout::kTransposed, {5, 4}, 1, 0, 0},     // odd stored row
      {DType::kQ4B32, Layout::kRowMajor, {4, 48}, 1, 0, 0},    // half a block
      {DType::kQ4B32, Layout::kTransposed, {5, 64}, 1, 0, 0},
      {DType::kF32, Layout::kTransposed, {4, 5, 6}, 1, 0, 0},
      {DType::kQ8C, Layout::kTransposed, {4, 5}, 0, 0, 0},
      {DType::kQ8C, Layout::kTransposed, {4, 5}, kMaxShells + 1, 0, 0},
      {DType::kF32, Layout::kPleRows, {4, 5}, 1, 0, 0},
      {DType::kF32, Layout::kPleRows, {big, 8, 8}, 1, 0, 0},
      {DType::kQ4B32, Layout::kPleRows, {4, 5, 48}, 1, 0, 0},
      {DType::kQ4C, Layout::kPleRows, {4, 5, 3}, 1, 0, 0},
      {DType::kQ8C, Layout::kTiled, {8, 64}, 1, 0, 0},   // half a tile
      {DType::kQ8C, Layout::kTiled, {16, 48}, 1, 0, 0},  // half a block
      {DType::kF32, Layout::kTiled, {16, 32}, 1, 0, 0},
      {DType::kBF16, Layout::kTiled, {16, 32}, 1, 0, 0},
      {DType::kQ4C, Layout::kTiled, {16, 48}, 1, 0, 0},
      {DType::kQ4C, Layout::kTiled, {8, 32}, 1, 0, 0},
      {DType::kQ8C, Layout::kTiled, {16, 32}, 0, 0, 0},
      {DType::kQ8C, Layout::kTiled, {big, 32}, 1, 0, 0},
      {DType::kQ8C, Layout::kNeuronRows, {64, 48}, 1, 0, 0},  // half a block
      {DType::kQ4B32, Layout::kNeuronColumns, {48, 64}, 1, 0, 0},
      {DType::kQ4C, Layout::kNeuronRows, {64, 64}, 1, 0, 0},
      {DType::kBF16, Layout::kNeuronColumns, {64, 64}, 1, 0, 0},
      {DType::kF32, Layout::kNeuronRows, {4, 5, 6}, 1, 0, 0},
      {DType::kF32, Layout::kNeuronRows, {big, 32}, 1, 0, 0},  // bytes overflow
      {DType::kQ8C, Layout::kNeuronColumns, {32, big}, 1, 0, 0},
      {DType::kF32, Layout::kPacked, {big, 32}, 1, 0, 0},
      {DType::kF32, static_cast<Layout>(7), {4, 5}, 1, 0, 0},
  };
  for (const StorageCase& c : cases) {
    SCOPED_TRACE(::testing::Message() << "case " << &c - cases);
    const auto size = ComputeStorageSize(c.dtype, c.layout, c.shape, c.num_shells);
    ASSERT_FALSE(size.ok());
    EXPECT_EQ(size.status().code(), StatusCode::kBadModel);
  }
}

TEST(DTypeTest, NamesAreParsedBack) {
  for (size_t i = 0; i < kNumDTypes; ++i) {
    const auto dtype = ParseDType(DTypeName(static_cast<DType>(i)));
    ASSERT_TRUE(dtype.ok());
    EXPECT_EQ(*dtype, static_cast<DType>(i));
  }
  const auto unknown = ParseDType("q5k");
  ASSERT_FALSE(unknown.ok());
  EXPECT_NE(unknown.status().message().find("q4b32"), std::string::npos)
      << "the message lists what there is: " << unknown.status().message();
}

}  // namespace
}  // namespace nestling
