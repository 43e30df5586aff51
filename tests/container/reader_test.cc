// SPDX-License-Identifier: Apache-2.0
#include "container/reader.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <vector>

#include "container/writer.h"
#include "tests/container/small_container.h"

namespace nestling {
namespace {

using testing::Bytes;
using ::testing::HasSubstr;
using testing::SmallContainer;
using testing::TemporaryPath;
using testing::TinyHeaderFields;

// Every field with a value of its own.
HeaderFields DistinctFields() {
  HeaderFields f = TinyHeaderFields(testing::SmallOptions());
  f.text.rope_theta_full = 1e5f;
  f.text.rope_theta_sliding = 2e4f;
  f.text.rms_norm_eps = 3e-6f;
  f.text.final_logit_softcap = 29.0f;
  f.text.altup_num_inputs = 3;
  f.text.altup_active_idx = 1;
  f.text.altup_correct_scale = false;
  f.generation = {
      .do_sample = true, .temperature = 0.7f, .top_k = 64, .top_p = 0.95f, .stop_tokens = {1, 6}};
  f.special_tokens = {.bos = 2,
                      .eos = 1,
                      .pad = 0,
                      .unk = 3,
                      .start_of_image = 4,
                      .end_of_image = 24,
                      .image_soft = 25,
                      .start_of_audio = 5,
                      .end_of_audio = 28,
                      .audio_soft = 29};
  f.chat_template = "{% for message in messages %}";
  f.vision = {.present = true,
              .vocab_offset = 24,
              .vocab_size = 4,
              .soft_tokens = 16,
              .config_json = R"({"v": 1})",
              .preprocessor_json = R"({"vp": 2})"};
  f.audio = {.present = true,
             .vocab_offset = 28,
             .vocab_size = 4,
             .soft_tokens = 20,
             .config_json = R"({"a": 3})",
             .preprocessor_json = R"({"ap": 4})"};
  f.provenance = {.source = "somewhere", .tool = "nestling 1", .quantisation = "q8c"};
  return f;
}

void ExpectSame(const TextConfig& got, const TextConfig& want) {
  EXPECT_EQ(got.vocab_size, want.vocab_size);
  EXPECT_EQ(got.ple_vocab_size, want.ple_vocab_size);
  EXPECT_EQ(got.hidden_size, want.hidden_size);
  EXPECT_EQ(got.ple_dim, want.ple_dim);
  EXPECT_EQ(got.num_heads, want.num_heads);
  EXPECT_EQ(got.num_kv_heads, want.num_kv_heads);
  EXPECT_EQ(got.head_dim, want.head_dim);
  EXPECT_EQ(got.num_kv_shared_layers, want.num_kv_shared_layers);
  EXPECT_EQ(got.sliding_window, want.sliding_window);
  EXPECT_EQ(got.max_position_embeddings, want.max_position_embeddings);
  EXPECT_EQ(got.rope_theta_full, want.rope_theta_full);
  EXPECT_EQ(got.rope_theta_sliding, want.rope_theta_sliding);
  EXPECT_EQ(got.rms_norm_eps, want.rms_norm_eps);
  EXPECT_EQ(got.final_logit_softcap, want.final_logit_softcap);
  EXPECT_EQ(got.altup_num_inputs, want.altup_num_inputs);
  EXPECT_EQ(got.altup_active_idx, want.altup_active_idx);
  EXPECT_EQ(got.altup_correct_scale, want.altup_correct_scale);
  EXPECT_EQ(got.laurel_rank, want.laurel_rank);
  ASSERT_EQ(got.layers.size(), want.layers.size());
  for (size_t i = 0; i < want.layers.size(); ++i) {
    EXPECT_EQ(got.layers[i].type, want.layers[i].type);
    EXPECT_EQ(got.layers[i].activation_sparsity, want.layers[i].activation_sparsity);
    EXPECT_EQ(got.layers[i].shell_ends, want.layers[i].shell_ends);
  }
}

void ExpectSame(const TowerConfig& got, const TowerConfig& want) {
  EXPECT_EQ(got.present, want.present);
  EXPECT_EQ(got.vocab_offset, want.vocab_offset);
  EXPECT_EQ(got.vocab_size, want.vocab_size);
  EXPECT_EQ(got.soft_tokens, want.soft_tokens);
  EXPECT_EQ(got.config_json, want.config_json);
  EXPECT_EQ(got.preprocessor_json, want.preprocessor_json);
}

TEST(ContainerReaderTest, GivesBackEveryFieldOfTheHeader) {
  const TemporaryPath temporary;
  auto writer = ContainerWriter::Create(temporary.path());
  ASSERT_TRUE(writer.ok());
  ASSERT_TRUE((*writer)->DeclareTokenizer(Bytes(10)).ok());
  ASSERT_TRUE((*writer)->Layout().ok());
  const HeaderFields want = DistinctFields();
  const Status finished = (*writer)->Finish(want);
  ASSERT_TRUE(finished.ok()) << finished.message();
  auto reader = ContainerReader::Open(temporary.path());
  ASSERT_TRUE(reader.ok()) << reader.status().message();
  const HeaderFields& got = (*reader)->header();

  ExpectSame(got.text, want.text);
  ASSERT_EQ(got.slices.size(), 1u);
  EXPECT_EQ(got.slices[0].name, "half");
  EXPECT_EQ(got.slices[0].description, "half of everything");
  EXPECT_EQ(got.slices[0].skip_layers, std::vector<uint32_t>({2}));
  EXPECT_EQ(got.slices[0].ffn, std::vector<uint32_t>({32, 64}));
  EXPECT_EQ(got.slices[0].effective_parameters, 5u);
  EXPECT_EQ(got.slices[0].published_accuracy, 12.5f);
  EXPECT_EQ(got.generation.do_sample, true);
  EXPECT_EQ(got.generation.temperature, 0.7f);
  EXPECT_EQ(got.generation.top_k, 64u);
  EXPECT_EQ(got.generation.top_p, 0.95f);
  EXPECT_EQ(got.generation.stop_tokens, want.generation.stop_tokens);
  EXPECT_EQ(0, std::memcmp(&got.special_tokens, &want.special_tokens, sizeof(SpecialTokens)));
  EXPECT_EQ(got.chat_template, want.chat_template);
  ExpectSame(got.vision, want.vision);
  ExpectSame(got.audio, want.audio);
  EXPECT_EQ(got.provenance.source, "somewhere");
  EXPECT_EQ(got.provenance.tool, "nestling 1");
  EXPECT_EQ(got.provenance.quantisation, "q8c");
}

TEST(ContainerReaderTest, FindsTensorsInAlignedPlaces) {
  auto reader = testing::OpenTinyModel(testing::SmallOptions());
  ASSERT_TRUE(reader.ok()) << reader.status().message();
  EXPECT_EQ((*reader)->FindSection(SectionKind::kVision), nullptr);
  EXPECT_EQ((*reader)->FindTensor("no such tensor"), nullptr);
  EXPECT_EQ((*reader)->MapSection(SectionKind::kAudio).status().code(), StatusCode::kNotFound);
  ASSERT_GT((*reader)->tensors().size(), 50u);
  for (const SectionInfo& section : (*reader)->sections()) {
    EXPECT_EQ(section.offset % kSectionAlignment, 0u);
  }
  for (const TensorInfo& tensor : (*reader)->tensors()) {
    EXPECT_EQ((*reader)->FindTensor(tensor.name), &tensor);
    EXPECT_EQ(tensor.offset % kTensorAlignment, 0u) << tensor.name;
    EXPECT_EQ(tensor.scales_offset % kTensorAlignment, 0u) << tensor.name;
  }
}

TEST(ContainerReaderTest, KeepsTheTokenizersBytes) {
  auto reader = testing::OpenTinyModel(testing::SmallOptions());
  ASSERT_TRUE(reader.ok());
  auto section = (*reader)->MapSection(SectionKind::kTokenizer);
  ASSERT_TRUE(section.ok());
  const std::string text(reinterpret_cast<const char*>(section->bytes().data()),
                         section->bytes().size());
  EXPECT_EQ(text, std::string(1000, 'T'));
}

TEST(ContainerReaderTest, ContentHashTellsModelsApart) {
  auto one = testing::OpenTinyModel(testing::SmallOptions());
  auto same = testing::OpenTinyModel(testing::SmallOptions());
  testing::TinyModelOptions options = testing::SmallOptions();
  options.seed = 2;  // same header but for the checksums of the sections
  auto other = testing::OpenTinyModel(options);
  ASSERT_TRUE(one.ok() && same.ok() && other.ok());
  EXPECT_EQ((*one)->content_hash(), (*same)->content_hash());
  EXPECT_NE((*one)->content_hash(), (*other)->content_hash());
}

// As an Android asset: a span in the middle of another file.
TEST(ContainerReaderTest, OpensASpanOfADescriptor) {
  const TemporaryPath temporary;
  const Bytes container = SmallContainer();
  for (const size_t start : {4u, 100u, 4096u}) {
    Bytes outer(start, std::byte{0xee});
    outer.insert(outer.end(), container.begin(), container.end());
    outer.resize(outer.size() + 77, std::byte{0xdd});
    testing::WriteAllBytes(temporary.path(), outer);
    const int fd = open(temporary.path().c_str(), O_RDONLY | O_CLOEXEC);
    ASSERT_GE(fd, 0);
    auto file = File::FromDescriptor(fd, start, container.size());
    close(fd);
    ASSERT_TRUE(file.ok()) << file.status().message();
    auto reader = ContainerReader::Open(std::move(*file));
    ASSERT_TRUE(reader.ok()) << reader.status().message();
    EXPECT_TRUE(VerifyContainer(**reader, {}).ok());
  }
}

TEST(ContainerReaderTest, RefusesASpanWhoseFloatsWouldNotBeAligned) {
  const TemporaryPath temporary;
  Bytes outer(2);
  const Bytes container = SmallContainer();
  outer.insert(outer.end(), container.begin(), container.end());
  testing::WriteAllBytes(temporary.path(), outer);
  const int fd = open(temporary.path().c_str(), O_RDONLY | O_CLOEXEC);
  auto file = File::FromDescriptor(fd, 2, 0);
  close(fd);
  ASSERT_TRUE(file.ok());
  EXPECT_EQ(ContainerReader::Open(std::move(*file)).status().code(), StatusCode::kInvalidArgument);
}

TEST(ContainerReaderTest, AcceptsANewerMinorVersion) {
  Bytes file = SmallContainer();
  Preamble preamble = testing::GetPreamble(file);
  preamble.version_minor = kVersionMinor + 7;
  testing::SetPreamble(preamble, &file);
  const TemporaryPath temporary;
  testing::WriteAllBytes(temporary.path(), file);
  auto reader = ContainerReader::Open(temporary.path());
  ASSERT_TRUE(reader.ok()) << reader.status().message();
  EXPECT_EQ((*reader)->version_minor(), kVersionMinor + 7);
}

TEST(ContainerReaderTest, SkipsSectionsOfANewerMinorVersionThatItDoesNotKnow) {
  Bytes file = SmallContainer();
  testing::EditHeader(
      [](ContainerHeader& header) {
        header.sections.back().kind = static_cast<SectionKind>(kNumSections);  // was TOKENIZER
        TensorInfo tensor = header.tensors[0];
        tensor.name = "from the future";
        tensor.section = static_cast<SectionKind>(kNumSections);
        tensor.dtype = static_cast<DType>(200);
        header.tensors.push_back(tensor);
      },
      &file);
  EXPECT_EQ(testing::OpenBytes(file).code(), StatusCode::kBadModel) << "damage in version 1.0";
  Preamble preamble = testing::GetPreamble(file);
  preamble.version_minor = kVersionMinor + 1;
  testing::SetPreamble(preamble, &file);
  const TemporaryPath temporary;
  testing::WriteAllBytes(temporary.path(), file);
  auto reader = ContainerReader::Open(temporary.path());
  ASSERT_TRUE(reader.ok()) << reader.status().message();
  EXPECT_EQ((*reader)->FindTensor("from the future"), nullptr);
  EXPECT_EQ((*reader)->FindSection(SectionKind::kTokenizer), nullptr);
  EXPECT_NE((*reader)->FindTensor("embed_tokens"), nullptr);
}

TEST(ContainerReaderTest, AnElementTypeOfANewerMinorVersionIsUnsupported) {
  Bytes file = SmallContainer();
  testing::EditHeader(
      [](ContainerHeader& header) { header.tensors[5].dtype = static_cast<DType>(6); }, &file);
  Preamble preamble = testing::GetPreamble(file);
  preamble.version_minor = kVersionMinor + 1;
  testing::SetPreamble(preamble, &file);
  const Status status = testing::OpenBytes(file);
  EXPECT_EQ(status.code(), StatusCode::kUnsupported);
  EXPECT_THAT(status.message(), HasSubstr("newer version"));
}

TEST(ContainerReaderTest, PackedWeightsSayThatTheyAreOfANewerVersionThanTheFirst) {
  Bytes file = SmallContainer();
  testing::EditHeader(
      [](ContainerHeader& header) { header.sections.back().kind = SectionKind::kPackedText; },
      &file);
  EXPECT_THAT(testing::OpenBytes(file).message(), HasSubstr("came with 1.1")) << "said to be 1.0";
  Preamble preamble = testing::GetPreamble(file);
  EXPECT_EQ(preamble.version_minor, 0) << "what has no packed weights is for every reader";
  preamble.version_minor = 1;
  testing::SetPreamble(preamble, &file);
  EXPECT_TRUE(testing::OpenBytes(file).ok()) << testing::OpenBytes(file).message();
}

TEST(VerifyTest, ReportsProgressUpToTheEnd) {
  static uint64_t last_done, last_total;
  last_done = last_total = 0;
  auto reader = testing::OpenTinyModel(testing::SmallOptions());
  ASSERT_TRUE(reader.ok());
  ASSERT_TRUE(VerifyContainer(**reader, [](uint64_t done, uint64_t total) {
                EXPECT_GT(done, last_done);
                last_done = done;
                last_total = total;
              }).ok());
  EXPECT_GT(last_total, 0u);
  EXPECT_EQ(last_done, last_total);
}

TEST(VerifyTest, NamesTheSectionWithADamagedByte) {
  const Bytes file = SmallContainer();
  std::vector<SectionInfo> sections;
  const TemporaryPath temporary;
  {
    testing::WriteAllBytes(temporary.path(), file);
    auto reader = ContainerReader::Open(temporary.path());
    ASSERT_TRUE(reader.ok());
    sections.assign((*reader)->sections().begin(), (*reader)->sections().end());
  }
  ASSERT_EQ(sections.size(), 4u);
  for (const SectionInfo& section : sections) {
    for (const uint64_t at : {uint64_t{0}, section.bytes / 2, section.bytes - 1}) {
      Bytes damaged = file;
      damaged[section.offset + at] ^= std::byte{0x10};
      testing::WriteAllBytes(temporary.path(), damaged);
      auto reader = ContainerReader::Open(temporary.path());
      ASSERT_TRUE(reader.ok()) << "opening does not read sections";
      const Status status = VerifyContainer(**reader, {});
      EXPECT_EQ(status.code(), StatusCode::kBadModel);
      EXPECT_THAT(status.message(), HasSubstr(SectionName(section.kind)));
    }
  }
}

TEST(VerifyTest, AFileThatShrinksAfterOpeningIsAnIoError) {
  const TemporaryPath temporary;
  testing::WriteAllBytes(temporary.path(), SmallContainer());
  auto reader = ContainerReader::Open(temporary.path());
  ASSERT_TRUE(reader.ok());
  ASSERT_EQ(truncate(temporary.path().c_str(), 20000), 0);
  EXPECT_EQ(VerifyContainer(**reader, {}).code(), StatusCode::kIoError);
}

}  // namespace
}  // namespace nestling
