// SPDX-License-Identifier: Apache-2.0
// One test per kind of damage. All but the first group have a valid header checksum: whoever makes
// a hostile file can compute one.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <functional>
#include <limits>
#include <random>

#include "container/reader.h"
#include "tests/container/small_container.h"

namespace nestling {
namespace {

using ::testing::AllOf;
using testing::Bytes;
using testing::EditHeader;
using testing::GetPreamble;
using ::testing::HasSubstr;
using testing::OpenBytes;
using testing::SetPreamble;
using testing::SmallContainer;
using testing::TemporaryPath;

constexpr uint64_t kHuge = std::numeric_limits<uint64_t>::max();

// The small container under a name, changed in place: thousands of openings without rewriting it.
class FileOnDisk {
 public:
  explicit FileOnDisk(const Bytes& bytes) {
    testing::WriteAllBytes(temporary_.path(), bytes);
    fd_ = open(temporary_.path().c_str(), O_RDWR | O_CLOEXEC);
  }
  ~FileOnDisk() { close(fd_); }
  void Write(size_t offset, const std::byte* bytes, size_t size) {
    ASSERT_EQ(pwrite(fd_, bytes, size, static_cast<off_t>(offset)), static_cast<ssize_t>(size));
  }
  void Truncate(size_t bytes) { ASSERT_EQ(ftruncate(fd_, static_cast<off_t>(bytes)), 0); }
  Status Open() const { return ContainerReader::Open(temporary_.path()).status(); }

