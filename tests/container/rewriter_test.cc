// SPDX-License-Identifier: Apache-2.0
#include "container/rewriter.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>

#include "container/packed_file.h"
#include "tests/container/small_container.h"

namespace nestling {
namespace {

using testing::Bytes;
using ::testing::HasSubstr;
using testing::PackedContainer;
using testing::SmallContainer;
using testing::TemporaryPath;

Result<std::unique_ptr<ContainerReader>> Open(const TemporaryPath& path, const Bytes& bytes) {
  testing::WriteAllBytes(path.path(), bytes);
  return ContainerReader::Open(path.path());
}

Bytes Read(const ContainerReader& reader, SectionKind section, uint64_t offset, uint64_t bytes) {
  Bytes read(bytes);
  EXPECT_TRUE(
      reader.file().ReadAt(reader.FindSection(section)->offset + offset, std::span(read)).ok());
  return read;
}

TEST(ContainerRewriterTest, WhatIsNotPackedIsCopied) {
  const TemporaryPath plain_path, packed_path;
  const auto plain = Open(plain_path, SmallContainer(DType::kF32));
  const auto packed = Open(packed_path, PackedContainer());
  ASSERT_TRUE(plain.ok() && packed.ok()) << packed.status().message();
  EXPECT_TRUE(VerifyContainer(**packed, {}).ok());
  EXPECT_EQ((*packed)->header().chat_template, (*plain)->header().chat_template);
  ASSERT_EQ((*packed)->tensors().size(), (*plain)->tensors().size());
  size_t gone = 0;
  for (size_t i = 0; i < (*plain)->tensors().size(); ++i) {
    const TensorInfo& from = (*plain)->tensors()[i];
    const TensorInfo& to = (*packed)->tensors()[i];
    SCOPED_TRACE(from.name);
    EXPECT_EQ(to.name, from.name);
    EXPECT_EQ(to.shape, from.shape);
    EXPECT_EQ(to.dtype, from.dtype);
    if (to.layout == Layout::kPacked) {
      ++gone;
      continue;
    }
    EXPECT_EQ(to.layout, from.layout);
    EXPECT_EQ(Read(**packed, to.section, to.offset, to.bytes),
              Read(**plain, from.section, from.offset, from.bytes));
  }
  EXPECT_EQ(gone, 2u);
  EXPECT_LT((*packed)->FindSection(SectionKind::kText)->bytes,
            (*plain)->FindSection(SectionKind::kText)->bytes);
  for (const SectionKind kind : {SectionKind::kEmbed, SectionKind::kPle, SectionKind::kTokenizer}) {
    const SectionInfo& section = *(*plain)->FindSection(kind);
    EXPECT_EQ((*packed)->FindSection(kind)->xxh3, section.xxh3);
    EXPECT_EQ(Read(**packed, kind, 0, section.bytes), Read(**plain, kind, 0, section.bytes));
  }
}

TEST(ContainerRewriterTest, ThePackedSectionIsAFileOfPackedWeights) {
  const TemporaryPath path;
  const auto reader = Open(path, PackedContainer());
  ASSERT_TRUE(reader.ok());
  const auto packed = PackedFile::OpenSection(**reader, kPackedParts[0]);
  ASSERT_TRUE(packed.ok()) << packed.status().message();
  EXPECT_EQ((*packed)->key().cpu, "a CPU");
  EXPECT_EQ((*packed)->entries().size(), 2u);
  EXPECT_EQ((*packed)->Find("layers.0.self_attn.q_proj f32").front(), std::byte{7});
  EXPECT_TRUE((*packed)->VerifyPayload().ok());
  EXPECT_EQ(PackedFile::OpenSection(**reader, kPackedParts[1]).status().code(),
            StatusCode::kNotFound);
  const auto compute = HeldCompute(**reader, SectionKind::kText);
  ASSERT_TRUE(compute.ok());
  EXPECT_EQ(*compute, "stored");
}

TEST(ContainerRewriterTest, PackedSectionsMustBeAlignedInTheOuterFile) {
  for (const size_t before : {64, 4}) {
    const TemporaryPath path;
    Bytes outer(before, std::byte{0x55});
    const Bytes container = PackedContainer();
    outer.insert(outer.end(), container.begin(), container.end());
    testing::WriteAllBytes(path.path(), outer);
    auto file = File::Open(path.path());
    ASSERT_TRUE(file.ok());
    auto span = (*file)->Span(before, container.size());
    ASSERT_TRUE(span.ok());
    const auto reader = ContainerReader::Open(std::move(*span));
    ASSERT_TRUE(reader.ok()) << reader.status().message();
    const auto packed = PackedFile::OpenSection(**reader, kPackedParts[0]);
    if (before == 64) {
      ASSERT_TRUE(packed.ok()) << packed.status().message();
      EXPECT_TRUE((*packed)->VerifyPayload().ok());
      EXPECT_EQ(reinterpret_cast<uintptr_t>((*packed)->Find("layers.0.mlp.gate_proj f32").data()) %
                    kPackedEntryAlignment,
                0u);
    } else {
      EXPECT_EQ(packed.status().code(), StatusCode::kUnsupported);
      EXPECT_THAT(packed.status().message(), HasSubstr("want a multiple of 64"));
    }
  }
}

TEST(ContainerRewriterTest, NothingAppearsUnderTheNameBeforeCommit) {
  const TemporaryPath source, target;
  const auto reader = Open(source, SmallContainer());
  ASSERT_TRUE(reader.ok());
  testing::WriteAllBytes(target.path(), Bytes(3));
  {
    auto rewriter = ContainerRewriter::Create(**reader, target.path(), FileCalls::System());
    ASSERT_TRUE(rewriter.ok());
    ASSERT_TRUE((*rewriter)->Finish({}).ok());
    const auto copy = (*rewriter)->OpenCopy();
    ASSERT_TRUE(copy.ok()) << copy.status().message();
    EXPECT_EQ((*copy)->tensors().size(), (*reader)->tensors().size());
    EXPECT_EQ(testing::ReadAllBytes(target.path()).size(), 3u);
  }
  EXPECT_EQ(testing::ReadAllBytes(target.path()).size(), 3u);
}

}  // namespace
}  // namespace nestling
