// SPDX-License-Identifier: Apache-2.0
#include "graph/packed_weights.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <new>
#include <system_error>
#include <utility>

#include "base/math.h"
#include "container/xxh3.h"
#include "graph/packing_family.h"

namespace nestling {
namespace {

namespace fs = std::filesystem;

constexpr size_t kArenaBytes = 1 << 20;
constexpr size_t kNotFound = SIZE_MAX;
constexpr std::string_view kExtension = ".nestpack";
constexpr size_t kHashDigits = 16;

thread_local PackingScope* t_scope = nullptr;

std::byte* MapAnonymous(size_t bytes) {
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  return memory == MAP_FAILED ? nullptr : static_cast<std::byte*>(memory);
}

std::string HashText(uint64_t hash) {
  char text[kHashDigits + 1];
  std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(hash));
  return text;
}

// "-vision-int8.nestpack"
std::string FileSuffix(const PackedKey& key) {
  return StrCat("-", key.part, "-", key.compute, kExtension);
}

}  // namespace

PackedWeights::PackedWeights() {
  provider_.context = this;
  provider_.look_up = &LookUp;
  provider_.reserve_space = &ReserveSpace;
  provider_.look_up_or_insert = &LookUpOrInsert;
  provider_.is_finalized = [](void*) { return true; };
  // An entry's "offset" is its address: entries never move.
  provider_.offset_to_addr = [](void*, size_t offset) { return reinterpret_cast<void*>(offset); };
  provider_.delete_cache = [](void*) { return xnn_status_success; };
}

PackedWeights::~PackedWeights() {
  for (const Region& region : regions_) munmap(region.base, region.bytes);
}

// ---- The file ----

Result<std::unique_ptr<PackedWeights>> PackedWeights::Create(const ContainerReader& reader,
                                                             std::string_view part,
                                                             std::string_view compute,
                                                             const PackedCacheOptions& options) {
  auto packed = std::make_unique<PackedWeights>();
  if (options.calls != nullptr) packed->calls_ = options.calls;
  const auto held = std::find_if(kPackedParts.begin(), kPackedParts.end(),
                                 [&](const PackedPart& each) { return each.name == part; });
  const bool is_held = held != kPackedParts.end() && reader.FindSection(held->packed) != nullptr;
  if (options.off && options.target == nullptr && !is_held) return packed;
  ASSIGN_OR_RETURN(const PackingFamily family, ThisPackingFamily());
  packed->key_ = {reader.content_hash(), std::string(part), std::string(compute),
                  family.library,        family.cpu,        family.layout};
  packed->target_ = options.target;
  if (is_held) {
    RETURN_IF_ERROR(packed->OpenHeld(reader, *held));
  } else if (packed->target_ == nullptr) {
    packed->OpenFile(reader, options);
  }
  return packed;
}

// The one form in which the container has these weights must be what this process wants.
Status PackedWeights::OpenHeld(const ContainerReader& reader, const PackedPart& part) {
  ASSIGN_OR_RETURN(std::unique_ptr<PackedFile> file, PackedFile::OpenSection(reader, part));
  // The hash is of the container that it was made from.
  key_.content_hash = file->key().content_hash;
  if (file->key().part != part.name) {
    return BadModel("\"", reader.file().name(), "\": section ", SectionName(part.packed),
                    " is of \"", file->key().part, "\"");
  }
  if (file->key() != key_) {
    return Unsupported("\"", reader.file().name(), "\" has its ", part.name,
                       " weights in packed form only, ", KeyDifference(file->key(), key_),
                       ": prepare the original container again");
  }
  UseFile(std::move(file), PackedCacheState::kHeld);
  return OkStatus();
}

void PackedWeights::UseFile(std::unique_ptr<PackedFile> file, PackedCacheState state) {
  file_ = std::move(file);
  state_ = state;
  notes_.clear();
  bytes_ = file_->payload_bytes();
  for (const PackedEntry& entry : file_->entries()) {
    entries_[entry.name] = {file_->Find(entry.name), entry.xxh3, kOfFoundFile};
  }
}

std::span<const std::byte> PackedWeights::held() const {
  const std::lock_guard lock(mutex_);
  if (state_ != PackedCacheState::kHeld) return {};
  return file_->bytes();
}

