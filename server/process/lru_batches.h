#ifndef MMLAB_SERVER_PROCESS_LRU_BATCHES_H_
#define MMLAB_SERVER_PROCESS_LRU_BATCHES_H_

#include <array>
#include <cstdint>

#include "server/base/address.h"

namespace mmlab {

class PhysicalMemory;
class StateHasher;
class VmStat;

// The per-CPU batches through which pages reach the LRU lists (lru_add) and lazily freed pages lose PG_swapbacked (lru_lazyfree).
// Linux: struct cpu_fbatches, mm/swap.c.
//
// What a process sees of them: MADV_FREE only marks pages that are on the LRU, and smaps shows LazyFree only after the batch was emptied.
// Always true: each entry holds one reference on its page.
class LruBatches {
 public:
  static constexpr int kBatch = 15;  // PAGEVEC_SIZE

  LruBatches(PhysicalMemory& memory, VmStat& vm_stat) : memory_(memory), vm_stat_(vm_stat) {}

  void Add(Pfn pfn) {  // folio_add_lru()
    if (hot_) [[unlikely]]
      MarkHot(pfn);
    // A huge page empties the batch (folio_may_be_lru_cached()).
    if (AddTo(added_, added_count_, pfn)) FlushTo(added_, added_count_);
  }
  void AddMlocked(Pfn pfn) {  // mlock_new_page(): onto the LRU's unevictable list, by a batch of its own.
    if (AddTo(mlocked_, mlocked_count_, pfn)) FlushTo(mlocked_, mlocked_count_);
  }
  // Whether what is added now is to count as just used (lru_gen_in_fault()).
  void SetHot(bool hot) { hot_ = hot; }
  void MarkLazyFree(Pfn pfn);  // mark_page_lazyfree()
  void Drain();                // lru_add_drain()
  void AddToHash(StateHasher& hasher) const;

 private:
  using Batch = std::array<Pfn, kBatch>;
  bool AddTo(Batch& batch, int& count, Pfn pfn);  // Whether the batch must be emptied.
  void FlushTo(Batch& batch, int& batch_count);
  void FlushLazyFree();
  void Put(Pfn pfn);
  void MarkHot(Pfn pfn);

  PhysicalMemory& memory_;
  VmStat& vm_stat_;
  bool hot_ = false;
  Batch added_;
  Batch mlocked_;
  Batch lazy_free_;
  int added_count_ = 0;
  int mlocked_count_ = 0;
  int lazy_free_count_ = 0;
};

}  // namespace mmlab

#endif  // MMLAB_SERVER_PROCESS_LRU_BATCHES_H_
