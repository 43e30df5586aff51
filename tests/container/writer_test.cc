// SPDX-License-Identifier: Apache-2.0
#include "container/writer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <atomic>
#include <csignal>
#include <filesystem>
#include <thread>

#include "container/reader.h"
#include "tests/support/edit_container.h"
#include "tests/support/tiny_model.h"

namespace nestling {
namespace {

using testing::Bytes;
using ::testing::HasSubstr;
using testing::ReadAllBytes;
using testing::TemporaryPath;
using testing::TinyHeaderFields;

Bytes Pattern(size_t size, unsigned first) {
  Bytes bytes(size);
  for (size_t i = 0; i < size; ++i) bytes[i] = static_cast<std::byte>(first + i * 7);
  return bytes;
}

size_t FilesBeside(const std::string& path) {
  size_t count = 0;
  const auto folder = std::filesystem::path(path).parent_path();
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator(folder)) ++count;
  return count;
}

// Two tensors: "a" q8c [4, 8] in TEXT (32 bytes, 16 of scales), "b" f32 [16] in EMBED.
Result<std::unique_ptr<ContainerWriter>> TwoTensors(const std::string& path) {
  ASSIGN_OR_RETURN(auto writer, ContainerWriter::Create(path));
  RETURN_IF_ERROR(writer->Declare(
      {.name = "a", .section = SectionKind::kText, .dtype = DType::kQ8C, .shape = {4, 8}}));
  RETURN_IF_ERROR(writer->Declare(
      {.name = "b", .section = SectionKind::kEmbed, .dtype = DType::kF32, .shape = {16}}));
  RETURN_IF_ERROR(writer->Layout());
  return writer;
}

TEST(ContainerWriterTest, LeavesNothingBehindWithoutFinish) {
  const TemporaryPath temporary;
  {
    auto writer = TwoTensors(temporary.path());
    ASSERT_TRUE(writer.ok()) << writer.status().message();
    ASSERT_TRUE((*writer)->WriteElements("a", 0, Pattern(32, 1)).ok());
    EXPECT_EQ(FilesBeside(temporary.path()), 1u) << "the temporary file";
  }
  EXPECT_EQ(FilesBeside(temporary.path()), 0u);
}

TEST(ContainerWriterTest, KeepsTheOldFileUntilTheNewOneIsComplete) {
  const TemporaryPath temporary;
  testing::WriteAllBytes(temporary.path(), Pattern(10, 3));
  auto writer = TwoTensors(temporary.path());
  ASSERT_TRUE(writer.ok());
  ASSERT_TRUE((*writer)->WriteElements("a", 0, Pattern(32, 1)).ok());
  ASSERT_FALSE((*writer)->Finish(TinyHeaderFields({})).ok());
  EXPECT_EQ(ReadAllBytes(temporary.path()), Pattern(10, 3));
}

TEST(ContainerWriterTest, WritesWhatTheReaderFinds) {
  const TemporaryPath temporary;
  auto writer = TwoTensors(temporary.path());
  ASSERT_TRUE(writer.ok());
  // In pieces and out of order.
  const Bytes a = Pattern(32, 1), scales = Pattern(16, 2), b = Pattern(64, 3);
  const std::span<const std::byte> a_span(a), b_span(b);
  ASSERT_TRUE((*writer)->WriteElements("b", 20, b_span.subspan(20)).ok());
  ASSERT_TRUE((*writer)->WriteElements("a", 8, a_span.subspan(8, 8)).ok());
  ASSERT_TRUE((*writer)->WriteElements("a", 16, a_span.subspan(16)).ok());
  ASSERT_TRUE((*writer)->WriteElements("a", 0, a_span.subspan(0, 8)).ok());
  ASSERT_TRUE((*writer)->WriteScales("a", 0, scales).ok());
  ASSERT_TRUE((*writer)->WriteElements("b", 0, b_span.subspan(0, 20)).ok());
  const Status finished = (*writer)->Finish(TinyHeaderFields({}));
  ASSERT_TRUE(finished.ok()) << finished.message();

  auto reader = ContainerReader::Open(temporary.path());
  ASSERT_TRUE(reader.ok()) << reader.status().message();
  const auto expect = [&](const char* name, const Bytes& elements, const Bytes& wanted_scales) {
    const TensorInfo* tensor = (*reader)->FindTensor(name);
    ASSERT_NE(tensor, nullptr);
    auto section = (*reader)->MapSection(tensor->section);
    ASSERT_TRUE(section.ok());
    const auto bytes = section->bytes();
    const auto got = bytes.subspan(tensor->offset, tensor->bytes);
    EXPECT_EQ(Bytes(got.begin(), got.end()), elements);
    if (wanted_scales.empty()) return;
    const auto got_scales = bytes.subspan(tensor->scales_offset, tensor->scales_bytes);
    EXPECT_EQ(Bytes(got_scales.begin(), got_scales.end()), wanted_scales);
  };
  expect("a", a, scales);
  expect("b", b, {});
  EXPECT_TRUE(VerifyContainer(**reader, {}).ok());
  EXPECT_EQ(FilesBeside(temporary.path()), 1u) << "no temporary file is left";
}

TEST(ContainerWriterTest, AcceptsPiecesFromSeveralThreads) {
  constexpr size_t kThreads = 4, kPieces = 64, kPieceBytes = 4096;
  const TemporaryPath temporary;
  auto writer = ContainerWriter::Create(temporary.path());
  ASSERT_TRUE(writer.ok());
  ASSERT_TRUE((*writer)
                  ->Declare({.name = "t",
                             .section = SectionKind::kText,
                             .dtype = DType::kF32,
                             .shape = {kThreads * kPieces * kPieceBytes / 4}})
                  .ok());
  ASSERT_TRUE((*writer)->Layout().ok());
  std::vector<std::thread> threads;
  std::atomic<int> failures = 0;
  for (size_t t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (size_t i = t; i < kThreads * kPieces; i += kThreads) {
        const Bytes piece = Pattern(kPieceBytes, static_cast<unsigned>(i));
        if (!(*writer)->WriteElements("t", i * kPieceBytes, piece).ok()) ++failures;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  ASSERT_EQ(failures, 0);
  ASSERT_TRUE((*writer)->Finish(TinyHeaderFields({})).ok());
  auto reader = ContainerReader::Open(temporary.path());
  ASSERT_TRUE(reader.ok());
  auto section = (*reader)->MapSection(SectionKind::kText);
  ASSERT_TRUE(section.ok());
  for (size_t i = 0; i < kThreads * kPieces; ++i) {
    const auto got = section->bytes().subspan(i * kPieceBytes, kPieceBytes);
    ASSERT_EQ(Bytes(got.begin(), got.end()), Pattern(kPieceBytes, static_cast<unsigned>(i)));
  }
}

TEST(ContainerWriterTest, NamesTheTensorWhoseBytesAreMissing) {
  const TemporaryPath temporary;
  auto writer = TwoTensors(temporary.path());
  ASSERT_TRUE(writer.ok());
  ASSERT_TRUE((*writer)->WriteElements("a", 0, Pattern(32, 1)).ok());
  ASSERT_TRUE((*writer)->WriteScales("a", 0, Pattern(8, 1)).ok());
  ASSERT_TRUE((*writer)->WriteElements("b", 0, Pattern(64, 1)).ok());
  const Status status = (*writer)->Finish(TinyHeaderFields({}));
  EXPECT_EQ(status.code(), StatusCode::kFailedPrecondition);
  EXPECT_THAT(status.message(), HasSubstr("\"a\": scales not written from byte 8 of 16"));
}

TEST(ContainerWriterTest, RefusesWrongCalls) {
  const TemporaryPath temporary;
  auto created = ContainerWriter::Create(temporary.path());
  ASSERT_TRUE(created.ok());
  ContainerWriter& writer = **created;
  const TensorPlan plan{
      .name = "a", .section = SectionKind::kText, .dtype = DType::kF32, .shape = {16}};
  EXPECT_EQ(writer.WriteElements("a", 0, Pattern(4, 0)).code(), StatusCode::kFailedPrecondition);
  EXPECT_EQ(writer.Finish(TinyHeaderFields({})).code(), StatusCode::kFailedPrecondition);
  EXPECT_EQ(writer.Layout().code(), StatusCode::kInvalidArgument) << "nothing declared";
  ASSERT_TRUE(writer.Declare(plan).ok());
  EXPECT_EQ(writer.Declare(plan).code(), StatusCode::kInvalidArgument) << "twice";
  EXPECT_EQ(writer
                .Declare({.name = "x",
                          .section = SectionKind::kText,
                          .dtype = DType::kQ4B32,
                          .shape = {4, 33}})
                .code(),
            StatusCode::kInvalidArgument);
  EXPECT_EQ(
      writer
          .Declare(
              {.name = "x", .section = SectionKind::kTokenizer, .dtype = DType::kF32, .shape = {4}})
          .code(),
      StatusCode::kInvalidArgument);
  ASSERT_TRUE(writer.Layout().ok());
  EXPECT_EQ(writer.Layout().code(), StatusCode::kFailedPrecondition);
  EXPECT_EQ(
      writer
          .Declare(
              {.name = "late", .section = SectionKind::kText, .dtype = DType::kF32, .shape = {4}})
          .code(),
      StatusCode::kFailedPrecondition);
  EXPECT_EQ(writer.WriteElements("b", 0, Pattern(4, 0)).code(), StatusCode::kNotFound);
  EXPECT_EQ(writer.WriteElements("a", 61, Pattern(4, 0)).code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(writer.WriteElements("a", ~uint64_t{0}, Pattern(4, 0)).code(),
            StatusCode::kInvalidArgument);
  EXPECT_EQ(writer.WriteScales("a", 0, Pattern(4, 0)).code(), StatusCode::kInvalidArgument);
  ASSERT_TRUE(writer.WriteElements("a", 16, Pattern(16, 0)).ok());
  EXPECT_EQ(writer.WriteElements("a", 8, Pattern(9, 0)).code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(writer.WriteElements("a", 31, Pattern(4, 0)).code(), StatusCode::kInvalidArgument);
}

TEST(ContainerWriterTest, RefusesFieldsThatTheReaderWouldRefuse) {
  const TemporaryPath temporary;
  auto writer = ContainerWriter::Create(temporary.path());
  ASSERT_TRUE(writer.ok());
  ASSERT_TRUE((*writer)->DeclareTokenizer(Pattern(100, 0)).ok());
  ASSERT_TRUE((*writer)->Layout().ok());
  HeaderFields fields = TinyHeaderFields({});
  fields.text.head_dim = 3;
  EXPECT_EQ((*writer)->Finish(fields).code(), StatusCode::kBadModel);
  EXPECT_FALSE(std::filesystem::exists(temporary.path()));
}

TEST(ContainerWriterTest, SaysHowMuchRoomTheHeaderNeeds) {
  const TemporaryPath temporary;
  auto writer = ContainerWriter::Create(temporary.path());
  ASSERT_TRUE(writer.ok());
  ASSERT_TRUE((*writer)->DeclareTokenizer(Pattern(100, 0)).ok());
  ASSERT_TRUE((*writer)->Layout(/*fields_bytes=*/1000).ok());
  HeaderFields fields = TinyHeaderFields({});
  fields.chat_template.assign(20000, 'x');
  const Status status = (*writer)->Finish(fields);
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(status.message(), HasSubstr("were reserved"));
}

TEST(ContainerWriterTest, ReservesEnoughForAnyNumberOfTensors) {
  const TemporaryPath temporary;
  auto writer = ContainerWriter::Create(temporary.path());
  ASSERT_TRUE(writer.ok());
  constexpr size_t kTensors = 3000;  // E4B with both towers has about 2000
  for (size_t i = 0; i < kTensors; ++i) {
    ASSERT_TRUE((*writer)
                    ->Declare({.name = "tensor.with.a.rather.long.name." + std::to_string(i),
                               .section = SectionKind::kText,
                               .dtype = DType::kQ8C,
                               .shape = {1, 1}})
                    .ok());
  }
  // Nothing is left over for the fields but what rounding to a page gives.
  ASSERT_TRUE((*writer)->Layout(/*fields_bytes=*/2048).ok());
  for (size_t i = 0; i < kTensors; ++i) {
    const std::string name = "tensor.with.a.rather.long.name." + std::to_string(i);
    ASSERT_TRUE((*writer)->WriteElements(name, 0, Pattern(1, 0)).ok());
    ASSERT_TRUE((*writer)->WriteScales(name, 0, Pattern(4, 0)).ok());
  }
  const Status status = (*writer)->Finish(TinyHeaderFields({}));
  ASSERT_TRUE(status.ok()) << status.message();
  auto reader = ContainerReader::Open(temporary.path());
  ASSERT_TRUE(reader.ok()) << reader.status().message();
  EXPECT_EQ((*reader)->tensors().size(), kTensors);
}

// A full disk, played by the limit on a file's size.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) {
    old_handler_ = std::signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &old_);
    rlimit limit = old_;
    limit.rlim_cur = bytes;
    setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~FileSizeLimit() {
    setrlimit(RLIMIT_FSIZE, &old_);
    std::signal(SIGXFSZ, old_handler_);
  }

 private:
  rlimit old_;
  void (*old_handler_)(int);
};

TEST(ContainerWriterTest, ReportsAFullDiskAndLeavesNothing) {
  const TemporaryPath temporary;
  {
    auto writer = ContainerWriter::Create(temporary.path());
    ASSERT_TRUE(writer.ok());
    ASSERT_TRUE((*writer)
                    ->Declare({.name = "big",
                               .section = SectionKind::kText,
                               .dtype = DType::kF32,
                               .shape = {1 << 18}})
                    .ok());
    Status status;
    {
      const FileSizeLimit limit(512 << 10);
      status = (*writer)->Layout();
      // A file system that cannot reserve room says so when the room runs out.
      if (status.ok()) status = (*writer)->WriteElements("big", 0, Bytes(1 << 20));
    }
    EXPECT_EQ(status.code(), StatusCode::kIoError) << status.message();
    EXPECT_THAT(status.message(), HasSubstr(temporary.path()));
  }
  EXPECT_EQ(FilesBeside(temporary.path()), 0u);
}

TEST(ContainerWriterTest, AFolderThatDoesNotExistIsAnError) {
  EXPECT_EQ(ContainerWriter::Create("/nonexistent-folder/model.nest").status().code(),
            StatusCode::kNotFound);
}

}  // namespace
}  // namespace nestling
