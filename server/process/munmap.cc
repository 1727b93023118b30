#include "server/process/commit_account.h"
#include "server/process/mm_call.h"
#include "server/process/paging.h"
#include "server/process/process_limits.h"

// munmap(): do_mas_munmap() and do_mas_align_munmap() of mm/mmap.c.

namespace mmlab {

Errno MmCall::Munmap(uint64_t address, uint64_t length) { return DoMunmap(UntagAddress(address), length); }

Errno MmCall::DoMunmap(uint64_t start, uint64_t length) {
  if (!PageAligned(start) || start > task_size_ || length > task_size_ - start) {
    return Refuse(Errno::kEINVAL, "the range is not page-aligned or leaves user space");
  }
  const uint64_t end = start + PageAlign(length);
  if (end == start) return Refuse(Errno::kEINVAL, "length 0");
  VmArea* vma = mm_.vmas.FirstIn({VirtAddr(start), VirtAddr(end)});
  if (vma == nullptr) {
    if (why() != nullptr) why()->Add(StepKind::kVmaLookup, "nothing is mapped in the range; that is no error");
    return Errno::kOk;
  }
  return MunmapAligned(vma, start, end);
}

// Takes away [start, end), which begins at or below `vma`, the first VMA in it.
Errno MmCall::MunmapAligned(VmArea* vma, uint64_t start, uint64_t end) {
  if (start > vma->start.raw()) {
    // A hole in the middle leaves one VMA more than before.
    if (end < vma->end.raw() && MapCountAbove(1)) return Refuse(Errno::kENOMEM, "the hole would exceed vm.max_map_count");
    MMLAB_TRY(SplitUnchecked(*vma, start, false));
    vma = mm_.vmas.Next(*vma);
  }
  VmArea* last = nullptr;
  uint64_t locked = 0;
  for (VmArea* part = vma; part != nullptr && part->start.raw() < end; part = mm_.vmas.Next(*part)) {
    if (part->end.raw() > end) {
      VmArea* upper = part;
      MMLAB_TRY(SplitUnchecked(*upper, end, true));
      part = mm_.vmas.Previous(*upper);
      if (vma == upper) vma = part;
    }
    if (part->is(kVmLocked)) locked += part->length().raw() >> shift_;
    last = part;
  }
  mm_.locked_vm -= PageCount(locked);
  const VmArea* prev = mm_.vmas.Previous(*vma);
  VmArea* next = mm_.vmas.Next(*last);

  mm_.UpdateHiwaterRss();
  const VirtRange range{vma->start, last->end};
  for (VmArea* part = vma; part != next; part = mm_.vmas.Next(*part)) core_.paging.Zap(task_, *part, part->range());
  core_.paging.FreeTables(mm_, range, prev == nullptr ? VirtAddr(0) : prev->end, next == nullptr ? VirtAddr(0) : next->start);

  mm_.UpdateHiwaterVm();
  int64_t accounted = 0;
  while (vma != next) {
    VmArea* following = mm_.vmas.Next(*vma);
    if (vma->is(kVmAccount)) accounted += PagesIn(*vma);
    mm_.Account(vma->flags, -PagesIn(*vma));
    if (why() != nullptr) why()->Add(StepKind::kVmaLookup, "VMA removed").Address("start", vma->start).Address("end", vma->end);
    DropVma(*vma);
    vma = following;
  }
  core_.commit.Uncharge(accounted);
  return Errno::kOk;
}

}  // namespace mmlab
