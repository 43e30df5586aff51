// SPDX-License-Identifier: Apache-2.0
#include "graph/packed_weights.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <limits>
#include <string>
#include <vector>

#include "base/aligned_buffer.h"
#include "graph/graph_context.h"
#include "graph/linear_block.h"
#include "graph/packing_family.h"
#include "tests/support/edit_container.h"
#include "tests/support/faulty_files.h"
#include "tests/support/tiny_model.h"

namespace nestling {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using testing::FaultyFiles;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using testing::WriteTinyModel;

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

// A matrix [out, in] of f32 or int8 with a value at each place that tells them all apart.
struct Weights {
  Weights(std::string matrix_name, DType dtype, size_t out, size_t in)
      : name(std::move(matrix_name)), floats(out * in), codes(out * in), scales(out) {
    for (size_t i = 0; i < out * in; ++i) {
      floats[i] = std::sin(static_cast<float>(i) * 0.37f);
      codes[i] = static_cast<int8_t>(static_cast<int>(i * 37 % 255) - 127);
    }
    for (size_t i = 0; i < out; ++i) scales[i] = 0.001f * static_cast<float>(i + 1);
    matrix.name = name;
    matrix.dtype = dtype;
    matrix.out = out;
    matrix.in = in;
    const bool int8 = dtype == DType::kQ8C;
    matrix.data = reinterpret_cast<const std::byte*>(int8 ? static_cast<const void*>(codes.data())
                                                          : floats.data());
    matrix.data_bytes = out * in * (int8 ? 1 : 4);
    if (int8) {
      matrix.scales = reinterpret_cast<const std::byte*>(scales.data());
      matrix.scales_bytes = out * sizeof(float);
    }
  }
  // Whoever reads it from now on gets no numbers.
  void Spoil() {
    std::fill(floats.begin(), floats.end(), kNaN);
    std::fill(scales.begin(), scales.end(), kNaN);  // XNNPACK refuses those
  }

  std::string name;
  std::vector<float> floats;
  std::vector<int8_t> codes;
  std::vector<float> scales;
  Matrix matrix;
};

// What packing and one run gave.
struct Outcome {
  Status status;
  std::vector<float> values;
  PackedCacheState state = PackedCacheState::kNone;
  uint64_t mapped_bytes = 0;
  uint64_t anonymous_bytes = 0;
  std::string note;
};

class PackedWeightsTest : public ::testing::Test {
 protected:
  // A small matrix shares a region with others, a large one has its own.
  enum Parts { kSmall = 1, kLarge = 2, kInt8 = 4, kAll = 7 };

  // A context whose packed weights are the three matrices; `use` sees it and the block.
  template <typename Use>
  static Status WithBlock(const ContainerReader& reader, const PackedCacheOptions& options,
                          int parts, bool spoiled, const Use& use) {
    std::vector<Weights> weights;
    if (parts & kSmall) weights.emplace_back("small", DType::kF32, 24, 40);
    if (parts & kLarge) weights.emplace_back("large", DType::kF32, 300, 280);
    if (parts & kInt8) weights.emplace_back("int8", DType::kQ8C, 700, 440);
    std::vector<LinearOp> ops;
    for (Weights& w : weights) {
      w.matrix.name = w.name;  // moved when the vector grew
      if (spoiled) w.Spoil();
      ops.push_back({LinearWeight::All(w.matrix), ops.size()});
    }
    ASSIGN_OR_RETURN(const std::unique_ptr<ThreadPool> pool, ThreadPool::Create(1));
    ASSIGN_OR_RETURN(auto packed, PackedWeights::Create(reader, "text", "stored", options));
    ASSIGN_OR_RETURN(const auto context, GraphContext::Create(*pool, std::move(packed)));
    ASSIGN_OR_RETURN(const auto block, LinearBlock::Create(*context, ops));
    context->packed_weights().Commit();
    return use(*context, *block, ops);
  }

