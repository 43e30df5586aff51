// SPDX-License-Identifier: Apache-2.0
// Deterministic, structure-aware mutations of a container whose checksum is made valid again, so
// that they reach the code behind it. Whatever opens must be safe to use; run it with the
// sanitizer presets.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <iterator>
#include <random>
#include <vector>

#include "container/packed_file.h"
#include "container/reader.h"
#include "model/weights.h"
#include "tests/container/small_container.h"

namespace nestling {
namespace {

using testing::Bytes;
using testing::GetPreamble;
using testing::SmallContainer;
using testing::TemporaryPath;

class Mutator {
 public:
  explicit Mutator(uint64_t seed) : random_(seed) {}

  uint64_t Below(uint64_t limit) { return random_() % limit; }

  // Numbers at which arithmetic goes wrong, and neighbours of the one that is there.
  uint64_t Number(uint64_t old) {
    constexpr uint64_t kEdges[] = {0,
                                   1,
                                   63,
                                   64,
                                   16384,
                                   0x7fffffff,
                                   0x80000000,
                                   0xffffffff,
                                   0x100000000,
                                   0x7fffffffffffffff,
                                   0x8000000000000000,
                                   0xffffffffffffffc0,
                                   0xffffffffffffffff};
    switch (Below(6)) {
      case 0:
        return kEdges[Below(std::size(kEdges))];
      case 1:
        return old + Below(130) - 65;
      case 2:
        return old * (1 + Below(4)) / (1 + Below(4));
      case 3:
        return old ^ (uint64_t{1} << Below(64));
      case 4:
        return old + (Below(9) - 4) * 64;
      default:
        return random_();
    }
  }

  template <typename T>
  void Change(T* value) {
    *value = static_cast<T>(Number(static_cast<uint64_t>(*value)));
  }
  void Change(float* value) {
    const uint32_t bits = static_cast<uint32_t>(random_());
    if (Below(2) == 0) {
      std::memcpy(value, &bits, sizeof bits);
    } else {
      *value = *value * static_cast<float>(Below(5)) - static_cast<float>(Below(3));
    }
  }
  template <typename T>
  void Change(std::vector<T>* values) {
    const uint64_t what = Below(8);
    if (what == 0 && !values->empty()) {
      values->pop_back();
    } else if (what == 1 && !values->empty()) {
      values->push_back(values->back());
    } else if (what == 2) {
      values->clear();
    } else if (!values->empty()) {
      Change(&(*values)[Below(values->size())]);
    }
  }
  void Change(std::string* text) {
    if (text->empty() || Below(4) == 0) {
      text->push_back(static_cast<char>(Below(256)));
    } else {
      (*text)[Below(text->size())] = static_cast<char>(Below(256));
    }
  }

