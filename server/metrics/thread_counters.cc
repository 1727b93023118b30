#include "server/metrics/thread_counters.h"

#include "absl/container/flat_hash_map.h"

namespace mmlab {
namespace {

std::atomic<uint64_t> last_id = 0;

}  // namespace

// The blocks of one thread; gives them back when the thread ends.
class ThreadCounters::ThreadBlocks {
 public:
  ~ThreadBlocks() {
    for (const auto& [id, block] : blocks_) block->taken.store(false, std::memory_order_release);
  }
  std::shared_ptr<Block>& operator[](uint64_t id) {
    // Blocks whose counters are gone are held by nobody else.
    absl::erase_if(blocks_, [id](const auto& entry) { return entry.first != id && entry.second.use_count() == 1; });
    return blocks_[id];
  }

 private:
  absl::flat_hash_map<uint64_t, std::shared_ptr<Block>> blocks_;
};

constinit thread_local ThreadCounters::Recent ThreadCounters::recent_[kRecent];

ThreadCounters::ThreadCounters(size_t size) : id_(++last_id), size_(size) {}

ThreadCounters::~ThreadCounters() = default;

std::atomic<uint64_t>* ThreadCounters::FindMine() {
  static thread_local ThreadBlocks mine;
  std::shared_ptr<Block>& block = mine[id_];
  if (block == nullptr) {
    const std::lock_guard<std::mutex> lock(mutex_);
    for (const std::shared_ptr<Block>& candidate : blocks_) {
      bool taken = false;
      if (candidate->taken.compare_exchange_strong(taken, true, std::memory_order_acquire)) {
        block = candidate;
        break;
      }
    }
    if (block == nullptr) {
      block = std::make_shared<Block>(size_);
      blocks_.push_back(block);
    }
  }
  return block->cells.data();
}

std::vector<uint64_t> ThreadCounters::Sums() const {
  std::vector<uint64_t> sums(size_);
  const std::lock_guard<std::mutex> lock(mutex_);
  for (const std::shared_ptr<Block>& block : blocks_) {
    for (size_t i = 0; i < size_; ++i) sums[i] += block->cells[i].load(std::memory_order_relaxed);
  }
  return sums;
}

}  // namespace mmlab