// Looks in the folder of the options first, then beside the container.
void PackedWeights::OpenFile(const ContainerReader& reader, const PackedCacheOptions& options) {
  std::vector<fs::path> folders;
  if (!options.folder.empty()) folders.emplace_back(options.folder);
  std::string prefix;
  if (reader.file().has_path()) {
    const fs::path model(reader.file().name());
    folders.push_back(model.parent_path().empty() ? fs::path(".") : model.parent_path());
    prefix = model.filename().string() + "-";
  }
  const std::string name = StrCat(prefix, HashText(key_.content_hash), FileSuffix(key_));
  if (!options.folder.empty()) {
    path_ = (folders.front() / name).string();
    model_prefix_ = prefix;
  }
  for (const fs::path& folder : folders) {
    const std::string path = (folder / name).string();
    Result<std::unique_ptr<File>> file = File::Open(path, *calls_);
    if (!file.ok()) {
      if (file.status().code() != StatusCode::kNotFound) notes_.push_back(file.status().message());
      continue;
    }
    Result<std::unique_ptr<PackedFile>> packed = PackedFile::Open(std::move(file).value());
    if (!packed.ok()) {
      notes_.push_back(packed.status().message());
    } else if ((*packed)->key() != key_) {
      notes_.push_back(StrCat("\"", path, "\" is ", KeyDifference((*packed)->key(), key_)));
    } else if (const Status status = options.verify ? (*packed)->VerifyPayload() : OkStatus();
               !status.ok()) {
      notes_.push_back(status.message());
    } else {
      return UseFile(std::move(packed).value(), PackedCacheState::kUsed);
    }
  }
}

// Opens the file that will replace the one that was found. False: none is to be written.
bool PackedWeights::StartFile() {
  if (writer_ != nullptr) return true;
  if (target_ != nullptr && failure_.ok()) {
    writer_ = std::make_unique<PackedFileWriter>(*target_->file, target_->offset);
    ++generation_;
    return true;
  }
  if (path_.empty() || state_ == PackedCacheState::kFailed) return false;
  std::error_code ignored;  // the writer's error says more
  fs::create_directories(fs::path(path_).parent_path(), ignored);
  AtomicFileWriter::RemoveAbandoned(path_);
  Result<std::unique_ptr<PackedFileWriter>> writer = PackedFileWriter::Create(path_, *calls_);
  if (!writer.ok()) {
    GiveUp(writer.status());
    return false;
  }
  writer_ = std::move(writer).value();
  ++generation_;
  return true;
}

// Moves a region to the file: written there, then mapped from there at the same address.
Status PackedWeights::WriteRegion(Region& region) {
  ASSIGN_OR_RETURN(const uint64_t offset, writer_->AddExtent({region.base, region.bytes}));
  const void* const mapped =
      mmap(region.base, region.bytes, PROT_READ, MAP_SHARED | MAP_FIXED, writer_->descriptor(),
           static_cast<off_t>(writer_->base() + offset));
  if (mapped == MAP_FAILED) return IoError("cannot map packed weights that were written");
  region.generation = generation_;
  region.file_offset = offset;
  return OkStatus();
}

void PackedWeights::Commit() {
  const std::lock_guard lock(mutex_);
  if (writer_ == nullptr) return;
  if (const Status status = WriteFile(); !status.ok()) {
    GiveUp(status);
    return;
  }
  writer_.reset();
  state_ = PackedCacheState::kMade;
  notes_.emplace_back();
  RemoveOlderModels();
}

// What is not in the file yet: small weights, and all that an earlier file has.
Status PackedWeights::WriteFile() {
  arena_left_ = 0;  // a region that lies in a file is never written again
  for (auto& [name, entry] : entries_) {
    if (entry.xxh3 == 0) entry.xxh3 = Xxh3(entry.bytes);
  }
  for (Region& region : regions_) {
    if (region.used && region.generation != generation_) RETURN_IF_ERROR(WriteRegion(region));
  }
  uint64_t found_offset = 0;
  if (file_ != nullptr) {
    ASSIGN_OR_RETURN(found_offset, writer_->AddExtent(file_->extents()));
  }
  for (const auto& [name, entry] : entries_) {
    const bool found = entry.region == kOfFoundFile;
    const std::byte* const base = found ? file_->extents().data() : regions_[entry.region].base;
    const uint64_t offset = found ? found_offset : regions_[entry.region].file_offset;
    writer_->AddEntry({name, offset + static_cast<uint64_t>(entry.bytes.data() - base),
                       entry.bytes.size(), entry.xxh3});
  }
  ASSIGN_OR_RETURN(const uint64_t bytes, writer_->Finish(key_));
  if (target_ != nullptr) DescribeTarget(bytes);
  return OkStatus();
}

// An entry's name begins with that of its tensor, which has no spaces.
void PackedWeights::DescribeTarget(uint64_t bytes) {
  target_->bytes = bytes;
  for (const auto& [name, entry] : entries_) {
    std::string tensor = name.substr(0, name.find(' '));
    if (target_->tensors.empty() || target_->tensors.back() != tensor) {
      target_->tensors.push_back(std::move(tensor));
    }
  }
}

