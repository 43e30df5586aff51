// SPDX-License-Identifier: Apache-2.0
// Containers that hold the packed form of their weights instead of the canonical one.
#include "runtime/prepare_in_place.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "container/packed_file.h"
#include "container/reader.h"
#include "model/slices.h"
#include "runtime/engine.h"
#include "runtime/memory_estimate.h"
#include "runtime/session.h"
#include "tests/runtime/replies.h"
#include "tests/support/edit_container.h"
#include "tests/support/faulty_files.h"
#include "tests/support/multimodal_model.h"
#include "tests/support/tiny_model.h"

namespace nestling {
namespace {

namespace fs = std::filesystem;
using testing::Bytes;
using testing::FaultyFiles;
using testing::GetMultimodalExpected;
using ::testing::HasSubstr;
using testing::MultimodalModelOptions;
using testing::ReadAllBytes;
using testing::TemporaryPath;
using testing::WriteAllBytes;

const PackedPart& PartOf(SectionKind section) {
  return *std::find_if(kPackedParts.begin(), kPackedParts.end(),
                       [&](const PackedPart& part) { return part.section == section; });
}

EngineOptions WithPrecision(TowerPrecision precision) {
  EngineOptions options;
  options.num_threads = 2;
  options.towers.precision = precision;
  return options;
}

// What a model says: numbers that must be the same to the bit.
struct Answers {
  std::vector<float> logits, image, sound;
  bool operator==(const Answers&) const = default;
};

Answers Ask(const std::string& path, const EngineOptions& options) {
  Answers answers;
  auto engine = Engine::Create(path, options);
  EXPECT_TRUE(engine.ok()) << engine.status().message();
  if (!engine.ok()) return answers;
  auto session = Session::Create(**engine, {});
  EXPECT_TRUE(session.ok());
  const std::vector<int32_t> prompt = {2, 7, 19, 11, 30, 5, 23};
  answers.logits = testing::AllLogits(**session, prompt);
  Towers& towers = (*engine)->towers();
  if (towers.State(TowerKind::kVision) != TowerState::kAbsent) {
    const auto image = towers.EncodePixels(GetMultimodalExpected().pixels);
    EXPECT_TRUE(image.ok()) << image.status().message();
    if (image.ok()) answers.image = image->pieces[0]->values;
  }
  if (towers.State(TowerKind::kAudio) != TowerState::kAbsent) {
    const auto sound = towers.EncodeSound(GetMultimodalExpected().waveform);
    EXPECT_TRUE(sound.ok()) << sound.status().message();
    if (sound.ok()) {
      answers.sound = sound->pieces[0]->values;
      answers.sound.insert(answers.sound.end(), sound->padding->begin(), sound->padding->end());
    }
  }
  return answers;
}

InPlaceOutcome Prepare(const std::string& path, const InPlaceOptions& options = {}) {
  const Result<InPlaceOutcome> outcome = PrepareInPlace(path, options, {});
  EXPECT_TRUE(outcome.ok()) << outcome.status().message();
  return outcome.ok() ? *outcome : InPlaceOutcome::kNothing;
}

Status Encode(const std::string& path, TowerPrecision precision = TowerPrecision::kAuto) {
  ASSIGN_OR_RETURN(const auto engine, Engine::Create(path, WithPrecision(precision)));
  RETURN_IF_ERROR(engine->towers().EncodePixels(GetMultimodalExpected().pixels).status());
  return engine->towers().EncodeSound(GetMultimodalExpected().waveform).status();
}

Status Verify(const std::string& path) {
  ASSIGN_OR_RETURN(const auto reader, ContainerReader::Open(path));
  return VerifyContainer(*reader, {});
}

class PrepareInPlaceTest : public ::testing::Test {
 protected:
  PrepareInPlaceTest() { fs::create_directories(fs::path(path_.path()).parent_path()); }
  void Write(const MultimodalModelOptions& options = {}) {
    const Status status = testing::WriteMultimodalModel(path_.path(), options);
    ASSERT_TRUE(status.ok()) << status.message();
  }
  // Names in the folder of the model.
  std::vector<std::string> Files() const {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(fs::path(path_.path()).parent_path())) {
      names.push_back(entry.path().filename().string());
    }
    return names;
  }

