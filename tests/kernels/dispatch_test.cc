// SPDX-License-Identifier: Apache-2.0
#include "kernels/dispatch.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <string>

#include "kernels/affine_int8/affine_int8.h"
#include "kernels/altup/altup.h"
#include "kernels/at_least/at_least.h"
#include "kernels/attention/attention.h"
#include "kernels/channel_norm/channel_norm.h"
#include "kernels/conformer/conformer.h"
#include "kernels/convert/convert.h"
#include "kernels/gelu_gate/gelu_gate.h"
#include "kernels/laurel/laurel.h"
#include "kernels/norm_rope/norm_rope.h"
#include "kernels/rms_norm/rms_norm.h"
#include "kernels/shared_kv_attention/shared_kv_attention.h"
#include "kernels/softcap/softcap.h"
#include "kernels/sparse_ffn/sparse_ffn.h"
#include "kernels/tiled_linear/tiled_linear.h"

namespace nestling::kernels {
namespace {

struct FakeKernel {
  const char* name;
  uint32_t needs_isa;
};
constexpr FakeKernel kWide = {"wide", kIsaAvx512};
constexpr FakeKernel kNarrow = {"narrow", kIsaAvx2};
constexpr FakeKernel kPlain = {"plain", kIsaNone};
constexpr const FakeKernel* kFakeTable[] = {&kWide, &kNarrow, &kPlain};

TEST(DispatchTest, TakesTheFirstVariantThatTheCpuCanRun) {
  EXPECT_STREQ(SelectKernel<FakeKernel>(kFakeTable, kIsaAvx512 | kIsaAvx2).name, "wide");
  EXPECT_STREQ(SelectKernel<FakeKernel>(kFakeTable, kIsaAvx2).name, "narrow");
}

TEST(DispatchTest, FallsBackToTheLastVariantOnAnUnknownCpu) {
  EXPECT_STREQ(SelectKernel<FakeKernel>(kFakeTable, kIsaNone).name, "plain");
  EXPECT_STREQ(SelectKernel<FakeKernel>(kFakeTable, kIsaNeon).name, "plain");
}

template <typename Kernel>
void ExpectScalarOnlyAtTheEnd(std::span<const Kernel* const> table) {
  ASSERT_FALSE(table.empty());
  EXPECT_STREQ(table.back()->name, "scalar");
  EXPECT_EQ(table.back()->needs_isa, uint32_t{kIsaNone});
  for (const Kernel* kernel : table.first(table.size() - 1)) {
    // A variant in front that needed nothing would hide all those behind it.
    EXPECT_NE(kernel->needs_isa, uint32_t{kIsaNone}) << kernel->name;
  }
}

TEST(DispatchTest, EveryTableEndsWithItsScalarVariant) {
  ExpectScalarOnlyAtTheEnd(AffineInt8Kernels());
  ExpectScalarOnlyAtTheEnd(AltupKernels());
  ExpectScalarOnlyAtTheEnd(AtLeastKernels());
  ExpectScalarOnlyAtTheEnd(AttentionKernels());
  ExpectScalarOnlyAtTheEnd(ChannelNormKernels());
  ExpectScalarOnlyAtTheEnd(ConformerKernels());
  ExpectScalarOnlyAtTheEnd(ConvertKernels());
  ExpectScalarOnlyAtTheEnd(GeluGateKernels());
  ExpectScalarOnlyAtTheEnd(LaurelKernels());
  ExpectScalarOnlyAtTheEnd(NormRopeKernels());
  ExpectScalarOnlyAtTheEnd(RmsNormKernels());
  ExpectScalarOnlyAtTheEnd(SharedKvKernels());
  ExpectScalarOnlyAtTheEnd(SoftCapKernels());
  ExpectScalarOnlyAtTheEnd(SparseFfnKernels());
  ExpectScalarOnlyAtTheEnd(TiledLinearKernels());
}

TEST(DispatchTest, OneProcessorFamilyOnlyIsReported) {
  const bool x86 = (AvailableIsa() & (kIsaAvx2 | kIsaAvx512)) != 0;
  const bool arm = (AvailableIsa() & kIsaNeon) != 0;
  EXPECT_FALSE(x86 && arm);
#if defined(__aarch64__)
  EXPECT_TRUE(arm);
#else
  EXPECT_FALSE(arm);
#endif
}

// A program that runs under an emulator can be told which processor that is. Without this check a
// detection that fails there would only make the other tests skip what they are meant to test.
TEST(DispatchTest, ChoosesWhatAnEmulatedProcessorIsKnownToHave) {
  const char* expected = std::getenv("NESTLING_EXPECTED_ISA");
  if (expected == nullptr) GTEST_SKIP() << "no emulator";
  const uint32_t isa = AvailableIsa();
  std::string found = (isa & kIsaNeon) != 0 ? "neon" : "none";
  if ((isa & kIsaNeonDot) != 0) found += " neondot";
  if ((isa & kIsaNeonI8mm) != 0) found += " neoni8mm";
  EXPECT_EQ(found, expected);
  const bool i8mm = std::string(expected) == "neon neondot neoni8mm";
  const bool dot = i8mm || std::string(expected) == "neon neondot";
  EXPECT_STREQ(SelectKernel(AttentionKernels(), isa).name, "neon");
  EXPECT_STREQ(SelectKernel(SparseFfnKernels(), isa).name, dot ? "neondot" : "scalar");
  EXPECT_STREQ(SelectKernel(TiledLinearKernels(), isa).name, i8mm  ? "neoni8mm"
                                                             : dot ? "neondot"
                                                                   : "scalar");
}

}  // namespace
}  // namespace nestling::kernels