  void Change(SectionInfo* section) {
    switch (Below(3)) {
      case 0:
        return ChangeEnum(&section->kind);
      case 1:
        return Change(&section->offset);
      default:
        return Change(&section->bytes);
    }
  }
  void Change(TensorInfo* tensor) {
    switch (Below(9)) {
      case 0:
        return Change(&tensor->name);
      case 1:
        return ChangeEnum(&tensor->section);
      case 2:
        return ChangeEnum(&tensor->dtype);
      case 3:
        return ChangeEnum(&tensor->layout);
      case 4:
        return Change(&tensor->shape);
      case 5:
        return Change(&tensor->offset);
      case 6:
        return Change(&tensor->bytes);
      case 7:
        return Change(&tensor->scales_offset);
      default:
        return Change(&tensor->scales_bytes);
    }
  }
  void Change(LayerConfig* layer) {
    switch (Below(3)) {
      case 0:
        return ChangeEnum(&layer->type);
      case 1:
        return Change(&layer->activation_sparsity);
      default:
        return Change(&layer->shell_ends);
    }
  }
  void Change(SliceConfig* slice) {
    switch (Below(4)) {
      case 0:
        return Change(&slice->name);
      case 1:
        return Change(&slice->skip_layers);
      case 2:
        return Change(&slice->ffn);
      default:
        return Change(&slice->published_accuracy);
    }
  }
  void Change(HeaderFields* f) {
    TextConfig& t = f->text;
    uint32_t* const sizes[] = {&t.vocab_size,       &t.ple_vocab_size,
                               &t.hidden_size,      &t.ple_dim,
                               &t.num_heads,        &t.num_kv_heads,
                               &t.head_dim,         &t.num_kv_shared_layers,
                               &t.sliding_window,   &t.max_position_embeddings,
                               &t.altup_num_inputs, &t.altup_active_idx,
                               &t.laurel_rank};
    float* const reals[] = {&t.rope_theta_full,   &t.rope_theta_sliding,
                            &t.rms_norm_eps,      &t.final_logit_softcap,
                            &f->generation.top_p, &f->generation.temperature};
    switch (Below(8)) {
      case 0:
      case 1:
        return Change(sizes[Below(std::size(sizes))]);
      case 2:
        return Change(reals[Below(std::size(reals))]);
      case 3:
        return Change(&t.layers[Below(t.layers.size())]);
      case 4:
        return Change(&f->slices[Below(f->slices.size())]);
      case 5:
        return Change(&f->generation.stop_tokens);
      case 6:
        return Change(&f->special_tokens.image_soft);
      default:
        f->vision.present = true;
        Change(&f->vision.vocab_offset);
        return Change(&f->vision.vocab_size);
    }
  }
  void Change(ContainerHeader* header) {
    switch (Below(6)) {
      case 0:
        return Change(&header->fields);
      case 1:
        return Change(&header->sections[Below(header->sections.size())]);
      case 2: {
        const size_t i = Below(header->tensors.size());
        if (Below(2) == 0) {
          header->tensors.erase(header->tensors.begin() + static_cast<ptrdiff_t>(i));
        } else {
          std::swap(header->tensors[i], header->tensors[Below(header->tensors.size())]);
          header->tensors[i].name.swap(header->tensors[Below(header->tensors.size())].name);
        }
        return;
      }
      default:
        return Change(&header->tensors[Below(header->tensors.size())]);
    }
  }

  // Blind changes of the flatbuffer's bytes.
  void ChangeBytes(std::byte* begin, size_t size) {
    for (uint64_t n = 1 + Below(4); n > 0; --n) {
      const size_t at = Below(size);
      switch (Below(3)) {
        case 0:
          begin[at] ^= static_cast<std::byte>(1u << Below(8));
          break;
        case 1:
          begin[at] = static_cast<std::byte>(Below(256));
          break;
        default: {  // an offset or a count: four aligned bytes
          const size_t word = at / 4 * 4;
          if (word + 4 > size) break;
          uint32_t value = 0;
          std::memcpy(&value, begin + word, 4);
          value = static_cast<uint32_t>(Number(value));
          std::memcpy(begin + word, &value, 4);
        }
      }
    }
  }

 private:
  template <typename E>
  void ChangeEnum(E* value) {
    *value = static_cast<E>(Below(4) == 0 ? Below(256) : Below(7));
  }

