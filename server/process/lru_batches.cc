#include "server/process/lru_batches.h"

#include "server/base/check.h"
#include "server/base/hash.h"
#include "server/physical/lru_lists.h"
#include "server/physical/physical_memory.h"
#include "server/physical/vm_stat.h"

namespace mmlab {

bool LruBatches::AddTo(Batch& batch, int& count, Pfn pfn) {
  Frame& frame = memory_.frame(pfn);
  ++frame.refcount;
  batch[count++] = pfn;
  return count == kBatch || IsCompound(frame);
}

void LruBatches::MarkHot(Pfn pfn) {
  Frame& frame = memory_.frame(pfn);
  if ((frame.flags & kPgUnevictable) == 0) frame.flags |= kPgActive;
}

void LruBatches::MarkLazyFree(Pfn pfn) {
  const Frame& frame = memory_.frame(pfn);
  if (frame.state != FrameState::kAnon || (frame.flags & (kPgLru | kPgSwapBacked)) != (kPgLru | kPgSwapBacked)) return;
  if ((frame.flags & (kPgUnevictable | kPgMlocked | kPgSwapCache)) != 0) return;
  if (AddTo(lazy_free_, lazy_free_count_, pfn)) FlushLazyFree();
}

void LruBatches::Drain() {
  if (added_count_ > 0) FlushTo(added_, added_count_);
  if (mlocked_count_ > 0) FlushTo(mlocked_, mlocked_count_);
  if (lazy_free_count_ > 0) FlushLazyFree();
}

void LruBatches::FlushTo(Batch& batch, int& batch_count) {
  const int count = batch_count;
  batch_count = 0;
  for (int i = 0; i < count; ++i) {
    memory_.lru().Add(batch[i]);
    Put(batch[i]);
  }
}

void LruBatches::FlushLazyFree() {
  const int count = lazy_free_count_;
  lazy_free_count_ = 0;
  for (int i = 0; i < count; ++i) {
    // lru_lazyfree_fn()
    const uint32_t flags = memory_.frame(lazy_free_[i]).flags;
    if ((flags & (kPgLru | kPgSwapBacked)) == (kPgLru | kPgSwapBacked) && (flags & (kPgUnevictable | kPgMlocked | kPgSwapCache)) == 0) {
      memory_.lru().ChangeFlags(lazy_free_[i], 0, kPgActive | kPgReferenced | kPgSwapBacked);
      vm_stat_.Count(VmEvent::kPglazyfree, CompoundPages(memory_.frame(lazy_free_[i])));
      memory_.lru().CountOnly(memory_.frame(lazy_free_[i]).memcg, VmEvent::kPglazyfree);
    }
    Put(lazy_free_[i]);
  }
}

void LruBatches::Put(Pfn pfn) {
  Frame& frame = memory_.frame(pfn);
  MMLAB_CHECK(frame.refcount > 0);
  if (--frame.refcount == 0) memory_.FreePages(pfn, PageOrder(0));
}

void LruBatches::AddToHash(StateHasher& hasher) const {
  const auto add = [&hasher](const Batch& batch, int count) {
    hasher.Add(static_cast<uint64_t>(count));
    for (int i = 0; i < count; ++i) hasher.Add(batch[i].raw());
  };
  add(added_, added_count_);
  add(mlocked_, mlocked_count_);
  add(lazy_free_, lazy_free_count_);
}

}  // namespace mmlab
