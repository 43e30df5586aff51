// SPDX-License-Identifier: Apache-2.0
#include "ple/ple_store.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "ple/io_uring_reader.h"

namespace nestling {
namespace {

// Storage wants many reads at once; who waits for a batch is one more.
constexpr size_t kReaderThreads = 7;
constexpr size_t kLoadBytes = 8 << 20;  // of one read of a resident table

// Rows are read in no order: what lies around one is not wanted.
void AdviseRandom(std::span<const std::byte> bytes) {
  const uintptr_t page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const uintptr_t begin = reinterpret_cast<uintptr_t>(bytes.data()) / page * page;
  const uintptr_t end = reinterpret_cast<uintptr_t>(bytes.data() + bytes.size());
  madvise(reinterpret_cast<void*>(begin), end - begin, MADV_RANDOM);
}

}  // namespace

PleCounters& PleCounters::operator+=(const PleCounters& other) {
  rows += other.rows;
  hits += other.hits;
  misses += other.misses;
  bytes_read += other.bytes_read;
  wait_ns += other.wait_ns;
  return *this;
}

Result<std::unique_ptr<PleStore>> PleStore::Create(const ContainerReader& reader,
                                                   const PleOptions& options) {
  std::unique_ptr<PleStore> store(new PleStore);
  store->mode_ = options.mode;
  store->calls_ = options.calls != nullptr ? options.calls : &StorageCalls::System();
  ASSIGN_OR_RETURN(store->table_, PleTable::Create(reader));
  if (options.mode != PleMode::kStream) {
    RETURN_IF_ERROR(store->Load(reader));
  } else {
    const uint64_t budget = options.cache_bytes != 0 ? options.cache_bytes : kDefaultPleCacheBytes;
    ASSIGN_OR_RETURN(store->cache_, RowCache::Create(budget, store->table_->row_bytes(),
                                                     store->table_->num_rows()));
    // The first reader decides how this system reads.
    store->io_uring_ = true;
    ASSIGN_OR_RETURN(auto first, store->TakeReader());
    store->ReturnReader(std::move(first));
  }
  return store;
}

PleStore::~PleStore() = default;

Status PleStore::Load(const ContainerReader& reader) {
  const uint64_t start = table_->file().start();
  const uint64_t offset = table_->RowOffset(0) - start;
  const uint64_t bytes = uint64_t{table_->num_rows()} * table_->row_bytes();
  if (mode_ == PleMode::kMmap) {
    ASSIGN_OR_RETURN(mapped_, reader.file().Map(offset, bytes));
    AdviseRandom(mapped_.bytes());
    all_rows_ = mapped_.bytes().data();
    return OkStatus();
  }
  ASSIGN_OR_RETURN(resident_, LazyMemory::Create(static_cast<size_t>(bytes)));
  for (uint64_t at = 0; at < bytes; at += kLoadBytes) {
    const size_t part = static_cast<size_t>(std::min<uint64_t>(kLoadBytes, bytes - at));
    RETURN_IF_ERROR(reader.file().ReadAt(offset + at, {resident_.data() + at, part}));
  }
  all_rows_ = resident_.data();
  return OkStatus();
}

const char* PleStore::mechanism() const {
  if (mode_ == PleMode::kResident) return "resident";
  if (mode_ == PleMode::kMmap) return "mmap";
  const std::lock_guard lock(mutex_);
  return io_uring_ ? "io_uring" : "threads";
}

Result<std::unique_ptr<RowReader>> PleStore::NewReader() {
  if (io_uring_) {
    Result<std::unique_ptr<RowReader>> reader = CreateIoUringReader(table_->file(), *calls_);
    if (reader.ok()) return reader;
    io_uring_ = false;  // also when descriptors or locked memory run out later
  }
  if (threads_ == nullptr) {
    threads_ = std::make_unique<ReaderThreads>(table_->file(), *calls_, kReaderThreads);
  }
  return threads_->NewReader();
}

Result<std::unique_ptr<RowReader>> PleStore::TakeReader() {
  const std::lock_guard lock(mutex_);
  if (!idle_.empty()) {
    std::unique_ptr<RowReader> reader = std::move(idle_.back());
    idle_.pop_back();
    return reader;
  }
  ASSIGN_OR_RETURN(std::unique_ptr<RowReader> reader, NewReader());
  idle_.reserve(++num_readers_);  // so that ReturnReader allocates nothing
  return reader;
}

void PleStore::ReturnReader(std::unique_ptr<RowReader> reader) {
  const std::lock_guard lock(mutex_);
  if (reader->usable()) {
    idle_.push_back(std::move(reader));
    return;
  }
  // The system took io_uring away: from now on threads read.
  io_uring_ = false;
  --num_readers_;
}

}  // namespace nestling
