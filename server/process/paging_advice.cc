// What mlock, populate and madvise do to pages. Linux: mm/gup.c (populate_vma_page_range), mm/mlock.c, mm/madvise.c.
#include <algorithm>
#include <vector>

#include "server/files/files.h"
#include "server/physical/lru_lists.h"
#include "server/physical/physical_memory.h"
#include "server/physical/vm_stat.h"
#include "server/process/address_space.h"
#include "server/process/paging.h"
#include "server/process/paging_walk.h"

namespace mmlab {

void Paging::UpdateMlocked(VmArea& vma, VirtRange range) {
  DrainLru();
  const auto update = [&](Pfn pfn, Frame& frame) { vma.is(kVmLocked) ? MlockPage(pfn, frame) : MunlockPage(pfn, frame); };
  const auto update_table = [&](const uint8_t* table, VirtAddr start, VirtAddr last) {
    uint32_t index = format_.IndexOf(start, 1);
    const auto count = static_cast<uint32_t>((last - start).raw() >> layout_.page_size.shift());
    for (const uint32_t stop = index + count; index < stop; ++index) {
      Pfn pfn;
      Frame* frame = NormalPage(format_.Load(table, index), &pfn);
      if (frame != nullptr && !IsCompound(*frame)) update(pfn, *frame);  // Small entries do not lock huge pages.
    }
  };
  ForEachTable(*vma.mm, range, update_table, [&](const uint8_t* table, uint32_t index, VirtAddr, VirtAddr) {
    const uint64_t entry = format_.Load(table, index);
    if (!IsHugeZero(entry)) update(format_.HugePfn(entry), memory_.frame(format_.HugePfn(entry)));
    return true;
  });
}

Errno Paging::PopulateRange(Process& task, VmArea& vma, VirtRange range, bool write, bool force) {
  // check_vma_flags()
  if (vma.is(kVmIo | kVmPfnMap)) return Errno::kEFAULT;
  const bool copy_on_write = (vma.flags & (kVmShared | kVmMayWrite)) == kVmMayWrite;
  if (write && !vma.is(kVmWrite) && (!force || !copy_on_write)) return Errno::kEFAULT;
  if (!write && !vma.is(kVmRead) && (!force || !vma.is(kVmMayRead))) return Errno::kEFAULT;

  if (vma.is(kVmHugetlb)) return PopulateHugetlb(vma, range, write);
  const Bytes page = layout_.page_size.bytes();
  for (VirtAddr address = range.start; address < range.end; address += page) {
    while (true) {
      if (FollowHuge(*vma.mm, address, write)) break;
      // follow_page_pte()
      uint8_t* table = FindTable(*vma.mm, address, 1);
      const Pte pte = table == nullptr ? 0 : format_.Load(table, format_.IndexOf(address, 1));
      if (!format_.None(pte) && format_.Present(pte) && (!write || format_.Writable(pte))) {
        Pfn pfn;
        Frame* frame = NormalPage(pte, &pfn);
        if (write && frame != nullptr && !format_.Dirty(pte)) {
          if (Inode* inode = frame->state == FrameState::kAnon ? nullptr : files_.FindById(static_cast<uint32_t>(frame->mapping))) {
            files_.MarkDirty(*inode, pfn);
          } else {
            frame->flags |= kPgDirty;
          }
        }
        break;
      }
      const FaultAccess access{.write = write, .execute = false, .user = false};
      const FaultOutcome outcome = HandleFault(task, vma, address, access);
      if (outcome == FaultOutcome::kMinor || outcome == FaultOutcome::kMajor) continue;
      // Pages that were there let GUP answer how many first; its caller goes on at the page that is not, and only then hears why.
      // Whoever is to die hears nothing more (fatal_signal_pending()).
      if (address > range.start && !task.killed) HandleFault(task, vma, address, access);
      return outcome == FaultOutcome::kOom ? Errno::kENOMEM : Errno::kEFAULT;
    }
  }
  return Errno::kOk;
}

void Paging::MadviseFree(Process& /*task*/, VmArea& vma, VirtRange range) {
  DrainLru();
  vma.mm->UpdateHiwaterRss();
  const auto free_table = [&](uint8_t* table, VirtAddr start, VirtAddr last) {
    uint32_t index = format_.IndexOf(start, 1);
    const auto count = static_cast<uint32_t>((last - start).raw() >> layout_.page_size.shift());
    for (const uint32_t stop = index + count; index < stop; ++index) {
      const Pte pte = format_.Load(table, index);
      if (!format_.None(pte) && format_.IsSwap(pte)) {
        format_.Store(table, index, 0);
        --vma.mm->rss[static_cast<size_t>(RssKind::kSwap)];
        files_.swap().FreeWithCache(SwapOf(pte));
        continue;
      }
      Pfn pfn;
      Frame* frame = NormalPage(pte, &pfn);
      if (frame == nullptr) continue;
      // folio_estimated_sharers() looks at the first page only.
      if (IsCompound(*frame) && (MapCountOf(HugeHead(pfn), HeadOf(pfn, *frame)) != 1 || !SplitHugePage(HugeHead(pfn)))) break;
      if ((frame->flags & (kPgDirty | kPgSwapCache)) != 0) {
        if (frame->mapcount != 1) continue;
        if ((frame->flags & kPgSwapCache) != 0 && !files_.swap().TryToFree(pfn)) continue;
        frame->flags &= ~uint32_t{kPgDirty};
      }
      if (format_.Young(pte) || format_.Dirty(pte)) format_.Store(table, index, format_.MkClean(format_.MkOld(pte)));
      lru_.MarkLazyFree(pfn);
    }
  };
  ForEachTable(*vma.mm, range, free_table,
               [&](uint8_t* table, uint32_t, VirtAddr start, VirtAddr last) { return LazyFreeHuge(vma, table, start, last); });
}

void Paging::MadviseCold(Process& /*task*/, VmArea& vma, VirtRange range) {
  DrainLru();
  AgeRange(vma, range, nullptr);
}

void Paging::AgeRange(VmArea& vma, VirtRange range, std::vector<Pfn>* isolated) {
  if (vma.is(kVmPfnMap)) return;
  const auto age_table = [&](uint8_t* table, VirtAddr start, VirtAddr last) {
    for (VirtAddr address = start; address < last; address += layout_.page_size.bytes()) {
      const uint32_t index = format_.IndexOf(address, 1);
      const Pte pte = format_.Load(table, index);
      Pfn pfn;
      Frame* frame = NormalPage(pte, &pfn);
      if (frame != nullptr && IsCompound(*frame) && (MapCountOf(pfn, *frame) != 1 || !SplitHugePage(HugeHead(pfn)))) break;
      if (frame == nullptr || (frame->flags & kPgLru) == 0 || frame->mapcount != 1) continue;
      if (format_.Young(pte)) format_.Store(table, index, format_.MkOld(pte));
      frame->flags &= ~uint32_t{kPgReferenced};
      if ((frame->flags & kPgUnevictable) != 0) continue;
      if (isolated != nullptr) {
        isolated->push_back(pfn);
      } else if ((frame->flags & kPgActive) != 0 || generations_) {
        // folio_deactivate()
        memory_.lru().ChangeFlags(pfn, 0, kPgActive);
        memory_.lru().Count(frame->memcg, VmEvent::kPgdeactivate);
      }
    }
  };
  ForEachTable(*vma.mm, range, age_table,
               [&](uint8_t* table, uint32_t, VirtAddr start, VirtAddr last) { return AgeHuge(table, start, last, isolated); });
}

void Paging::MadvisePageout(Process& /*task*/, VmArea& vma, VirtRange range) {
  DrainLru();
  std::vector<Pfn> isolated;
  AgeRange(vma, range, &isolated);
  if (!isolated.empty() && reclaimer_ != nullptr) reclaimer_->ReclaimPages(isolated);
}

void Paging::MadviseWillneed(VmArea& vma, VirtRange range) {
  if (vma.is(kVmHugetlb)) return;
  if (vma.file == nullptr || vma.file->inode->shmem()) {
    WillneedSwapped(vma, range);
    DrainLru();
    return;
  }
  if (!vma.file->inode->on_disk()) return;
  Inode& inode = *vma.file->inode;
  const PageIndex file_end = PageIndex() + layout_.page_size.PagesHolding(Bytes(inode.size));
  const PageIndex end = std::min(file_end, vma.IndexOf(range.end, layout_.page_size));
  for (PageIndex index = vma.IndexOf(range.start, layout_.page_size); index < end; ++index) {
    if (!files_.PageForRead(inode, index).ok()) return;
  }
}

}  // namespace mmlab