 private:
  TemporaryPath temporary_;
  int fd_;
};

TEST(CorruptionTest, TheUndamagedFileOpens) {
  const Bytes file = SmallContainer();
  ASSERT_FALSE(file.empty());
  const Status status = OpenBytes(file);
  EXPECT_TRUE(status.ok()) << status.message();
}

TEST(CorruptionTest, AFileCutOffAnywhereIsTruncated) {
  const Bytes file = SmallContainer();
  FileOnDisk disk(file);
  for (size_t size = file.size(); size-- > 0;) {
    disk.Truncate(size);
    const Status status = disk.Open();
    ASSERT_EQ(status.code(), StatusCode::kBadModel) << "at " << size;
    ASSERT_THAT(status.message(), HasSubstr("truncated: has " + std::to_string(size)));
  }
}

TEST(CorruptionTest, ACutFileThatClaimsToBeWholeIsRefused) {
  const Bytes file = SmallContainer();
  FileOnDisk disk(file);
  const size_t header_end = sizeof(Preamble) + GetPreamble(file).header_bytes;
  for (size_t size = file.size() - 1; size >= sizeof(Preamble);
       size -= size > header_end ? 61 : 1) {
    Preamble preamble = GetPreamble(file);
    preamble.file_bytes = size;
    disk.Write(0, reinterpret_cast<const std::byte*>(&preamble), sizeof preamble);
    disk.Truncate(size);
    ASSERT_EQ(disk.Open().code(), StatusCode::kBadModel) << "at " << size;
  }
}

TEST(CorruptionTest, BytesAfterTheEndAreRefused) {
  Bytes file = SmallContainer();
  file.push_back(std::byte{0});
  EXPECT_EQ(OpenBytes(file).code(), StatusCode::kBadModel);
}

TEST(CorruptionTest, EveryFlippedBitOfPreambleAndHeaderIsNoticed) {
  const Bytes file = SmallContainer();
  FileOnDisk disk(file);
  const size_t header_end = sizeof(Preamble) + GetPreamble(file).header_bytes;
  for (size_t i = 0; i < header_end; ++i) {
    if (i == 6 || i == 7) continue;  // the minor version: a newer one is accepted
    for (int bit = 0; bit < 8; ++bit) {
      const std::byte flipped = file[i] ^ static_cast<std::byte>(1 << bit);
      disk.Write(i, &flipped, 1);
      const Status status = disk.Open();
      ASSERT_FALSE(status.ok()) << "byte " << i << " bit " << bit;
      ASSERT_FALSE(status.message().empty());
    }
    disk.Write(i, &file[i], 1);
  }
  EXPECT_TRUE(disk.Open().ok());
}

TEST(CorruptionTest, AnEmptyFileIsTruncated) {
  const Status status = OpenBytes({});
  EXPECT_EQ(status.code(), StatusCode::kBadModel);
  EXPECT_THAT(status.message(), HasSubstr("has 0 bytes"));
}

TEST(CorruptionTest, RandomBytesAreNotAContainer) {
  std::mt19937_64 random(7);
  for (int round = 0; round < 200; ++round) {
    Bytes file(random() % 3000);
    for (std::byte& byte : file) byte = static_cast<std::byte>(random());
    EXPECT_EQ(OpenBytes(file).code(), StatusCode::kBadModel);
  }
}

TEST(CorruptionTest, RandomBytesAsAHeaderAreRefused) {
  std::mt19937_64 random(8);
  for (int round = 0; round < 500; ++round) {
    Bytes header(1 + random() % 2000);
    for (std::byte& byte : header) byte = static_cast<std::byte>(random());
    if (header.size() >= 8 && round % 2 == 0) {  // half of them with the right identifier
      const char identifier[] = {'N', 'S', 'T', 'H'};
      std::memcpy(header.data() + 4, identifier, 4);
    }
    Bytes file(sizeof(Preamble) + 4096);
    SetPreamble(Preamble{}, &file);
    testing::ReplaceHeader(header, &file);
    EXPECT_EQ(OpenBytes(file).code(), StatusCode::kBadModel);
  }
}

TEST(CorruptionTest, AnotherFormatIsNamedByItsFirstBytes) {
  Bytes file = SmallContainer();
  const char magic[] = {'G', 'G', 'U', 'F'};
  std::memcpy(file.data(), magic, 4);
  const Status status = OpenBytes(file);
  EXPECT_EQ(status.code(), StatusCode::kBadModel);
  EXPECT_THAT(status.message(), HasSubstr("GGUF"));
}

TEST(CorruptionTest, AnotherMajorVersionIsUnsupportedAndBothAreSaid) {
  for (const uint16_t major : {0, 2, 65535}) {
    Bytes file = SmallContainer();
    Preamble preamble = GetPreamble(file);
    preamble.version_major = major;
    preamble.version_minor = 3;
    SetPreamble(preamble, &file);
    const Status status = OpenBytes(file);
    EXPECT_EQ(status.code(), StatusCode::kUnsupported);
    EXPECT_THAT(status.message(), AllOf(HasSubstr(std::to_string(major) + ".3"), HasSubstr("1.1")));
  }
}

TEST(CorruptionTest, HostileHeaderLengthsAreRefusedBeforeAnythingIsAllocated) {
  Bytes file = SmallContainer();
  for (const uint64_t bytes : {uint64_t{0}, uint64_t{file.size() - sizeof(Preamble) + 1},
                               kMaxHeaderBytes + 1, uint64_t{1} << 62, kHuge}) {
    Preamble preamble = GetPreamble(file);
    preamble.header_bytes = bytes;
    SetPreamble(preamble, &file);
    const Status status = OpenBytes(file);
    EXPECT_EQ(status.code(), StatusCode::kBadModel);
    EXPECT_THAT(status.message(), HasSubstr("header of " + std::to_string(bytes)));
  }
}

TEST(CorruptionTest, AHeaderOfAnotherFlatbufferSchemaIsRefused) {
  Bytes file = SmallContainer();
  file[sizeof(Preamble) + 4] = std::byte{'X'};  // the file identifier
  testing::Reseal(&file);
  EXPECT_EQ(OpenBytes(file).code(), StatusCode::kBadModel);
}

struct Damage {
  const char* said;
  std::function<void(ContainerHeader&)> edit;
};

void ExpectRefused(std::initializer_list<Damage> cases, DType dtype = DType::kQ8C) {
  const Bytes good = SmallContainer(dtype);
  for (const Damage& c : cases) {
    Bytes file = good;
    EditHeader(c.edit, &file);
    const Status status = OpenBytes(file);
    EXPECT_EQ(status.code(), StatusCode::kBadModel) << "case " << &c - cases.begin();
    EXPECT_THAT(status.message(), HasSubstr(c.said));
  }
}

TensorInfo& Find(ContainerHeader& header, const std::string& name) {
  for (TensorInfo& tensor : header.tensors) {
    if (tensor.name == name) return tensor;
  }
  ADD_FAILURE() << name;
  return header.tensors[0];
}

TEST(CorruptionTest, SectionsMustLieApartAndInsideTheFile) {
  ExpectRefused({
      {"TEXT: offset", [](ContainerHeader& h) { h.sections[0].offset += 4096; }},
      {"TEXT: ", [](ContainerHeader& h) { h.sections[0].offset = 0; }},  // on the preamble
      {"within", [](ContainerHeader& h) { h.sections[3].bytes += 1; }},
      {"within", [](ContainerHeader& h) { h.sections[3].offset += 1 << 20; }},
      {"within", [](ContainerHeader& h) { h.sections[3].offset = kHuge - kSectionAlignment + 1; }},
      {"within", [](ContainerHeader& h) { h.sections[1].bytes = kHuge; }},
      // offset + bytes wraps around to a small number.
      {"within",
       [](ContainerHeader& h) { h.sections[1].bytes = kHuge - h.sections[1].offset + 2; }},
      {"empty", [](ContainerHeader& h) { h.sections[1].bytes = 0; }},
      {"overlap", [](ContainerHeader& h) { h.sections[1].offset = h.sections[0].offset; }},
      {"overlap",
       [](ContainerHeader& h) {
         h.sections[0].bytes = h.sections[1].offset - h.sections[0].offset + 1;
       }},
      {"there are two", [](ContainerHeader& h) { h.sections[2].kind = SectionKind::kText; }},
      {"section kind 9", [](ContainerHeader& h) { h.sections[2].kind = SectionKind(9); }},
      {"does not have", [](ContainerHeader& h) { h.sections.erase(h.sections.begin()); }},
      {"sections: 65", [](ContainerHeader& h) { h.sections.resize(65, h.sections[0]); }},
  });
}

TEST(CorruptionTest, TensorsMustLieApartAndInsideTheirSection) {
  ExpectRefused({
      {"offset of elements: 65", [](ContainerHeader& h) { h.tensors[3].offset = 65; }},
      {"offset of scales", [](ContainerHeader& h) { Find(h, "embed_tokens").scales_offset = 8; }},
      {"but section EMBED has",
       [](ContainerHeader& h) { Find(h, "embed_tokens").offset = 1 << 20; }},
      {"but section EMBED has",
       [](ContainerHeader& h) { Find(h, "embed_tokens").offset = kHuge - 63; }},
      {"but section EMBED has",
       [](ContainerHeader& h) { Find(h, "embed_tokens").scales_offset = kHuge - 63; }},
      // Its bytes begin inside the section and end after it.
      {"but section EMBED has", [](ContainerHeader& h) { Find(h, "embed_tokens").offset = 512; }},
      {"overlap", [](ContainerHeader& h) { Find(h, "embed_tokens").scales_offset = 0; }},
      {"overlap",
       [](ContainerHeader& h) {
         Find(h, "layers.0.mlp.up_proj").offset = Find(h, "layers.0.mlp.gate_proj").offset;
       }},
      {"overlap",
       [](ContainerHeader& h) {
         Find(h, "layers.0.mlp.up_proj").scales_offset = Find(h, "layers.0.mlp.down_proj").offset;
       }},
      {"holds no tensors",
       [](ContainerHeader& h) { h.tensors[0].section = SectionKind::kTokenizer; }},
      {"does not have", [](ContainerHeader& h) { h.tensors[0].section = SectionKind::kVision; }},
      {"section 9", [](ContainerHeader& h) { h.tensors[0].section = SectionKind(9); }},
  });
}

TEST(CorruptionTest, ShapesTypesAndSizesMustAgree) {
  ExpectRefused({
      {"\"embed_tokens\": 1025 bytes of elements",
       [](ContainerHeader& h) { Find(h, "embed_tokens").bytes += 1; }},
      {"bytes of elements", [](ContainerHeader& h) { Find(h, "embed_tokens").shape[0] = 33; }},
      {"bytes of elements", [](ContainerHeader& h) { Find(h, "embed_tokens").shape[1] = 31; }},
      {"may be zero", [](ContainerHeader& h) { Find(h, "embed_tokens").shape[1] = 0; }},
      {"rank 0", [](ContainerHeader& h) { Find(h, "embed_tokens").shape.clear(); }},
      {"shape: 9", [](ContainerHeader& h) { Find(h, "embed_tokens").shape.resize(9, 1); }},
      {"too large",
       [](ContainerHeader& h) {
         Find(h, "embed_tokens").shape = {uint64_t{1} << 32, uint64_t{1} << 32};
       }},
      // The product wraps around to the right number of elements.
      {"too large",
       [](ContainerHeader& h) {
         Find(h, "embed_tokens").shape = {1024, (uint64_t{1} << 54) + 1};
       }},
      {"bytes of elements",
       [](ContainerHeader& h) { Find(h, "embed_tokens").dtype = DType::kF32; }},
      {"bytes of elements",
       [](ContainerHeader& h) { Find(h, "embed_tokens").dtype = DType::kQ4C; }},
      {"bytes of scales", [](ContainerHeader& h) { Find(h, "embed_tokens").scales_bytes = 0; }},
      {"bytes of scales", [](ContainerHeader& h) { Find(h, "embed_tokens").scales_bytes = kHuge; }},
      {"bytes of scales", [](ContainerHeader& h) { Find(h, "norm").scales_bytes = 4; }},
      {"bytes of scales",
       [](ContainerHeader& h) { Find(h, "layers.0.mlp.down_proj").scales_bytes -= 4; }},
      {"bytes of scales",
       [](ContainerHeader& h) { Find(h, "layers.0.mlp.down_proj").scales_bytes = 0; }},
      {"needs a matrix", [](ContainerHeader& h) { Find(h, "norm").dtype = DType::kQ8C; }},
      {"PLE rows need",
       [](ContainerHeader& h) { Find(h, "embed_tokens").layout = Layout::kPleRows; }},
      {"element type 6", [](ContainerHeader& h) { h.tensors[4].dtype = DType(6); }},
      {"element type 255", [](ContainerHeader& h) { h.tensors[4].dtype = DType(255); }},
      {"layout 7", [](ContainerHeader& h) { h.tensors[4].layout = nestling::Layout(7); }},
  });
}

TEST(CorruptionTest, PackedTensorsMustBelongToAPackedSectionOfTheirOwn) {
  const Bytes good = testing::PackedContainer();
  ASSERT_TRUE(OpenBytes(good).ok()) << OpenBytes(good).message();
  const auto drop = [](ContainerHeader& h, SectionKind kind) {
    std::erase_if(h.sections, [&](const SectionInfo& section) { return section.kind == kind; });
  };
  constexpr const char* kPacked = "layers.0.mlp.gate_proj";
  const Damage cases[] = {
      {"PACKED_TEXT has 0", [&](ContainerHeader& h) { drop(h, SectionKind::kPackedText); }},
      {"section TEXT, which", [&](ContainerHeader& h) { drop(h, SectionKind::kText); }},
      {"PACKED_AUDIO without AUDIO",
       [](ContainerHeader& h) {
         for (SectionInfo& section : h.sections) {
           if (section.kind == SectionKind::kTokenizer) section.kind = SectionKind::kPackedAudio;
         }
       }},
      {"bytes of elements, want 0", [&](ContainerHeader& h) { Find(h, kPacked).bytes = 64; }},
      {"bytes of scales, want 0", [&](ContainerHeader& h) { Find(h, kPacked).scales_bytes = 4; }},
      {"may be zero", [&](ContainerHeader& h) { Find(h, kPacked).shape[0] = 0; }},
      {"too large",
       [&](ContainerHeader& h) {
         Find(h, kPacked).shape = {kHuge, 2};
       }},
      // More than the packed section can hold.
      {"but section PACKED_TEXT has",
       [&](ContainerHeader& h) {
         Find(h, kPacked).shape = {1 << 16, 1 << 16};
       }},
      {"packed tensors in section EMBED",
       [&](ContainerHeader& h) { Find(h, kPacked).section = SectionKind::kEmbed; }},
      {"holds no tensors",
       [&](ContainerHeader& h) { Find(h, kPacked).section = SectionKind::kPackedText; }},
  };
  for (const Damage& c : cases) {
    Bytes file = good;
    EditHeader(c.edit, &file);
    const Status status = OpenBytes(file);
    EXPECT_EQ(status.code(), StatusCode::kBadModel) << c.said;
    EXPECT_THAT(status.message(), HasSubstr(c.said));
  }
}

TEST(CorruptionTest, FourBitRowsMustBeWholeBytesAndBlocks) {
  ExpectRefused({{"blocks of 32",
                  [](ContainerHeader& h) {
                    Find(h, "embed_tokens").shape = {64, 16};
                  }},
                 {"q4b32 needs a multiple",
                  [](ContainerHeader& h) { Find(h, "embed_tokens_per_layer").shape[2] = 16; }}},
                DType::kQ4B32);
  ExpectRefused(
      {{"even number", [](ContainerHeader& h) { Find(h, "embed_tokens").shape[1] = 33; }}},
      DType::kQ4C);
}

TEST(CorruptionTest, TensorNamesMustBeUniqueAndPrintable) {
  ExpectRefused({
      {"there are two", [](ContainerHeader& h) { h.tensors[7].name = h.tensors[3].name; }},
      {"printable", [](ContainerHeader& h) { h.tensors[7].name = ""; }},
      {"printable", [](ContainerHeader& h) { h.tensors[7].name = "a\nb"; }},
      {"printable", [](ContainerHeader& h) { h.tensors[7].name = "a\xff"; }},
      {"tensor name: 257", [](ContainerHeader& h) { h.tensors[7].name.assign(257, 'x'); }},
  });
}

TEST(CorruptionTest, OversizedCountsAreRefused) {
  // Beyond the room that the file has for its header: move the sections' bytes out of the way.
  const auto open_with = [](const std::function<void(ContainerHeader&)>& edit) {
    Bytes file = SmallContainer();
    ContainerHeader header;
    EditHeader([&](ContainerHeader& h) { header = h; }, &file);
    edit(header);
    const Bytes encoded = EncodeHeader(header);
    file.resize(sizeof(Preamble) + encoded.size() + 100);
    testing::ReplaceHeader(encoded, &file);
    return OpenBytes(file);
  };
  const Damage cases[] = {
      {"tensors: 65537", [](ContainerHeader& h) { h.tensors.resize(65537, h.tensors[0]); }},
      {"layers: 1025",
       [](ContainerHeader& h) { h.fields.text.layers.resize(1025, h.fields.text.layers[0]); }},
      {"shell_ends: 65",
       [](ContainerHeader& h) { h.fields.text.layers[0].shell_ends.resize(65, 1); }},
      {"slices: 257", [](ContainerHeader& h) { h.fields.slices.resize(257, h.fields.slices[0]); }},
      {"skip_layers: 1025",
       [](ContainerHeader& h) { h.fields.slices[0].skip_layers.resize(1025); }},
      {"ffn: 5000", [](ContainerHeader& h) { h.fields.slices[0].ffn.resize(5000); }},
      {"stop_tokens: 1025",
       [](ContainerHeader& h) { h.fields.generation.stop_tokens.resize(1025); }},
      {"chat_template: ",
       [](ContainerHeader& h) { h.fields.chat_template.assign((4 << 20) + 1, 'x'); }},
      {"config_json: ",
       [](ContainerHeader& h) {
         h.fields.vision.present = true;
         h.fields.vision.config_json.assign((4 << 20) + 1, 'x');
       }},
      // More tables than a verifier should walk.
      {"valid flatbuffer", [](ContainerHeader& h) { h.tensors.resize(140000, h.tensors[0]); }},
  };
  for (const Damage& c : cases) {
    const Status status = open_with(c.edit);
    EXPECT_EQ(status.code(), StatusCode::kBadModel);
    EXPECT_THAT(status.message(), HasSubstr(c.said));
  }
}

TEST(CorruptionTest, InvalidConfigurationsAreRefusedAtOpening) {
  ExpectRefused({
      {"head_dim", [](ContainerHeader& h) { h.fields.text.head_dim = 7; }},
      {"num_kv_shared_layers", [](ContainerHeader& h) { h.fields.text.num_kv_shared_layers = 3; }},
      {"layer 0: type 2", [](ContainerHeader& h) { h.fields.text.layers[0].type = LayerType(2); }},
      {"not on a shell boundary", [](ContainerHeader& h) { h.fields.slices[0].ffn[1] = 48; }},
      {"owns keys and values", [](ContainerHeader& h) { h.fields.slices[0].skip_layers = {1}; }},
  });
}

}  // namespace
}  // namespace nestling