  const TemporaryPath path_, other_;
  FaultyFiles files_;
};

TEST_F(PrepareInPlaceTest, AnswersAreTheSameToTheBitWithoutTheCanonicalWeights) {
  for (const DType dtype : {DType::kBF16, DType::kQ8C}) {
    Write({.dtype = DType::kF32, .tower_dtype = dtype});
    for (const TowerPrecision precision :
         {TowerPrecision::kAuto, TowerPrecision::kF32, TowerPrecision::kInt8}) {
      SCOPED_TRACE(::testing::Message() << DTypeName(dtype) << static_cast<int>(precision));
      const Answers canonical = Ask(path_.path(), WithPrecision(precision));
      EXPECT_EQ(Prepare(path_.path(), {.output = other_.path(), .tower_precision = precision}),
                InPlaceOutcome::kPacked);
      EXPECT_TRUE(Verify(other_.path()).ok());
      EXPECT_EQ(Ask(other_.path(), WithPrecision(TowerPrecision::kAuto)), canonical);
      EXPECT_EQ(Ask(other_.path(), WithPrecision(precision)), canonical);
    }
  }
}

TEST_F(PrepareInPlaceTest, NothingIsPackedAtLoadAndNoCacheFileIsWritten) {
  Write({.tower_dtype = DType::kQ8C});
  Prepare(path_.path());
  EngineOptions options = WithPrecision(TowerPrecision::kAuto);
  options.packed_cache.folder = path_.path() + ".cache";
  auto engine = Engine::Create(path_.path(), options);
  ASSERT_TRUE(engine.ok()) << engine.status().message();
  EXPECT_EQ((*engine)->packed_info().state, PackedCacheState::kHeld);
  EXPECT_EQ((*engine)->packed_info().anonymous_bytes, 0u);
  EXPECT_GT((*engine)->packed_info().mapped_bytes, 0u);
  EXPECT_EQ((*engine)->memory().packed_weights, 0u);
  for (const TowerKind kind : {TowerKind::kVision, TowerKind::kAudio}) {
    ASSERT_TRUE((*engine)->towers().Load(kind, false).ok());
    const TowerInfo info = (*engine)->towers().Info(kind);
    EXPECT_EQ(info.packed_state, PackedCacheState::kHeld);
    EXPECT_EQ(info.anonymous_bytes, 0u);
    EXPECT_GT(info.packed_mapped_bytes, 0u);
    EXPECT_GT(info.parameters, 0u);
  }
  EXPECT_FALSE(fs::exists(options.packed_cache.folder));
  // The estimate counts pages of the file.
  const auto memory = EstimateMemory((*engine)->container(),
                                     WholeModelSlice((*engine)->text_config()), {.vision = true});
  ASSERT_TRUE(memory.ok());
  EXPECT_EQ(memory->packed_weights, 0u);
  EXPECT_GE(memory->mapped_weights,
            (*engine)->container().FindSection(SectionKind::kPackedText)->bytes);
}

TEST_F(PrepareInPlaceTest, EverySliceOfTheModelRunsFromIt) {
  testing::TinyModelOptions options;
  options.slices.push_back({.name = "small",
                            .description = "",
                            .skip_layers = {6},
                            .ffn = {64, 64, 128, 64, 64, 64, 128, 64, 64}});
  for (const DType dtype : {DType::kF32, DType::kQ8C, DType::kQ4C, DType::kQ4B32}) {
    SCOPED_TRACE(DTypeName(dtype));
    options.dtype = options.embed_dtype = dtype;
    ASSERT_TRUE(testing::WriteTinyModel(path_.path(), options).ok());
    EngineOptions small = WithPrecision(TowerPrecision::kAuto);
    small.slice = "small";
    const Answers whole = Ask(path_.path(), {}), part = Ask(path_.path(), small);
    EXPECT_EQ(Prepare(path_.path()), InPlaceOutcome::kPacked);
    EXPECT_EQ(Ask(path_.path(), {}), whole);
    EXPECT_EQ(Ask(path_.path(), small), part);
    EXPECT_NE(whole, part);
  }
}

TEST_F(PrepareInPlaceTest, WeightsThatWerePackedAreNotInTheFileAnyMore) {
  Write({.tower_dtype = DType::kBF16});
  Prepare(path_.path(), {.output = other_.path()});
  const auto before = ContainerReader::Open(path_.path()),
             after = ContainerReader::Open(other_.path());
  ASSERT_TRUE(before.ok() && after.ok());
  uint64_t gone = 0, sections = 0;
  for (const TensorInfo& tensor : (*after)->tensors()) {
    const TensorInfo& was = *(*before)->FindTensor(tensor.name);
    EXPECT_EQ(tensor.shape, was.shape);
    EXPECT_EQ(tensor.dtype, was.dtype);
    if (tensor.layout == Layout::kPacked) gone += was.bytes + was.scales_bytes;
  }
  uint64_t packed = 0;
  for (const PackedPart& part : kPackedParts) {
    packed += (*after)->FindSection(part.packed)->bytes;
    sections += 2;
  }
  EXPECT_GT(gone, (*before)->file().size() / 2);
  const auto want = static_cast<double>((*before)->file().size() - gone + packed);
  EXPECT_NEAR(static_cast<double>((*after)->file().size()), want,
              static_cast<double>(sections * kSectionAlignment));
  // What does not have to be packed is the same, byte for byte.
  for (const SectionKind kind : {SectionKind::kEmbed, SectionKind::kPle}) {
    EXPECT_EQ((*before)->FindSection(kind)->xxh3, (*after)->FindSection(kind)->xxh3);
  }
  EXPECT_EQ((*after)->version_minor(), 1);
  EXPECT_EQ((*before)->version_minor(), 0);
}

TEST_F(PrepareInPlaceTest, ReplacedFileKeepsItsModeAndTheLinkThatLedToIt) {
  Write();
  ASSERT_EQ(chmod(path_.path().c_str(), 0640), 0);
  fs::create_symlink(path_.path(), other_.path());
  EXPECT_EQ(Prepare(other_.path()), InPlaceOutcome::kPacked);
  EXPECT_TRUE(fs::is_symlink(other_.path()));
  struct stat info;
  ASSERT_EQ(stat(path_.path().c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 07777, 0640u);
  EXPECT_TRUE(Encode(path_.path()).ok());
}

TEST_F(PrepareInPlaceTest, SecondTimeChangesNothing) {
  Write({.tower_dtype = DType::kQ8C});
  EXPECT_EQ(Prepare(path_.path()), InPlaceOutcome::kPacked);
  const Bytes once = ReadAllBytes(path_.path());
  EXPECT_EQ(Prepare(path_.path()), InPlaceOutcome::kAlready);
  EXPECT_EQ(Prepare(path_.path(), {.tower_precision = TowerPrecision::kInt8}),
            InPlaceOutcome::kAlready);
  EXPECT_EQ(ReadAllBytes(path_.path()), once);
  const Result<InPlaceOutcome> other =
      PrepareInPlace(path_.path(), {.tower_precision = TowerPrecision::kF32}, {});
  EXPECT_EQ(other.status().code(), StatusCode::kUnsupported);
  EXPECT_THAT(other.status().message(), HasSubstr("vision in int8, want vision in f32"));
  // Under another name it is a copy that works.
  EXPECT_EQ(Prepare(path_.path(), {.output = other_.path()}), InPlaceOutcome::kAlready);
  EXPECT_TRUE(Verify(other_.path()).ok());
  EXPECT_EQ(Ask(other_.path(), {}), Ask(path_.path(), {}));
}

TEST_F(PrepareInPlaceTest, ModelThatNeedsNoPackingIsLeftAlone) {
  testing::TinyModelOptions options;
  options.dtype = options.embed_dtype = DType::kQ8C;
  options.tiles = options.neurons = true;
  options.laurel_rank = 32;
  ASSERT_TRUE(testing::WriteTinyModel(path_.path(), options).ok());
  const Bytes before = ReadAllBytes(path_.path());
  EXPECT_EQ(Prepare(path_.path()), InPlaceOutcome::kNothing);
  EXPECT_EQ(ReadAllBytes(path_.path()), before);
  EXPECT_EQ(Files().size(), 1u);
  EXPECT_EQ(Prepare(path_.path(), {.output = other_.path()}), InPlaceOutcome::kNothing);
  EXPECT_EQ(Ask(other_.path(), {}), Ask(path_.path(), {}));
}

TEST_F(PrepareInPlaceTest, AnotherPrecisionThanTheOneItHoldsIsRefusedWhenTheTowerIsLoaded) {
  Write({.tower_dtype = DType::kQ8C});
  Prepare(path_.path());
  EXPECT_TRUE(Encode(path_.path(), TowerPrecision::kAuto).ok());
  EXPECT_TRUE(Encode(path_.path(), TowerPrecision::kInt8).ok());
  const Status status = Encode(path_.path(), TowerPrecision::kF32);
  EXPECT_EQ(status.code(), StatusCode::kUnsupported);
  EXPECT_THAT(status.message(), HasSubstr("in packed form only, of vision in int8"));
}

TEST_F(PrepareInPlaceTest, ShortAndInterruptedCallsHeal) {
  for (const FaultyFiles::Fault fault : {FaultyFiles::kShort, FaultyFiles::kInterrupted}) {
    Write();
    const Answers canonical = Ask(path_.path(), {});
    files_.Set(fault);
    EXPECT_EQ(Prepare(path_.path(), {.calls = &files_}), InPlaceOutcome::kPacked);
    EXPECT_TRUE(Verify(path_.path()).ok());
    EXPECT_EQ(Ask(path_.path(), {}), canonical);
  }
}

TEST_F(PrepareInPlaceTest, FailureAtAnyPointLeavesTheModelAndNothingElse) {
  Write({.tower_dtype = DType::kBF16});
  const Bytes before = ReadAllBytes(path_.path());
  files_.Set(FaultyFiles::kNone);
  Prepare(path_.path(), {.output = other_.path(), .calls = &files_});
  const int writes = files_.num_writes();
  ASSERT_GT(writes, 20);
  const auto expect_unchanged = [&](const std::string& message) {
    const Result<InPlaceOutcome> outcome = PrepareInPlace(path_.path(), {.calls = &files_}, {});
    EXPECT_EQ(outcome.status().code(), StatusCode::kIoError) << outcome.status().message();
    EXPECT_THAT(outcome.status().message(), HasSubstr(message));
    EXPECT_EQ(ReadAllBytes(path_.path()), before);
    EXPECT_EQ(Files().size(), 1u);
  };
  for (int after = 0; after < writes; after += 1 + writes / 12) {
    SCOPED_TRACE(after);
    files_.Set(FaultyFiles::kNoSpace, after);
    expect_unchanged("No space left");
  }
  files_.Set(FaultyFiles::kNoSpace, writes - 1);
  expect_unchanged("No space left");
  for (const FaultyFiles::Fault fault :
       {FaultyFiles::kSyncError, FaultyFiles::kRenameError, FaultyFiles::kReadOnly,
        FaultyFiles::kReadError, FaultyFiles::kReadEnd}) {
    SCOPED_TRACE(fault);
    files_.Set(fault);
    expect_unchanged("");
  }
}

TEST_F(PrepareInPlaceTest, KilledProcessLeavesTheModelAndTheNextRunCleansUp) {
  Write();
  const Bytes before = ReadAllBytes(path_.path());
  for (const int after : {0, 3, 12}) {
    const pid_t child = fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      FaultyFiles files;
      files.Set(FaultyFiles::kKill, after);
      static_cast<void>(PrepareInPlace(path_.path(), {.num_threads = 1, .calls = &files}, {}));
      _exit(0);
    }
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 9);
    EXPECT_EQ(ReadAllBytes(path_.path()), before);
    EXPECT_EQ(Files().size(), 2u);  // one of them is cleaned up by the next run
  }
  EXPECT_EQ(Prepare(path_.path()), InPlaceOutcome::kPacked);
  EXPECT_EQ(Files().size(), 1u);
  EXPECT_TRUE(Verify(path_.path()).ok());
}

