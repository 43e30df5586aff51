// SPDX-License-Identifier: Apache-2.0
#include "ple/io_uring_reader.h"

#if NESTLING_HAS_IO_URING

#include <linux/io_uring.h>
#include <poll.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace nestling {
namespace {

// Reads in flight. Storage is at its best from about 32 on; a ring takes 28 KB.
constexpr unsigned kDepth = 256;
constexpr uint64_t kProbe = ~uint64_t{0};

class IoUringReader final : public RowReader {
 public:
  IoUringReader(const File& file, StorageCalls& calls) : file_(file), calls_(calls) {}

  ~IoUringReader() override {
    Drain();
    if (entries_ != nullptr) munmap(entries_, entries_bytes_);
    if (rings_ != nullptr) munmap(rings_, rings_bytes_);
    if (ring_ >= 0) close(ring_);
  }

  Status Open();
  void Start(std::span<ReadRequest> requests) override;
  Status Wait() override;
  bool usable() const override { return usable_; }

 private:
  unsigned* Field(unsigned offset) const {
    return reinterpret_cast<unsigned*>(static_cast<std::byte*>(rings_) + offset);
  }
  void Queue(uint8_t opcode, uint64_t index);
  void Fill();
  void Enter(unsigned min_complete);
  void Reap();
  void Drain();

  const File& file_;
  StorageCalls& calls_;
  int ring_ = -1;
  void* rings_ = nullptr;  // the kernel's submission and completion rings
  size_t rings_bytes_ = 0;
  io_uring_sqe* entries_ = nullptr;
  size_t entries_bytes_ = 0;
  io_uring_params params_ = {};

