// SPDX-License-Identifier: Apache-2.0
#include "ple/reader_threads.h"

#include <algorithm>
#include <cerrno>
#include <system_error>
#include <utility>

namespace nestling {

class ReaderThreads::Reader final : public RowReader {
 public:
  explicit Reader(ReaderThreads& threads) : threads_(threads) {}
  ~Reader() override {
    static_cast<void>(Wait());
    const std::lock_guard lock(threads_.mutex_);
    --threads_.num_readers_;
  }

  void Start(std::span<ReadRequest> requests) override;
  Status Wait() override;

 private:
  friend class ReaderThreads;

  ReaderThreads& threads_;
  bool try_cached_ = true;  // until the system says that it cannot
  // Below: under the lock of threads_.
  std::span<ReadRequest> requests_;
  size_t next_ = 0;     // first request that nobody has begun
  size_t running_ = 0;  // begun and not ended
  Status status_;
  std::condition_variable ended_;  // running_ fell to 0
};

void ReaderThreads::Reader::Start(std::span<ReadRequest> requests) {
  // What is in the page cache is here before a thread would have woken.
  size_t left = 0;
  for (const ReadRequest& request : requests) {
    ReadRequest rest = request;
    if (try_cached_) {
      const int64_t result = threads_.calls_.ReadCached(threads_.file_.descriptor(),
                                                        {rest.out, rest.bytes}, rest.offset);
      if (result == -EOPNOTSUPP || result == -ENOSYS) try_cached_ = false;
      // Ends and errors are looked at by who reads the rest.
      Status status;
      unsigned retries = 0;
      if (result > 0 && Advance(rest, result, threads_.file_, &retries, &status)) continue;
    }
    requests[left++] = rest;
  }
  {
    const std::lock_guard lock(threads_.mutex_);
    requests_ = requests.first(left);
    next_ = 0;
    status_ = OkStatus();
    if (left != 0) threads_.queue_.push_back(this);
  }
  if (left > 1) {
    threads_.work_.notify_all();
  } else if (left == 1) {
    threads_.work_.notify_one();
  }
}

Status ReaderThreads::Reader::Wait() {
  std::unique_lock lock(threads_.mutex_);
  while (threads_.ReadOne(*this, lock)) {
  }
  ended_.wait(lock, [this] { return running_ == 0; });
  requests_ = {};
  next_ = 0;
  return std::exchange(status_, OkStatus());
}

ReaderThreads::ReaderThreads(const File& file, StorageCalls& calls, size_t num_threads)
    : file_(file), calls_(calls) {
  threads_.reserve(num_threads);
  try {
    while (threads_.size() < num_threads) threads_.emplace_back([this] { Work(); });
  } catch (const std::system_error&) {
    // The system gives no more threads.
  }
}

ReaderThreads::~ReaderThreads() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  work_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

std::unique_ptr<RowReader> ReaderThreads::NewReader() {
  auto reader = std::make_unique<Reader>(*this);
  const std::lock_guard lock(mutex_);
  queue_.reserve(++num_readers_);  // so that Start allocates nothing
  return reader;
}

void ReaderThreads::Work() {
  std::unique_lock lock(mutex_);
  while (true) {
    work_.wait(lock, [this] { return stop_ || !queue_.empty(); });
    if (stop_) return;
    ReadOne(*queue_.front(), lock);
  }
}

bool ReaderThreads::ReadOne(Reader& reader, std::unique_lock<std::mutex>& lock) {
  if (reader.next_ == reader.requests_.size()) return false;
  ReadRequest request = reader.requests_[reader.next_++];
  ++reader.running_;
  const auto leave_queue = [&] {
    const auto place = std::find(queue_.begin(), queue_.end(), &reader);
    if (place != queue_.end()) queue_.erase(place);
  };
  if (reader.next_ == reader.requests_.size()) leave_queue();
  lock.unlock();
  Status status;
  unsigned retries = 0;
  while (!Advance(request,
                  calls_.Read(file_.descriptor(), {request.out, request.bytes}, request.offset),
                  file_, &retries, &status)) {
  }
  lock.lock();
  if (!status.ok()) {
    reader.next_ = reader.requests_.size();  // the rest is not needed any more
    leave_queue();
    if (reader.status_.ok()) reader.status_ = std::move(status);
  }
  // Under the lock: the reader may be gone as soon as its owner sees that nothing runs.
  if (--reader.running_ == 0) reader.ended_.notify_all();
  return true;
}

}  // namespace nestling
