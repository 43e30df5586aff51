// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <xnnpack.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/file.h"
#include "base/file_calls.h"
#include "base/function_ref.h"
#include "base/lazy_memory.h"
#include "base/math.h"
#include "base/status.h"
#include "container/packed_file.h"
#include "container/reader.h"

namespace nestling {

// A section of packed weights in a container that is being written (runtime/prepare_in_place.h).
struct PackedSectionTarget {
  AtomicFileWriter* file = nullptr;  // borrowed
  uint64_t offset = 0;               // there, a multiple of kPackedExtentAlignment
  // Filled by PackedWeights::Commit. Its length; 0: nothing had to be packed.
  uint64_t bytes = 0;
  std::vector<std::string> tensors = {};  // those that it holds, wholly or in parts
};

// Where packed weights are kept between runs.
struct PackedCacheOptions {
  // Folder in which files are looked for and written. Empty: they are only looked for, beside the
  // container (`prepare` puts them there).
  std::string folder = {};
  // Neither looked for nor written.
  bool off = false;
  // The whole of a file that is found is read and checked.
  bool verify = false;
  FileCalls* calls = nullptr;  // borrowed; null: the system's
  // All is written there instead, and what cannot be is an error of whoever packs. Borrowed.
  PackedSectionTarget* target = nullptr;
};

// What became of the file.
enum class PackedCacheState {
  kNone,    // there is none and none was asked for, or nothing had to be packed
  kUsed,    // all that was needed came from it
  kMade,    // it was made, or made anew, by this object
  kFailed,  // it could not be made: weights are in anonymous memory
  kHeld,    // the container itself holds the packed form
};

struct PackedCacheInfo {
  PackedCacheState state = PackedCacheState::kNone;
  uint64_t mapped_bytes = 0;     // packed weights in pages of a file, clean
  uint64_t anonymous_bytes = 0;  // in memory of their own
  // Why there is no file, or why the one that was found is not used; "" if all is well. Lives as
  // long as the object.
  const char* note = "";
};

// Owns the memory in which packed weights lie: XNNPACK's through its weights cache provider, and
// what our own code derives from canonical weights. Entries have names that our code gives them;
// XNNPACK's own keys are addresses and would confuse temporary buffers that happen to lie at the
// same place. Whatever a cache file or the container has is mapped from it. The rest is packed into
// anonymous memory; if a file may be written, each entry goes to it at once and its pages become
// the file's, so that packing never holds more than what is just being packed. Thread-safe.
class PackedWeights {
 public:
  // Anonymous memory only.
  PackedWeights();
  // Of one part ("vision") of a container in one form of computing ("int8"). Never fails because of
  // the cache: the note says what was wrong with it. A container that holds this part in packed
  // form does without a cache; kUnsupported: for another CPU, library or form of computing;
  // kBadModel: damaged. `reader` is borrowed for the call.
  static Result<std::unique_ptr<PackedWeights>> Create(const ContainerReader& reader,
                                                       std::string_view part,
                                                       std::string_view compute,
                                                       const PackedCacheOptions& options);
  ~PackedWeights();
  PackedWeights(const PackedWeights&) = delete;
  PackedWeights& operator=(const PackedWeights&) = delete;

  xnn_weights_cache_t provider() { return &provider_; }

  // Packed already: canonical weights are not needed.
  bool Has(std::string_view name) const;
  // The `bytes` of `name`; `make` writes them unless they are there. 64-byte aligned, readable for
  // XNN_EXTRA_BYTES more, and in place as long as this object lives.
  Result<std::span<const std::byte>> Blob(const std::string& name, size_t bytes,
                                          FunctionRef<Status(std::span<std::byte>)> make);

  // Everything that is needed now has been packed: what is not in the file yet goes there, and it
  // gets its name. A failure to do so is no failure: see info().
  void Commit();

  // Of names and contents: equal if the same was packed in the same layout. Reads all of it.
  uint64_t HashOfEntries() const;
  // Packed weights, wherever they lie.
  uint64_t bytes() const;
  PackedCacheInfo info() const;
  // The section that the container holds, mapped; empty: none.
  std::span<const std::byte> held() const;

 private:
  friend class PackingScope;