TEST_F(PrepareInPlaceTest, DamagedWeightsAreNotPacked) {
  Write();
  Bytes bytes = ReadAllBytes(path_.path());
  const auto reader = ContainerReader::Open(path_.path());
  ASSERT_TRUE(reader.ok());
  for (const SectionKind kind : {SectionKind::kVision, SectionKind::kPle}) {
    const SectionInfo& section = *(*reader)->FindSection(kind);
    Bytes damaged = bytes;
    damaged[section.offset + section.bytes / 2] ^= std::byte{1};
    WriteAllBytes(path_.path(), damaged);
    const Result<InPlaceOutcome> outcome = PrepareInPlace(path_.path(), {}, {});
    EXPECT_EQ(outcome.status().code(), StatusCode::kBadModel);
    EXPECT_THAT(outcome.status().message(), HasSubstr(SectionName(kind)));
    EXPECT_EQ(ReadAllBytes(path_.path()), damaged);
  }
}

// Takes the packed section of the vision tower apart and puts another one in its place.
class HostileSectionTest : public PrepareInPlaceTest {
 protected:
  void SetUp() override {
    Write({.tower_dtype = DType::kQ8C});
    Prepare(path_.path(), {.output = intact_.path()});
    bytes_ = ReadAllBytes(intact_.path());
    auto reader = ContainerReader::Open(intact_.path());
    ASSERT_TRUE(reader.ok());
    reader_ = std::move(reader).value();
    section_ = *reader_->FindSection(SectionKind::kPackedVision);
  }