  static Result<std::vector<float>> RunBlock(LinearBlock& block, const std::vector<LinearOp>& ops) {
    std::vector<AlignedBuffer<float>> buffers;
    std::vector<const float*> inputs;
    std::vector<float*> outputs;
    for (const LinearOp& op : ops) {
      ASSIGN_OR_RETURN(auto input, AlignedBuffer<float>::Create(op.weight.in));
      ASSIGN_OR_RETURN(auto output, AlignedBuffer<float>::Create(op.weight.out));
      for (size_t i = 0; i < op.weight.in; ++i) {
        input[i] = std::cos(static_cast<float>(i) * 0.11f);
      }
      inputs.push_back(input.data());
      outputs.push_back(output.data());
      buffers.push_back(std::move(input));
      buffers.push_back(std::move(output));
    }
    RETURN_IF_ERROR(block.Run(1, inputs, outputs, {}));
    std::vector<float> values;
    for (size_t i = 0; i < ops.size(); ++i) {
      values.insert(values.end(), outputs[i], outputs[i] + ops[i].weight.out);
    }
    return values;
  }

  static Outcome Pack(const ContainerReader& reader, const PackedCacheOptions& options,
                      int parts = kAll, bool spoiled = false) {
    Outcome outcome;
    outcome.status = WithBlock(
        reader, options, parts, spoiled,
        [&](GraphContext& context, LinearBlock& block, const std::vector<LinearOp>& ops) -> Status {
          ASSIGN_OR_RETURN(outcome.values, RunBlock(block, ops));
          const PackedCacheInfo info = context.packed_weights().info();
          outcome.state = info.state;
          outcome.mapped_bytes = info.mapped_bytes;
          outcome.anonymous_bytes = info.anonymous_bytes;
          outcome.note = info.note;
          return OkStatus();
        });
    return outcome;
  }

  void SetUp() override {
    ASSERT_TRUE(WriteTinyModel(model_.path(), {}).ok());
    OpenModel();
    folder_ = (fs::path(model_.path()).parent_path() / "cache").string();
    options_ = {.folder = folder_, .calls = &files_};
    const Outcome plain = Pack(*reader_, {.off = true});
    ASSERT_TRUE(plain.status.ok()) << plain.status.message();
    want_ = plain.values;
    ASSERT_THAT(want_, SizeIs(24 + 300 + 700));
    for (const float value : want_) ASSERT_TRUE(std::isfinite(value));
  }

  void OpenModel() {
    auto reader = ContainerReader::Open(model_.path());
    ASSERT_TRUE(reader.ok()) << reader.status().message();
    reader_ = std::move(reader).value();
  }

  Outcome Pack(int parts = kAll, bool spoiled = false) {
    return Pack(*reader_, options_, parts, spoiled);
  }
  // Packs with a file at hand, without the weights.
  Outcome PackSpoiled() { return Pack(kAll, /*spoiled=*/true); }

  void ExpectMade(const Outcome& outcome) {
    ASSERT_TRUE(outcome.status.ok()) << outcome.status.message();
    EXPECT_EQ(outcome.values, want_);
    EXPECT_EQ(outcome.state, PackedCacheState::kMade) << outcome.note;
    EXPECT_EQ(outcome.anonymous_bytes, 0u);
    EXPECT_EQ(outcome.note, "");
    // And the file is good.
    const Outcome again = PackSpoiled();
    ASSERT_TRUE(again.status.ok()) << again.status.message();
    EXPECT_EQ(again.values, want_);
    EXPECT_EQ(again.state, PackedCacheState::kUsed);
    EXPECT_EQ(again.anonymous_bytes, 0u);
    EXPECT_THAT(Files(), SizeIs(1));
  }

  // Right values from anonymous memory, and a reason; nothing is left in the folder.
  void ExpectFailed(const Outcome& outcome, const std::string& reason) {
    ASSERT_TRUE(outcome.status.ok()) << outcome.status.message();
    EXPECT_EQ(outcome.values, want_);
    EXPECT_EQ(outcome.state, PackedCacheState::kFailed);
    EXPECT_EQ(outcome.mapped_bytes, 0u);
    EXPECT_GT(outcome.anonymous_bytes, 0u);
    EXPECT_THAT(outcome.note, HasSubstr(reason));
    EXPECT_THAT(Files(), IsEmpty());
  }

  std::vector<std::string> Files() const {
    std::vector<std::string> names;
    std::error_code error;
    for (const auto& file : fs::directory_iterator(folder_, error)) {
      names.push_back(file.path().filename().string());
    }
    return names;
  }
  std::string OnlyFile() const {
    const std::vector<std::string> files = Files();
    EXPECT_THAT(files, SizeIs(1));
    return files.empty() ? "" : (fs::path(folder_) / files[0]).string();
  }

