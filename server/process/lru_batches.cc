#include "server/process/lru_batches.h"

#include <algorithm>

#include "server/base/check.h"
#include "server/base/hash.h"
#include "server/physical/physical_memory.h"

namespace mmlab {

void LruBatches::AddTo(Batch& batch, int& count, Pfn pfn) {
  ++memory_.frame(pfn).refcount;
  batch[count++] = pfn;
}

void LruBatches::MarkLazyFree(Pfn pfn) {
  const Frame& frame = memory_.frame(pfn);
  if (frame.state != FrameState::kAnon || (frame.flags & (kPgLru | kPgSwapBacked)) != (kPgLru | kPgSwapBacked)) return;
  if ((frame.flags & (kPgUnevictable | kPgMlocked | kPgSwapCache)) != 0) return;
  AddTo(lazy_free_, lazy_free_count_, pfn);
  if (lazy_free_count_ == kBatch) FlushLazyFree();
}

void LruBatches::Drain() {
  if (added_count_ > 0) FlushAdded();
  if (lazy_free_count_ > 0) FlushLazyFree();
}

void LruBatches::FlushAdded() {
  const int count = added_count_;
  added_count_ = 0;
  for (int i = 0; i < count; ++i) {
    memory_.frame(added_[i]).flags |= kPgLru;
    Put(added_[i]);
  }
}

void LruBatches::FlushLazyFree() {
  const int count = lazy_free_count_;
  lazy_free_count_ = 0;
  for (int i = 0; i < count; ++i) {
    Frame& frame = memory_.frame(lazy_free_[i]);
    if ((frame.flags & (kPgUnevictable | kPgMlocked | kPgSwapCache)) == 0) {
      frame.flags &= ~uint32_t{kPgActive | kPgReferenced | kPgSwapBacked};
    }
    Put(lazy_free_[i]);
  }
}

void LruBatches::Put(Pfn pfn) {
  Frame& frame = memory_.frame(pfn);
  MMLAB_CHECK(frame.refcount > 0);
  if (--frame.refcount == 0) memory_.FreePages(pfn, PageOrder(0));
}

int LruBatches::CountOf(Pfn pfn) const {
  return static_cast<int>(std::count(added_.begin(), added_.begin() + added_count_, pfn) +
                          std::count(lazy_free_.begin(), lazy_free_.begin() + lazy_free_count_, pfn));
}

void LruBatches::AddToHash(StateHasher& hasher) const {
  for (int i = 0; i < added_count_; ++i) hasher.Add(added_[i].raw());
  hasher.Add(static_cast<uint64_t>(added_count_));
  for (int i = 0; i < lazy_free_count_; ++i) hasher.Add(lazy_free_[i].raw());
  hasher.Add(static_cast<uint64_t>(lazy_free_count_));
}

}  // namespace mmlab