  // The same extents with other entries and another key; `edit` keeps the lengths of all names.
  template <typename Edit>
  void Rewrite(const Edit& edit) {
    const auto packed = PackedFile::OpenSection(*reader_, PartOf(SectionKind::kVision));
    ASSERT_TRUE(packed.ok());
    auto writer = PackedFileWriter::Create(other_.path(), FileCalls::System());
    ASSERT_TRUE(writer.ok());
    const auto offset = (*writer)->AddExtent((*packed)->extents());
    ASSERT_TRUE(offset.ok() && *offset == kPackedExtentAlignment);
    PackedKey key = (*packed)->key();
    std::vector<PackedEntry> entries = (*packed)->entries();
    edit(key, entries, (*packed)->extents().size());
    for (PackedEntry& entry : entries) (*writer)->AddEntry(std::move(entry));
    ASSERT_TRUE((*writer)->Finish(key).ok());
    const Bytes image = ReadAllBytes(other_.path());
    ASSERT_EQ(image.size(), section_.bytes);
    Bytes bytes = bytes_;
    std::copy(image.begin(), image.end(), bytes.begin() + static_cast<ptrdiff_t>(section_.offset));
    WriteAllBytes(path_.path(), bytes);
  }

  const TemporaryPath intact_;
  Bytes bytes_;
  std::unique_ptr<ContainerReader> reader_;  // of that
  SectionInfo section_ = {};
};