  // Runs `body` in a child; its exit status.
  template <typename Body>
  static int InChild(const Body& body) {
    const pid_t child = StartChild(body);
    int status = 0;
    EXPECT_EQ(waitpid(child, &status, 0), child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }
  template <typename Body>
  static pid_t StartChild(const Body& body) {
    const pid_t child = fork();
    if (child == 0) _exit(body());
    return child;
  }

  const testing::TemporaryPath model_;
  std::unique_ptr<ContainerReader> reader_;
  std::string folder_;
  FaultyFiles files_;
  PackedCacheOptions options_;
  std::vector<float> want_;
};

TEST_F(PackedWeightsTest, SecondTimeReadsTheFileAndNotTheWeights) {
  ExpectMade(Pack());
  EXPECT_THAT(OnlyFile(), HasSubstr("model.nest-"));
}

TEST_F(PackedWeightsTest, NothingIsWrittenUnlessAFolderIsGiven) {
  options_.folder.clear();
  const Outcome outcome = Pack();
  ASSERT_TRUE(outcome.status.ok()) << outcome.status.message();
  EXPECT_EQ(outcome.state, PackedCacheState::kNone);
  EXPECT_GT(outcome.anonymous_bytes, 0u);
  EXPECT_EQ(files_.num_writes(), 0);
}

TEST_F(PackedWeightsTest, FileBesideTheContainerIsUsedWithoutAFolder) {
  folder_ = fs::path(model_.path()).parent_path().string();
  options_.folder = folder_;
  ASSERT_EQ(Pack().state, PackedCacheState::kMade);
  options_.folder.clear();
  EXPECT_EQ(PackSpoiled().values, want_);
  // An app's folder comes first, but needs no second copy.
  options_.folder = folder_ + "/other";
  const Outcome outcome = PackSpoiled();
  EXPECT_EQ(outcome.values, want_);
  EXPECT_EQ(outcome.state, PackedCacheState::kUsed);
  EXPECT_FALSE(fs::exists(options_.folder));
}

TEST_F(PackedWeightsTest, PackedPagesAreTheFiles) {
  const Status status =
      WithBlock(*reader_, options_, kAll, false,
                [&](GraphContext& context, LinearBlock&, const std::vector<LinearOp>&) {
                  const PackedCacheInfo info = context.packed_weights().info();
                  EXPECT_EQ(info.anonymous_bytes, 0u);
                  EXPECT_GE(info.mapped_bytes, 4u * (24 * 40 + 300 * 280) + 700 * 440);
                  return OkStatus();
                });
  EXPECT_TRUE(status.ok()) << status.message();
}

TEST_F(PackedWeightsTest, TruncatedFileIsMadeAnew) {
  ASSERT_EQ(Pack().state, PackedCacheState::kMade);
  const testing::Bytes whole = testing::ReadAllBytes(OnlyFile());
  for (const size_t size :
       {size_t{0}, size_t{63}, size_t{64}, size_t{20000}, whole.size() / 2, whole.size() - 1}) {
    testing::Bytes part = whole;
    part.resize(size);
    testing::WriteAllBytes(OnlyFile(), part);
    ExpectMade(Pack());
  }
  testing::Bytes longer = whole;
  longer.push_back(std::byte{0});
  testing::WriteAllBytes(OnlyFile(), longer);
  ExpectMade(Pack());
}

TEST_F(PackedWeightsTest, DamagedByteIsFoundWhereverItIs) {
  ASSERT_EQ(Pack().state, PackedCacheState::kMade);
  const std::string path = OnlyFile();
  const testing::Bytes good = testing::ReadAllBytes(path);
  std::vector<size_t> places;
  for (size_t i = 0; i < 64; i += 3) places.push_back(i);                            // preamble
  for (size_t i = good.size() - 700; i < good.size(); i += 23) places.push_back(i);  // directory
  for (size_t i = 16384; i < good.size(); i += 150'001) places.push_back(i);         // weights
  for (const size_t place : places) {
    testing::Bytes bad = good;
    bad[place] ^= std::byte{0x10};
    testing::WriteAllBytes(path, bad);
    const Outcome outcome = Pack();
    ASSERT_TRUE(outcome.status.ok()) << place << ": " << outcome.status.message();
    ASSERT_EQ(outcome.values, want_) << place;
    // Between the entries nothing counts.
    ASSERT_TRUE(outcome.state == PackedCacheState::kMade ||
                (outcome.state == PackedCacheState::kUsed && place >= 16384))
        << place;
  }
}

TEST_F(PackedWeightsTest, DamageIsReportedWhereNoFileMayBeWritten) {
  folder_ = fs::path(model_.path()).parent_path().string();
  options_.folder = folder_;
  ASSERT_EQ(Pack().state, PackedCacheState::kMade);
  for (const auto& file : fs::directory_iterator(folder_)) {
    if (file.path().extension() == ".nestpack") fs::resize_file(file.path(), 30'000);
  }
  options_.folder.clear();
  const Outcome outcome = Pack();
  EXPECT_EQ(outcome.values, want_);
  EXPECT_EQ(outcome.state, PackedCacheState::kNone);
  EXPECT_THAT(outcome.note, HasSubstr("has 30000 bytes, wants "));
}

TEST_F(PackedWeightsTest, IntactFileThatSomebodyTouchedIsUsed) {
  ASSERT_EQ(Pack().state, PackedCacheState::kMade);
  const std::string path = OnlyFile();
  testing::WriteAllBytes(path, testing::ReadAllBytes(path));
  EXPECT_EQ(PackSpoiled().values, want_);
}

TEST_F(PackedWeightsTest, FileWithAnotherKeyIsStale) {
  ASSERT_EQ(Pack().state, PackedCacheState::kMade);
  const std::string path = OnlyFile();
  auto file = File::Open(path);
  ASSERT_TRUE(file.ok());
  const auto packed = PackedFile::Open(std::move(file).value());
  ASSERT_TRUE(packed.ok()) << packed.status().message();
  const PackedKey key = (*packed)->key();
  const auto family = ThisPackingFamily();
  ASSERT_TRUE(family.ok());
  EXPECT_EQ(key.cpu, family->cpu);
  EXPECT_EQ(key.content_hash, reader_->content_hash());

  std::vector<PackedKey> others(5, key);
  others[0].cpu += " avx1024";
  others[1].library = "xnnpack of tomorrow";
  others[2].layout ^= 1;
  others[3].content_hash ^= 1;
  others[4].compute = "f32";
  const std::vector<std::byte> zeros((*packed)->extents().size());
  for (const PackedKey& other : others) {
    auto writer = PackedFileWriter::Create(path, FileCalls::System());
    ASSERT_TRUE(writer.ok());
    ASSERT_TRUE((*writer)->AddExtent(zeros).ok());
    for (const PackedEntry& entry : (*packed)->entries()) (*writer)->AddEntry(entry);
    ASSERT_TRUE((*writer)->Finish(other).ok());
    ExpectMade(Pack());
  }
}

TEST_F(PackedWeightsTest, EntryThatIsTooSmallIsRefused) {
  ASSERT_EQ(Pack().state, PackedCacheState::kMade);
  const std::string path = OnlyFile();
  auto file = File::Open(path);
  ASSERT_TRUE(file.ok());
  const auto packed = PackedFile::Open(std::move(file).value());
  ASSERT_TRUE(packed.ok());
  auto writer = PackedFileWriter::Create(path, FileCalls::System());
  ASSERT_TRUE(writer.ok());
  ASSERT_TRUE((*writer)->AddExtent((*packed)->extents()).ok());
  for (PackedEntry entry : (*packed)->entries()) {
    entry.bytes = 64;
    (*writer)->AddEntry(entry);
  }
  ASSERT_TRUE((*writer)->Finish((*packed)->key()).ok());
  EXPECT_EQ(Pack().status.code(), StatusCode::kBadModel);
}

TEST_F(PackedWeightsTest, ShortAndInterruptedCallsHeal) {
  for (const auto fault : {FaultyFiles::kShort, FaultyFiles::kInterrupted}) {
    fs::remove_all(folder_);
    files_.Set(fault);
    ExpectMade(Pack());
  }
}

TEST_F(PackedWeightsTest, FailedWritesFallBackToMemoryWhereverTheyHappen) {
  ASSERT_EQ(Pack().state, PackedCacheState::kMade);
  const int num_writes = files_.num_writes();
  ASSERT_GE(num_writes, 4);
  for (int i = 0; i < num_writes; ++i) {
    for (const auto& [fault, reason] :
         {std::pair{FaultyFiles::kNoSpace, "No space left"},
          std::pair{FaultyFiles::kWriteError, "Input/output error"}}) {
      fs::remove_all(folder_);
      files_.Set(fault, i);
      ExpectFailed(Pack(), reason);
    }
  }
  files_.Set(FaultyFiles::kNone);
  ExpectMade(Pack());
}

TEST_F(PackedWeightsTest, FileThatCannotBeSyncedOrNamedIsNotKept) {
  files_.Set(FaultyFiles::kSyncError);
  ExpectFailed(Pack(), "cannot sync");
  files_.Set(FaultyFiles::kRenameError);
  ExpectFailed(Pack(), "cannot rename");
  files_.Set(FaultyFiles::kReadOnly);
  ExpectFailed(Pack(), "Read-only file system");
}

TEST_F(PackedWeightsTest, FolderThatIsAFileFallsBackToMemory) {
  testing::WriteAllBytes(folder_, {});
  const Outcome outcome = Pack();
  EXPECT_EQ(outcome.values, want_);
  EXPECT_EQ(outcome.state, PackedCacheState::kFailed);
}

TEST_F(PackedWeightsTest, UnreadableFileIsMadeAnew) {
  for (const auto fault : {FaultyFiles::kReadError, FaultyFiles::kReadEnd}) {
    files_.Set(FaultyFiles::kNone);
    ASSERT_EQ(Pack().values, want_);
    files_.Set(fault);
    const Outcome outcome = Pack();
    EXPECT_EQ(outcome.values, want_);
    EXPECT_EQ(outcome.state, PackedCacheState::kMade);
  }
}

TEST_F(PackedWeightsTest, WeightsThatCannotComeBackFromTheFileStayInIt) {
  // Nothing can be written any more, nor read: the first entry went to the file before.
  class LaterUnreadable : public FaultyFiles {
    int64_t Write(int fd, std::span<const std::byte> bytes, uint64_t offset) override {
      const int64_t written = FaultyFiles::Write(fd, bytes, offset);
      if (written < 0) Set(kReadError);
      return written;
    }
  } files;
  files.Set(FaultyFiles::kNoSpace, 1);
  options_.calls = &files;
  const Outcome outcome = Pack();
  ASSERT_TRUE(outcome.status.ok()) << outcome.status.message();
  EXPECT_EQ(outcome.values, want_);
  EXPECT_EQ(outcome.state, PackedCacheState::kFailed);
  EXPECT_THAT(Files(), IsEmpty());
}

TEST_F(PackedWeightsTest, FileThatIsDeletedOrReplacedWhileInUseStaysUsable) {
  ASSERT_EQ(Pack().state, PackedCacheState::kMade);
  const std::string path = OnlyFile();
  const testing::Bytes junk(100'000, std::byte{0x5a});
  const Status status = WithBlock(
      *reader_, options_, kAll, /*spoiled=*/true,
      [&](GraphContext& context, LinearBlock& block, const std::vector<LinearOp>& ops) -> Status {
        EXPECT_EQ(context.packed_weights().info().state, PackedCacheState::kUsed);
        fs::remove(path);
        ASSIGN_OR_RETURN(const std::vector<float> deleted, RunBlock(block, ops));
        EXPECT_EQ(deleted, want_);
        testing::WriteAllBytes(path + ".new", junk);
        fs::rename(path + ".new", path);
        ASSIGN_OR_RETURN(const std::vector<float> replaced, RunBlock(block, ops));
        EXPECT_EQ(replaced, want_);
        return OkStatus();
      });
  EXPECT_TRUE(status.ok()) << status.message();
  ExpectMade(Pack());
}

TEST_F(PackedWeightsTest, ProcessesThatMakeItAtOnceDoNotDisturbEachOther) {
  std::vector<pid_t> children;
  for (int i = 0; i < 4; ++i) {
    children.push_back(StartChild([&] {
      const Outcome outcome = Pack();
      const bool right = outcome.status.ok() && outcome.values == want_;
      return right && outcome.state != PackedCacheState::kFailed ? 0 : 1;
    }));
  }
  for (const pid_t child : children) {
    int status = 1;
    EXPECT_EQ(waitpid(child, &status, 0), child);
    EXPECT_EQ(status, 0);
  }
  EXPECT_EQ(PackSpoiled().values, want_);
  EXPECT_THAT(Files(), SizeIs(1));
}

TEST_F(PackedWeightsTest, KilledProcessLeavesNothingThatIsEverUsed) {
  ASSERT_EQ(Pack().state, PackedCacheState::kMade);
  const int num_writes = files_.num_writes();
  for (int i = 0; i < num_writes; ++i) {
    fs::remove_all(folder_);
    const int exit_status = InChild([&] {
      files_.Set(FaultyFiles::kKill, i);
      Pack();
      return 0;
    });
    ASSERT_EQ(exit_status, 9) << i;
    ASSERT_THAT(Files(), ElementsAre(HasSubstr(".tmp-")));
    ExpectMade(Pack());  // and the remains are gone
  }
}

TEST_F(PackedWeightsTest, FilesThatOthersAreWritingAreLeftAlone) {
  ASSERT_EQ(Pack().state, PackedCacheState::kMade);
  const std::string path = OnlyFile();
  fs::remove(path);
  const auto writer = AtomicFileWriter::Create(path);
  ASSERT_TRUE(writer.ok());
  ASSERT_EQ(Pack().state, PackedCacheState::kMade);
  EXPECT_THAT(Files(), SizeIs(2));
  ASSERT_TRUE((*writer)->Append({}).ok());
  EXPECT_TRUE((*writer)->Commit().ok());
}

TEST_F(PackedWeightsTest, FileGrowsByWhatWasMissing) {
  ASSERT_EQ(Pack(kSmall).state, PackedCacheState::kMade);
  ASSERT_EQ(Pack(kInt8).state, PackedCacheState::kMade);
  ExpectMade(Pack(kAll));
}

TEST_F(PackedWeightsTest, LaterPartsJoinTheFileOfARunningContext) {
  const Status status = WithBlock(
      *reader_, options_, kSmall | kLarge, false,
      [&](GraphContext& context, LinearBlock& block, const std::vector<LinearOp>& ops) -> Status {
        ASSIGN_OR_RETURN(const std::vector<float> before, RunBlock(block, ops));
        const Weights more("int8", DType::kQ8C, 700, 440);
        const LinearOp op = {LinearWeight::All(more.matrix), 0};
        ASSIGN_OR_RETURN(const auto second, LinearBlock::Create(context, std::span(&op, 1)));
        context.packed_weights().Commit();
        EXPECT_EQ(context.packed_weights().info().anonymous_bytes, 0u);
        ASSIGN_OR_RETURN(const std::vector<float> after, RunBlock(block, ops));
        EXPECT_EQ(after, before);
        return OkStatus();
      });
  ASSERT_TRUE(status.ok()) << status.message();
  EXPECT_EQ(PackSpoiled().values, want_);
}

TEST_F(PackedWeightsTest, FileOfTheModelsOldContentsIsRemoved) {
  ASSERT_EQ(Pack().state, PackedCacheState::kMade);
  const std::string old = OnlyFile();
  const std::string unrelated = (fs::path(folder_) / "other.nest-text-stored.nestpack").string();
  testing::WriteAllBytes(unrelated, {});
  testing::TinyModelOptions other;
  other.seed = 2;
  ASSERT_TRUE(WriteTinyModel(model_.path(), other).ok());
  OpenModel();
  ASSERT_EQ(Pack().state, PackedCacheState::kMade);
  EXPECT_FALSE(fs::exists(old));
  EXPECT_TRUE(fs::exists(unrelated));
  EXPECT_THAT(Files(), SizeIs(2));
}

TEST_F(PackedWeightsTest, DamagedEntryIsNamedByVerifyPayload) {
  ASSERT_EQ(Pack().state, PackedCacheState::kMade);
  const std::string path = OnlyFile();
  auto file = File::Open(path);
  ASSERT_TRUE(file.ok());
  const auto packed = PackedFile::Open(std::move(file).value());
  ASSERT_TRUE(packed.ok()) << packed.status().message();
  uint64_t last = 0;
  const Status good = (*packed)->VerifyPayload([&](uint64_t done, uint64_t) { last = done; });
  EXPECT_TRUE(good.ok()) << good.message();
  EXPECT_EQ(last, (*packed)->payload_bytes());
}

}  // namespace
}  // namespace nestling