  // A mapping of its own: of one large entry, or of several small ones.
  struct Region {
    std::byte* base = nullptr;
    size_t bytes = 0;
    bool arena = false;
    bool used = false;         // holds an entry
    uint32_t generation = 0;   // of the file whose pages it has; 0: anonymous
    uint64_t file_offset = 0;  // there
  };
  struct Entry {
    std::span<const std::byte> bytes;
    uint64_t xxh3 = 0;  // known once it was written
    size_t region = kOfFoundFile;
  };

  static constexpr size_t kOfFoundFile = SIZE_MAX;

  static size_t LookUp(void* context, const xnn_weights_cache_look_up_key* key);
  static void* ReserveSpace(void* context, size_t bytes);
  static size_t LookUpOrInsert(void* context, const xnn_weights_cache_look_up_key* key,
                               void* memory, size_t bytes);

  void OpenFile(const ContainerReader& reader, const PackedCacheOptions& options);
  Status OpenHeld(const ContainerReader& reader, const PackedPart& part);
  void UseFile(std::unique_ptr<PackedFile> file, PackedCacheState state);
  // All of these with mutex_ held.
  std::byte* Reserve(size_t bytes);
  void Insert(const std::string& name, std::span<const std::byte> bytes);
  bool StartFile();
  Status WriteRegion(Region& region);
  Status WriteFile();
  void DescribeTarget(uint64_t bytes);
  void GiveUp(const Status& why);
  void TakeBack(Region& region) const;
  void RemoveOlderModels() const;

  xnn_weights_cache_provider provider_;
  mutable std::mutex mutex_;  // of what follows
  std::map<std::string, Entry, std::less<>> entries_;
  std::vector<Region> regions_;
  // Small weights share regions, so that they do not take a page each.
  std::byte* arena_ = nullptr;
  size_t arena_left_ = 0;
  uint64_t bytes_ = 0;

  FileCalls* calls_ = &FileCalls::System();
  PackedKey key_;
  std::string path_;  // of the file to write; empty: none
  PackedSectionTarget* target_ = nullptr;
  Status failure_;            // of writing to `target_`
  std::string model_prefix_;  // that the names of this model's files begin with; empty: it has none
  std::unique_ptr<PackedFile> file_;          // that was found
  std::unique_ptr<PackedFileWriter> writer_;  // of what was not
  uint32_t generation_ = 0;                   // of `writer_`
  PackedCacheState state_ = PackedCacheState::kNone;
  std::list<std::string> notes_;  // the last one counts; those handed out stay
};

// Of an operator's weights: `out` rows of `taps` times `in` elements.
struct PackedShape {
  size_t out = 0;
  size_t in = 0;
  size_t bits = 0;  // of an element
  size_t taps = 1;

  // Limits of what any kernel's layout of it takes: rows and inputs are padded, and each output has
  // a bias, a scale and a sum, or scales of blocks.
  size_t min_bytes() const { return out * taps * in * bits / 8; }
  size_t max_bytes() const {
    const size_t row = taps * RoundUp(in, 64) * bits / 8 + in / 32 * 4 + 64;
    return RoundUp(out, 256) * row;
  }
};

// Names what XNNPACK packs on this thread while the object lives.
class PackingScope {
 public:
  explicit PackingScope(PackedWeights& packed);
  ~PackingScope();
  PackingScope(const PackingScope&) = delete;
  PackingScope& operator=(const PackingScope&) = delete;

  // The operator whose weights are at `kernel` packs `name`. If it is there
  // already, XNNPACK does not read the weights, with one exception: it packs depthwise convolutions
  // regardless, and the result is thrown away. `kernel` tells the operators of this scope apart and
  // nothing else.
  void Name(const void* kernel, std::string name, const PackedShape& shape);

  // Nothing that was found in the file had another size than XNNPACK wants, and what is written to
  // a container so far could be.
  Status status() const;

 private:
  friend class PackedWeights;
  struct Named {
    const void* kernel;
    std::string name;
    PackedShape shape;
  };
  const Named* Find(const void* kernel) const;

  PackedWeights& packed_;
  std::vector<Named> names_;
  bool all_there_ = true;
  LazyMemory discarded_;  // where depthwise convolutions pack once more
  std::string wrong_;     // name of an entry of the wrong size
};

}  // namespace nestling