  std::mt19937_64 random_;
};

// Keeps the compiler from leaving out reads.
volatile uint64_t sink;

// Whether it opened. Uses everything that a container which opened offers.
bool OpenAndUse(const std::string& path) {
  auto reader = ContainerReader::Open(path);
  if (!reader.ok()) {
    EXPECT_FALSE(reader.status().message().empty());
    return false;
  }
  uint64_t sum = 0;
  for (const SectionInfo& section : (*reader)->sections()) {
    auto mapped = (*reader)->MapSection(section.kind);
    EXPECT_TRUE(mapped.ok());
    for (const PackedPart& part : kPackedParts) {
      if (part.packed != section.kind) continue;
      const auto packed = PackedFile::OpenSection(**reader, part);
      if (packed.ok()) static_cast<void>((*packed)->VerifyPayload());
    }
    for (const TensorInfo& tensor : (*reader)->tensors()) {
      if (tensor.section != section.kind || tensor.layout == Layout::kPacked) continue;
      const auto elements = mapped->bytes().subspan(tensor.offset, tensor.bytes);
      sum +=
          std::to_integer<uint64_t>(elements.front()) + std::to_integer<uint64_t>(elements.back());
      if (tensor.scales_bytes == 0) continue;
      const auto scales = mapped->bytes().subspan(tensor.scales_offset, tensor.scales_bytes);
      sum += std::to_integer<uint64_t>(scales.front()) + std::to_integer<uint64_t>(scales.back());
    }
  }
  static_cast<void>(VerifyContainer(**reader, {}));
  auto weights = ModelWeights::Create(**reader);
  if (weights.ok()) {
    for (const TensorInfo& tensor : (*reader)->tensors()) {
      const auto matrix = (*weights)->GetMatrix(tensor.name);
      if (matrix.ok() && RequireStored(*matrix).ok()) sum += DequantizeAll(*matrix).size();
      const auto vector = (*weights)->GetVector(tensor.name);
      if (vector.ok()) sum += vector->back() > 0 ? 1 : 0;
    }
  }
  sink = sum;
  return true;
}

struct MutationCase {
  const char* name;
  DType dtype;
  bool tiles;
  bool packed = false;
};

class MutationTest : public ::testing::TestWithParam<MutationCase> {
 protected:
  void SetUp() override {
    file_ = GetParam().packed ? testing::PackedContainer()
                              : SmallContainer(GetParam().dtype, GetParam().tiles);
    ASSERT_FALSE(file_.empty());
    testing::WriteAllBytes(temporary_.path(), file_);
    fd_ = open(temporary_.path().c_str(), O_WRONLY | O_CLOEXEC);
    ASSERT_GE(fd_, 0);
    room_ = kSectionAlignment * (1 + (GetPreamble(file_).header_bytes + 32) / kSectionAlignment);
    ASSERT_TRUE(OpenAndUse(temporary_.path()));
  }
  void TearDown() override { close(fd_); }

  // Writes the part before the sections of `changed`; true if it still opens.
  bool Try(const Bytes& changed) {
    EXPECT_EQ(pwrite(fd_, changed.data(), room_, 0), static_cast<ssize_t>(room_));
    return OpenAndUse(temporary_.path());
  }

  TemporaryPath temporary_;
  Bytes file_;
  size_t room_ = 0;
  int fd_ = -1;
};

TEST_P(MutationTest, ChangedFieldsNeverCrash) {
  Mutator mutator(11 + static_cast<uint64_t>(GetParam().dtype));
  int opened = 0;
  for (int round = 0; round < 1500; ++round) {
    SCOPED_TRACE(round);
    Bytes changed = file_;
    testing::EditHeader(
        [&](ContainerHeader& header) {
          for (uint64_t n = 1 + mutator.Below(2); n > 0; --n) mutator.Change(&header);
        },
        &changed);
    opened += Try(changed) ? 1 : 0;
    ASSERT_FALSE(HasFailure());
  }
  // Mutations that are all refused at the door, or all harmless, would test nothing.
  EXPECT_GT(opened, 20);
  EXPECT_LT(opened, 1000);
}

TEST_P(MutationTest, ChangedBytesNeverCrash) {
  Mutator mutator(23 + static_cast<uint64_t>(GetParam().dtype));
  int opened = 0;
  for (int round = 0; round < 3000; ++round) {
    SCOPED_TRACE(round);
    Bytes changed = file_;
    mutator.ChangeBytes(changed.data() + sizeof(Preamble), GetPreamble(file_).header_bytes);
    testing::Reseal(&changed);
    opened += Try(changed) ? 1 : 0;
    ASSERT_FALSE(HasFailure());
  }
  EXPECT_GT(opened, 20);
  EXPECT_LT(opened, 2500);
}

INSTANTIATE_TEST_SUITE_P(DTypes, MutationTest,
                         ::testing::Values(MutationCase{"f32", DType::kF32, false},
                                           MutationCase{"q8c", DType::kQ8C, false},
                                           MutationCase{"q4c", DType::kQ4C, false},
                                           MutationCase{"q4b32", DType::kQ4B32, false},
                                           MutationCase{"q8c_tiles", DType::kQ8C, true},
                                           MutationCase{"q4c_tiles", DType::kQ4C, true},
                                           MutationCase{"q4b32_tiles", DType::kQ4B32, true},
                                           MutationCase{"packed", DType::kF32, false, true}),
                         [](const auto& test) { return std::string(test.param.name); });

}  // namespace
}  // namespace nestling