TEST_F(HostileSectionTest, DamageIsFoundByVerifyAndWhereItMattersAtLoad) {
  const auto damage = [&](uint64_t at) {
    Bytes bytes = bytes_;
    bytes[section_.offset + at] ^= std::byte{0x10};
    WriteAllBytes(path_.path(), bytes);
    EXPECT_THAT(Verify(path_.path()).message(), HasSubstr("PACKED_VISION is damaged"));
    return Encode(path_.path());
  };
  EXPECT_TRUE(damage(kPackedExtentAlignment + 5).ok());  // a weight
  for (uint64_t at = 0; at < 64; at += 5) {
    SCOPED_TRACE(at);
    const Status status = damage(at);
    EXPECT_FALSE(status.ok());
    EXPECT_THAT(status.message(), HasSubstr("PACKED_VISION"));
  }
  EXPECT_THAT(damage(section_.bytes - 1).message(), HasSubstr("directory checksum"));
}

TEST_F(HostileSectionTest, AnotherCpuLibraryOrLayoutIsRefusedWithBothNames) {
  const auto refused = [&](const auto& change, const std::string& part) {
    Rewrite([&](PackedKey& key, std::vector<PackedEntry>&, size_t) { change(key); });
    const Status status = Encode(path_.path());
    EXPECT_EQ(status.code(), StatusCode::kUnsupported) << status.message();
    EXPECT_THAT(status.message(), HasSubstr(part));
    EXPECT_THAT(status.message(), HasSubstr("prepare the original container again"));
    const Result<InPlaceOutcome> again = PrepareInPlace(path_.path(), {}, {});
    EXPECT_EQ(again.status().code(), StatusCode::kUnsupported);
    EXPECT_THAT(again.status().message(), HasSubstr(part));
  };
  std::string cpu, library;
  Rewrite([&](PackedKey& key, std::vector<PackedEntry>&, size_t) {
    cpu = key.cpu;
    library = key.library;
  });
  EXPECT_TRUE(Encode(path_.path()).ok());
  refused([](PackedKey& key) { key.cpu.back() ^= 1; }, "this is " + cpu);
  refused([](PackedKey& key) { key.library.back() ^= 1; }, "this is " + library);
  refused([](PackedKey& key) { ++key.layout; }, "in another layout for " + cpu);
  Rewrite([](PackedKey& key, std::vector<PackedEntry>&, size_t) { key.part = "visiom"; });
  EXPECT_EQ(Encode(path_.path()).code(), StatusCode::kBadModel);
}