  std::span<ReadRequest> requests_;
  size_t next_ = 0;         // first request that was not queued yet
  unsigned in_flight_ = 0;  // queued or with the kernel, at most params_.sq_entries
  unsigned queued_ = 0;     // written, not yet taken by the kernel
  unsigned retries_ = 0;
  bool usable_ = true;
  Status status_;
};

Status IoUringReader::Open() {
  // Completions must not interrupt system calls of the host's code in callbacks (Linux 5.19).
#ifdef IORING_SETUP_COOP_TASKRUN
  params_.flags = IORING_SETUP_COOP_TASKRUN;
  ring_ = calls_.IoUringSetup(kDepth, &params_);
#else
  ring_ = -EINVAL;
#endif
  if (ring_ == -EINVAL) {
    params_ = {};
    ring_ = calls_.IoUringSetup(kDepth, &params_);
  }
  if (ring_ < 0) return Unsupported("io_uring: ", std::strerror(-ring_));
  // IORING_OP_READ came with this feature, Linux 5.6.
  constexpr unsigned kNeeded =
      IORING_FEAT_SINGLE_MMAP | IORING_FEAT_NODROP | IORING_FEAT_RW_CUR_POS;
  if ((params_.features & kNeeded) != kNeeded)
    return Unsupported("io_uring: the kernel is too old");

  rings_bytes_ = std::max<size_t>(params_.sq_off.array + params_.sq_entries * sizeof(unsigned),
                                  params_.cq_off.cqes + params_.cq_entries * sizeof(io_uring_cqe));
  void* rings = mmap(nullptr, rings_bytes_, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE,
                     ring_, IORING_OFF_SQ_RING);
  if (rings == MAP_FAILED) return Unsupported("io_uring: rings: ", std::strerror(errno));
  rings_ = rings;
  entries_bytes_ = params_.sq_entries * sizeof(io_uring_sqe);
  void* entries = mmap(nullptr, entries_bytes_, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE,
                       ring_, IORING_OFF_SQES);
  if (entries == MAP_FAILED) return Unsupported("io_uring: entries: ", std::strerror(errno));
  entries_ = static_cast<io_uring_sqe*>(entries);

  // A sandbox may allow the setup and refuse the use.
  Queue(IORING_OP_NOP, kProbe);
  Drain();
  if (!usable_) return Unsupported("io_uring: ", status_.message());
  return OkStatus();
}

void IoUringReader::Queue(uint8_t opcode, uint64_t index) {
  unsigned* tail = Field(params_.sq_off.tail);
  const unsigned slot = *tail & *Field(params_.sq_off.ring_mask);
  io_uring_sqe& entry = entries_[slot];
  std::memset(&entry, 0, sizeof entry);
  entry.opcode = opcode;
  entry.user_data = index;
  if (opcode == IORING_OP_READ) {
    const ReadRequest& request = requests_[index];
    entry.fd = file_.descriptor();
    entry.off = request.offset;
    entry.addr = reinterpret_cast<uintptr_t>(request.out);
    entry.len = static_cast<uint32_t>(std::min<size_t>(request.bytes, 1u << 30));
  }
  Field(params_.sq_off.array)[slot] = slot;
  __atomic_store_n(tail, *tail + 1, __ATOMIC_RELEASE);
  ++queued_;
  ++in_flight_;
}

void IoUringReader::Fill() {
  while (next_ < requests_.size() && in_flight_ < params_.sq_entries) {
    Queue(IORING_OP_READ, next_++);
  }
}

void IoUringReader::Enter(unsigned min_complete) {
  const int taken = calls_.IoUringEnter(ring_, queued_, min_complete,
                                        min_complete != 0 ? IORING_ENTER_GETEVENTS : 0u);
  if (taken >= 0) {
    queued_ -= std::min(queued_, static_cast<unsigned>(taken));
    return;
  }
  if (taken == -EINTR) return;
  // The kernel is short of memory or wants completions to be taken first.
  if ((taken == -EAGAIN || taken == -EBUSY) && in_flight_ > queued_) return;
  usable_ = false;
  if (status_.ok()) status_ = IoError("PLE table: io_uring: ", std::strerror(-taken));
}

void IoUringReader::Reap() {
  unsigned* head = Field(params_.cq_off.head);
  const unsigned mask = *Field(params_.cq_off.ring_mask);
  const auto* completions = reinterpret_cast<const io_uring_cqe*>(Field(params_.cq_off.cqes));
  while (*head != __atomic_load_n(Field(params_.cq_off.tail), __ATOMIC_ACQUIRE)) {
    const io_uring_cqe completion = completions[*head & mask];
    __atomic_store_n(head, *head + 1, __ATOMIC_RELEASE);
    --in_flight_;
    if (completion.user_data == kProbe) continue;
    ReadRequest& request = requests_[static_cast<size_t>(completion.user_data)];
    const int64_t result =
        calls_.IoUringResult({request.out, request.bytes}, request.offset, completion.res);
    Status status;
    if (!Advance(request, result, file_, &retries_, &status)) {
      if (status_.ok()) Queue(IORING_OP_READ, completion.user_data);
    } else if (!status.ok()) {
      next_ = requests_.size();  // what was not asked for yet is not needed any more
      if (status_.ok()) status_ = std::move(status);
    }
  }
}

void IoUringReader::Start(std::span<ReadRequest> requests) {
  requests_ = requests;
  next_ = 0;
  retries_ = 0;
  status_ = OkStatus();
  Fill();
  Enter(0);
}

Status IoUringReader::Wait() {
  Drain();
  requests_ = {};
  return std::move(status_);
}

void IoUringReader::Drain() {
  if (rings_ == nullptr) return;
  while (usable_) {
    Reap();
    Fill();
    if (in_flight_ == 0) return;
    Enter(1);
  }
  // The kernel takes no orders any more, but may still write what it was asked for.
  next_ = requests_.size();
  while (in_flight_ > queued_) {
    pollfd ring = {ring_, POLLIN, 0};
    poll(&ring, 1, /*timeout=*/10);
    Reap();
  }
}

}  // namespace

Result<std::unique_ptr<RowReader>> CreateIoUringReader(const File& file, StorageCalls& calls) {
  auto reader = std::make_unique<IoUringReader>(file, calls);
  RETURN_IF_ERROR(reader->Open());
  return std::unique_ptr<RowReader>(std::move(reader));
}

}  // namespace nestling

#else

namespace nestling {

Result<std::unique_ptr<RowReader>> CreateIoUringReader(const File&, StorageCalls&) {
  return Unsupported("io_uring: not on this system");
}

}  // namespace nestling

#endif
