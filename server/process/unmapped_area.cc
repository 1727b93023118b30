#include <algorithm>

#include "server/arch/layout.h"
#include "server/base/event.h"
#include "server/files/files.h"
#include "server/process/mm_call.h"
#include "server/process/paging.h"
#include "server/process/process_limits.h"

// Where a mapping goes: get_unmapped_area() and vm_unmapped_area() of mm/mmap.c.

namespace mmlab {
namespace {

constexpr uint64_t kPmdSize = uint64_t{1} << 21;  // Of the only 64-bit layout.
constexpr uint64_t kMaxErrno = 4095;

}  // namespace

SysResult<uint64_t> MmCall::UnmappedAreaTopDown(uint64_t length, uint64_t low, uint64_t high) const {
  while (high > low) {
    const auto found = mm_.vmas.HighestGap(Bytes(length), VirtAddr(low), VirtAddr(high));
    if (!found.has_value()) break;
    const uint64_t gap = found->raw();
    const VmArea* above = mm_.vmas.Find(*found);
    // A stack above keeps its guard gap free below it.
    if (above == nullptr || !above->is(kVmGrowsDown) || StackGapStart(*above) >= gap + length) {
      if (why() != nullptr) {
        why()
            ->Add(StepKind::kVmaGapSearch, "highest hole that is large enough, filled from its top")
            .Address("chosen", *found)
            .Address("low_limit", VirtAddr(low))
            .Address("high_limit", VirtAddr(high));
      }
      return gap;
    }
    high = StackGapStart(*above);
    if (why() != nullptr) {
      why()->Add(StepKind::kVmaGapSearch, "hole refused: it would reach into the guard gap of a stack").Address("stack", above->start);
    }
  }
  return Errno::kENOMEM;
}

SysResult<uint64_t> MmCall::UnmappedAreaBottomUp(uint64_t length, uint64_t low, uint64_t high) const {
  while (high > low) {
    const auto found = mm_.vmas.LowestGap(Bytes(length), VirtAddr(low), VirtAddr(high));
    if (!found.has_value()) break;
    const uint64_t gap = found->raw();
    const VmArea* above = mm_.vmas.Find(*found);
    if (above == nullptr || !above->is(kVmGrowsDown) || StackGapStart(*above) >= gap + length - 1) {
      if (why() != nullptr) {
        why()
            ->Add(StepKind::kVmaGapSearch, "lowest hole that is large enough, filled from its bottom")
            .Address("chosen", *found)
            .Address("low_limit", VirtAddr(low))
            .Address("high_limit", VirtAddr(high));
      }
      return gap;
    }
    low = above->end.raw();
  }
  return Errno::kENOMEM;
}

// vm_unmapped_area().
SysResult<uint64_t> MmCall::VmUnmappedArea(bool top_down, uint64_t length, uint64_t low, uint64_t high, uint64_t align_mask) const {
  const uint64_t padded = length + align_mask;
  SysResult<uint64_t> found = top_down ? UnmappedAreaTopDown(padded, low, high) : UnmappedAreaBottomUp(padded, low, high);
  if (found.ok()) found = (found.value() + align_mask) & ~align_mask;
  if (EventSink* events = core_.tracer.events()) {
    events->Emit(EventKind::kVmUnmappedArea, {found.ok() ? found.value() : 0, -static_cast<int>(found.error()), mm_.total_vm.raw(),
                                              top_down, length, low, high, align_mask, 0});
  }
  return found;
}

// generic_get_unmapped_area_topdown() and generic_get_unmapped_area().
SysResult<uint64_t> MmCall::SearchArea(uint64_t address, uint64_t length, uint32_t flags) const {
  const uint64_t end = task_size_;
  const uint64_t min_address = MmapMinAddr();
  if (length > end - min_address) return Refuse(Errno::kENOMEM, "longer than the whole address space");
  if ((flags & kMapFixed) != 0) return address;
  if (address != 0) {
    address = PageAlign(address);
    const VmArea* above = mm_.vmas.Find(VirtAddr(address));
    if (end - length >= address && address >= min_address && (above == nullptr || address + length <= StackGapStart(*above))) {
      if (why() != nullptr) why()->Add(StepKind::kVmaGapSearch, "the hint is free").Address("chosen", VirtAddr(address));
      return address;
    }
    if (why() != nullptr) why()->Add(StepKind::kVmaGapSearch, "the hint is not free").Address("hint", VirtAddr(address));
  }
  if (!mm_.top_down) return VmUnmappedArea(false, length, mm_.mmap_base.raw(), end);
  const SysResult<uint64_t> found = VmUnmappedArea(true, length, std::max(page_mask_ + 1, min_address), mm_.mmap_base.raw());
  if (found.ok()) return found;
  if (why() != nullptr) why()->Add(StepKind::kVmaGapSearch, "no hole below mmap_base; searching bottom-up from TASK_UNMAPPED_BASE");
  return VmUnmappedArea(false, length, PageAlign(end / (core_.layout.is_x86() ? 3 : 4)), end);
}

// shmem_get_unmapped_area(): where huge pages of shmem may come, a mapping starts where one could be mapped by one entry. `file` null: the
// kernel's own mount.
uint64_t MmCall::HugeShmemArea(const OpenFile* file, uint64_t address, uint64_t length, uint64_t pgoff, uint32_t flags,
                               uint64_t chosen) const {
  const uint64_t size = uint64_t{core_.paging.huge_pages()} << shift_;
  const Files& files = core_.files;
  if (!PageAligned(chosen) || chosen > task_size_ - length || files.shmem_enabled() == ShmemEnabled::kDeny) return chosen;
  if (length < size || (flags & kMapFixed) != 0 || address == chosen) return chosen;
  const ShmemHuge option = file == nullptr ? files.internal_huge() : files.HugeOption(*file->inode);
  if (files.shmem_enabled() != ShmemEnabled::kForce && option == ShmemHuge::kNever) return chosen;
  const uint64_t offset = (pgoff << shift_) & (size - 1);
  if ((offset != 0 && offset + length < 2 * size) || (chosen & (size - 1)) == offset) return chosen;
  const uint64_t inflated = length + size - (page_mask_ + 1);
  if (inflated > task_size_) return chosen;
  const SysResult<uint64_t> found = SearchArea(address, inflated, flags);
  if (!found.ok() || !PageAligned(found.value())) return chosen;
  const uint64_t place = found.value() & (size - 1);
  const uint64_t aligned = found.value() + offset - place + (place > offset ? size : 0);
  return aligned > task_size_ - length ? chosen : aligned;
}

SysResult<uint64_t> MmCall::GetUnmappedArea(const OpenFile* file, uint64_t address, uint64_t length, uint64_t pgoff, uint32_t flags) {
  if (length > task_size_) return Refuse(Errno::kENOMEM, "longer than TASK_SIZE");
  uint64_t chosen = 0;
  // thp_get_unmapped_area() of ext4: large mappings start where a huge page could.
  if (file != nullptr && file->inode->kind == FileKind::kExt4 && core_.layout.word_bytes == 8 && !mm_.compat) {
    const uint64_t offset = pgoff << shift_;
    const uint64_t aligned = (offset + kPmdSize - 1) & ~(kPmdSize - 1);
    if (offset + length > aligned && offset + length - aligned >= kPmdSize) {
      const SysResult<uint64_t> padded = SearchArea(address, length + kPmdSize, flags);
      if (padded.ok() && padded.value() <= ~uint64_t{0} - kMaxErrno) {
        chosen = padded.value();
        if (chosen != address) chosen += (offset - chosen) & (kPmdSize - 1);
      }
    }
  }
  if (file != nullptr && file->inode->hugetlb != nullptr) {
    MMLAB_TRY_ASSIGN(chosen, HugetlbArea(*file, address, length, flags));
  } else if (chosen == 0) {
    MMLAB_TRY_ASSIGN(chosen, SearchArea(address, length, flags));
    const bool shmem = file != nullptr && file->inode->shmem();
    const bool made_shmem = (flags & kMapShared) != 0 && (file == nullptr || file->inode->kind == FileKind::kDevZero);
    if (shmem || made_shmem) chosen = HugeShmemArea(shmem ? file : nullptr, address, length, shmem ? pgoff : 0, flags, chosen);
  }
  // A fixed address among the last 4095 is taken for an error number by IS_ERR_VALUE().
  if (chosen > word_mask_ - kMaxErrno) {
    const uint64_t number = Wrap(~chosen + 1);
    return number <= static_cast<uint64_t>(Errno::kEOPNOTSUPP) ? static_cast<Errno>(number) : Errno::kEINVAL;
  }
  if (chosen > task_size_ - length) return Refuse(Errno::kENOMEM, "does not end below TASK_SIZE");
  if (!PageAligned(chosen)) return Refuse(Errno::kEINVAL, "the fixed address is not page-aligned");
  if (chosen < core_.limits.mmap_min_addr && !task_.capable()) return Refuse(Errno::kEPERM, "below vm.mmap_min_addr");
  return chosen;
}

}  // namespace mmlab