TEST_F(HostileSectionTest, EntriesThatAreMissingAreAnError) {
  const auto packed = PackedFile::OpenSection(*reader_, PartOf(SectionKind::kVision));
  ASSERT_TRUE(packed.ok());
  const size_t count = (*packed)->entries().size();
  for (size_t i = 0; i < count; i += 1 + count / 25) {
    std::string name = (*packed)->entries()[i].name;
    Rewrite([i](PackedKey&, std::vector<PackedEntry>& entries, size_t) {
      entries[i].name.front() ^= 1;
    });
    const Status status = Encode(path_.path());
    // The embedder's are in the container, too.
    const bool stored = name.starts_with("embed_vision.");
    EXPECT_EQ(status.code(), stored ? StatusCode::kOk : StatusCode::kBadModel)
        << name << ": " << status.message();
  }
}

// Run with the sanitizer presets: kernels must not leave the mapping.
TEST_F(HostileSectionTest, EntriesOfAnySizeAndPlaceNeverCrash) {
  std::mt19937_64 random(7);
  const auto below = [&](uint64_t limit) { return random() % limit; };
  for (int round = 0; round < 40; ++round) {
    SCOPED_TRACE(round);
    Rewrite([&](PackedKey&, std::vector<PackedEntry>& entries, size_t bytes) {
      for (size_t n = 1 + below(entries.size()); n > 0; --n) {
        PackedEntry& entry = entries[below(entries.size())];
        switch (below(4)) {
          case 0:  // as late as it goes
            entry.offset =
                kPackedExtentAlignment + (bytes - std::min(bytes, entry.bytes)) / 64 * 64;
            break;
          case 1:  // the smallest that is accepted, at the end
            entry.bytes = 1 + entry.bytes * below(8) / 8;
            entry.offset =
                kPackedExtentAlignment + (bytes - std::min(bytes, entry.bytes)) / 64 * 64;
            break;
          case 2:
            entry.offset = kPackedExtentAlignment + below(bytes / 64) * 64;
            break;
          default:
            entry.bytes += 64 * below(100);
        }
      }
    });
    static_cast<void>(Encode(path_.path()));
  }
}

TEST_F(HostileSectionTest, FlippedBytesNeverCrash) {
  std::mt19937_64 random(11);
  for (int round = 0; round < 20; ++round) {
    Bytes bytes = bytes_;
    for (int i = 0; i < 3; ++i) {
      bytes[section_.offset + random() % section_.bytes] ^=
          std::byte{static_cast<uint8_t>(1 << random() % 8)};
    }
    WriteAllBytes(path_.path(), bytes);
    static_cast<void>(Encode(path_.path()));
  }
}

}  // namespace
}  // namespace nestling