// No file: what has been written to it comes back into memory, so that its disk space goes.
void PackedWeights::GiveUp(const Status& why) {
  state_ = PackedCacheState::kFailed;
  notes_.push_back(why.message());
  if (target_ != nullptr) {  // whoever packs stops, and the file goes with all that lies in it
    failure_ = why;
    writer_.reset();
    return;
  }
  for (Region& region : regions_) {
    if (writer_ != nullptr && region.generation == generation_) TakeBack(region);
  }
  writer_.reset();
}

// Where that cannot be done, the region keeps the pages of a file without a name.
void PackedWeights::TakeBack(Region& region) const {
#ifdef __linux__
  std::byte* const memory = MapAnonymous(region.bytes);
  if (memory == nullptr) return;
  // At once, as a run of another session may be reading.
  if (!writer_->ReadAt(region.file_offset, {memory, region.bytes}).ok() ||
      mremap(memory, region.bytes, region.bytes, MREMAP_MAYMOVE | MREMAP_FIXED, region.base) ==
          MAP_FAILED) {
    munmap(memory, region.bytes);
    return;
  }
  region.generation = 0;
#else
  static_cast<void>(region);
#endif
}

// Files that earlier contents of the same model left: it was replaced.
void PackedWeights::RemoveOlderModels() const {
  if (model_prefix_.empty()) return;
  const fs::path own(path_);
  const std::string suffix = FileSuffix(key_);
  std::error_code error;
  fs::directory_iterator folder(own.parent_path(), error);
  for (; !error && folder != fs::directory_iterator(); folder.increment(error)) {
    const std::string name = folder->path().filename().string();
    if (name != own.filename() && name.starts_with(model_prefix_) && name.ends_with(suffix) &&
        name.size() == model_prefix_.size() + kHashDigits + suffix.size()) {
      std::error_code ignored;
      fs::remove(folder->path(), ignored);
    }
  }
}

// ---- Entries ----

bool PackedWeights::Has(std::string_view name) const {
  const std::lock_guard lock(mutex_);
  return entries_.contains(name);
}

Result<std::span<const std::byte>> PackedWeights::Blob(
    const std::string& name, size_t bytes, FunctionRef<Status(std::span<std::byte>)> make) {
  std::byte* memory = nullptr;
  {
    const std::lock_guard lock(mutex_);
    RETURN_IF_ERROR(failure_);
    if (const auto found = entries_.find(name); found != entries_.end()) {
      if (found->second.bytes.size() == bytes) return found->second.bytes;
      return BadModel("packed weights \"", name, "\": ", found->second.bytes.size(),
                      " bytes, want ", bytes);
    }
    memory = Reserve(bytes);
  }
  if (memory == nullptr) return OutOfMemory("packed weights \"", name, "\"");
  RETURN_IF_ERROR(make({memory, bytes}));
  const std::lock_guard lock(mutex_);
  Insert(name, {memory, bytes});
  return std::span<const std::byte>(memory, bytes);
}

std::byte* PackedWeights::Reserve(size_t bytes) {
  // Kernels may read up to XNN_EXTRA_BYTES beyond the end.
  const size_t needed = RoundUp(bytes + XNN_EXTRA_BYTES, kPackedEntryAlignment);
  const bool small = needed <= kArenaBytes / 4;
  if (small && needed <= arena_left_) {
    std::byte* const entry = arena_;
    arena_ += needed;
    arena_left_ -= needed;
    return entry;
  }
  const size_t region_bytes = small ? kArenaBytes : RoundUp(needed, kPackedExtentAlignment);
  regions_.reserve(regions_.size() + 1);
  std::byte* const base = MapAnonymous(region_bytes);
  if (base == nullptr) return nullptr;
  regions_.push_back({.base = base, .bytes = region_bytes, .arena = small});
  bytes_ += region_bytes;
  if (small) {
    arena_ = base + needed;
    arena_left_ = region_bytes - needed;
  }
  return base;
}

// A large entry goes to the file at once, small ones when their region is complete.
void PackedWeights::Insert(const std::string& name, std::span<const std::byte> bytes) {
  size_t index = regions_.size();
  do {
    --index;
  } while (bytes.data() < regions_[index].base ||
           bytes.data() >= regions_[index].base + regions_[index].bytes);
  Region& region = regions_[index];
  region.used = true;
  Entry& entry = entries_[name];
  entry = {bytes, 0, index};
  if (!StartFile() || region.arena) return;
  entry.xxh3 = Xxh3(bytes);
  if (const Status status = WriteRegion(region); !status.ok()) GiveUp(status);
}

