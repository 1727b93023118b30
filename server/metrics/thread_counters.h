#ifndef MMLAB_SERVER_METRICS_THREAD_COUNTERS_H_
#define MMLAB_SERVER_METRICS_THREAD_COUNTERS_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

namespace mmlab {

// Counters for hot paths: a fixed number of them, and for each thread a block of its own, so that counting is a plain addition to memory
// that no other thread writes. Reading sums the blocks. A block of a thread that ended goes to the next new one, with what it holds.
//
// Add may be called by any thread at any time of this object's life; it takes no lock, except the first time in a thread.
class ThreadCounters {
 public:
  explicit ThreadCounters(size_t size);
  ~ThreadCounters();
  ThreadCounters(const ThreadCounters&) = delete;
  ThreadCounters& operator=(const ThreadCounters&) = delete;

  size_t size() const { return size_; }

  // REQUIRES: index < size().
  void Add(size_t index, uint64_t amount = 1) {
    std::atomic<uint64_t>& cell = Mine()[index];
    cell.store(cell.load(std::memory_order_relaxed) + amount, std::memory_order_relaxed);
  }

  // All counters. A sum never falls; what other threads are adding meanwhile may or may not be in it.
  std::vector<uint64_t> Sums() const;

 private:
  struct Block {
    explicit Block(size_t size) : cells(size) {}
    std::vector<std::atomic<uint64_t>> cells;
    std::atomic<bool> taken{true};
  };
  class ThreadBlocks;
  struct Recent {
    uint64_t owner = 0;
    std::atomic<uint64_t>* cells = nullptr;
  };
  static constexpr size_t kRecent = 4;

  std::atomic<uint64_t>* Mine() {
    Recent& recent = recent_[id_ % kRecent];
    if (recent.owner != id_) [[unlikely]]
      recent = {id_, FindMine()};
    return recent.cells;
  }
  std::atomic<uint64_t>* FindMine();

  static constinit thread_local Recent recent_[kRecent];  // The blocks of this thread that were used last, by owner.

  const uint64_t id_;  // Never used again in this process, so that `recent_` can't point to a block of an object that is gone.
  const size_t size_;
  mutable std::mutex mutex_;
  std::vector<std::shared_ptr<Block>> blocks_;
};

}  // namespace mmlab

#endif  // MMLAB_SERVER_METRICS_THREAD_COUNTERS_H_