uint64_t PackedWeights::HashOfEntries() const {
  const std::lock_guard lock(mutex_);
  std::vector<uint64_t> hashes;
  for (const auto& [name, entry] : entries_) {
    hashes.push_back(Xxh3(std::as_bytes(std::span(name))));
    hashes.push_back(Xxh3(entry.bytes));
  }
  return Xxh3(std::as_bytes(std::span(hashes)));
}

uint64_t PackedWeights::bytes() const {
  const std::lock_guard lock(mutex_);
  return bytes_;
}

PackedCacheInfo PackedWeights::info() const {
  const std::lock_guard lock(mutex_);
  PackedCacheInfo info;
  info.state = state_;
  if (file_ != nullptr) info.mapped_bytes = file_->payload_bytes();
  for (const Region& region : regions_) {
    (region.generation != 0 ? info.mapped_bytes : info.anonymous_bytes) += region.bytes;
  }
  if (!notes_.empty()) info.note = notes_.back().c_str();
  return info;
}

// ---- XNNPACK's calls ----

size_t PackedWeights::LookUp(void* context, const xnn_weights_cache_look_up_key* key) {
  auto& packed = *static_cast<PackedWeights*>(context);
  const auto* const named = t_scope == nullptr ? nullptr : t_scope->Find(key->kernel);
  if (named == nullptr) return kNotFound;
  const std::lock_guard lock(packed.mutex_);
  const auto found = packed.entries_.find(named->name);
  if (found == packed.entries_.end()) return kNotFound;
  return reinterpret_cast<size_t>(found->second.bytes.data());
}

void* PackedWeights::ReserveSpace(void* context, size_t bytes) {
  auto& packed = *static_cast<PackedWeights*>(context);
  try {
    if (t_scope != nullptr && !t_scope->names_.empty() && t_scope->all_there_) {
      Result<LazyMemory> memory = LazyMemory::Create(bytes + XNN_EXTRA_BYTES);
      if (!memory.ok()) return nullptr;
      t_scope->discarded_ = std::move(memory).value();
      return t_scope->discarded_.data();
    }
    const std::lock_guard lock(packed.mutex_);
    return packed.Reserve(bytes);
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
}

size_t PackedWeights::LookUpOrInsert(void* context, const xnn_weights_cache_look_up_key* key,
                                     void* memory, size_t bytes) {
  auto& packed = *static_cast<PackedWeights*>(context);
  const auto* const named = t_scope == nullptr ? nullptr : t_scope->Find(key->kernel);
  const size_t address = reinterpret_cast<size_t>(memory);
  if (named == nullptr) return address;
  const std::string& name = named->name;
  // What Name() takes for the limit is one.
  NESTLING_DCHECK(named->shape.out == 0 || bytes <= named->shape.max_bytes());
  try {
    const std::lock_guard lock(packed.mutex_);
    if (const auto found = packed.entries_.find(name); found != packed.entries_.end()) {
      if (found->second.bytes.size() != bytes) t_scope->wrong_ = name;
      return reinterpret_cast<size_t>(found->second.bytes.data());
    }
    packed.Insert(name, {static_cast<const std::byte*>(memory), bytes});
  } catch (const std::bad_alloc&) {
    // Usable without a name.
  }
  return address;
}

PackingScope::PackingScope(PackedWeights& packed) : packed_(packed) {
  NESTLING_DCHECK(t_scope == nullptr);
  t_scope = this;
}

PackingScope::~PackingScope() { t_scope = nullptr; }

void PackingScope::Name(const void* kernel, std::string name, const PackedShape& shape) {
  {
    const std::lock_guard lock(packed_.mutex_);
    const auto found = packed_.entries_.find(name);
    if (found == packed_.entries_.end()) {
      all_there_ = false;
    } else if (found->second.region == PackedWeights::kOfFoundFile) {
      // XNNPACK does not ask how long it is.
      const std::span<const std::byte> entry = found->second.bytes;
      if (entry.size() < shape.min_bytes() ||
          packed_.file_->ReadableBytes(entry) < shape.max_bytes()) {
        wrong_ = name;
      }
    }
  }
  names_.push_back({kernel, std::move(name), shape});
}

const PackingScope::Named* PackingScope::Find(const void* kernel) const {
  for (const Named& named : names_) {
    if (named.kernel == kernel) return &named;
  }
  return nullptr;
}

Status PackingScope::status() const {
  {
    const std::lock_guard lock(packed_.mutex_);
    RETURN_IF_ERROR(packed_.failure_);
  }
  if (wrong_.empty()) return OkStatus();
  return BadModel("packed weights \"", wrong_, "\" have the wrong size");
}

}  // namespace nestling
