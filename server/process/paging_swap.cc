// Entries of pages that were swapped out: the fault that brings one back, swapoff, MADV_WILLNEED. Linux: mm/memory.c (do_swap_page),
// mm/swapfile.c (try_to_unuse), mm/madvise.c (swapin_walk_pmd_entry).
#include "server/base/check.h"
#include "server/base/explanation.h"
#include "server/files/files.h"
#include "server/physical/physical_memory.h"
#include "server/physical/vm_stat.h"
#include "server/process/anon_vma.h"
#include "server/process/paging_fault_state.h"
#include "server/process/paging_walk.h"

namespace mmlab {

void Paging::AddAnonRmap(Pfn pfn, Frame& frame, VmArea& vma, VirtAddr address, bool exclusive) {
  if (++frame.mapcount == 1) memory_.CountPage(vm_stat_, frame, NodeStat::kNrAnonPages, 1);
  if (frame.mapping == 0) {
    // A page that may have more users belongs to all that descend from the first.
    AnonVmaPrepare(vma);
    frame.state = FrameState::kAnon;
    frame.mapping = exclusive ? vma.anon_vma->id : vma.anon_vma->root->id;
    frame.index = vma.IndexOf(address, layout_.page_size).raw();
  }
  if (exclusive) frame.flags |= kPgAnonExclusive;
  if ((vma.flags & (kVmLocked | kVmSpecial)) == kVmLocked) MlockPage(pfn, frame);
}

void Paging::FreeSwapCache(Pfn pfn, const Frame& frame) {
  if ((frame.flags & kPgSwapCache) != 0 && frame.mapcount == 0) files_.swap().TryToFree(pfn);
}

FaultOutcome Paging::SwapFault(Fault& fault) {
  SwapAreas& swap = files_.swap();
  const SwapEntry entry = SwapOf(fault.pte);
  const std::optional<SwappedPage> found = files_.SwapIn(entry);
  if (!found.has_value()) return FaultOutcome::kOom;
  const Pfn pfn = found->pfn;
  const FaultOutcome outcome = found->major ? FaultOutcome::kMajor : FaultOutcome::kMinor;
  Frame& frame = memory_.frame(pfn);
  if (fault.access.write && (frame.flags & kPgLru) == 0) DrainLru();
  const bool certainly_exclusive = format_.SwapExclusive(fault.pte);
  swap.Free(entry);
  // should_try_to_free_swap()
  const bool wanted = fault.access.write && frame.refcount == 2;
  if (swap.full() || fault.vma.is(kVmLocked) || (frame.flags & kPgMlocked) != 0 || wanted) swap.TryToFree(pfn);
  CountRssFast(fault.task, fault.mm, RssKind::kAnon, 1);
  CountRssFast(fault.task, fault.mm, RssKind::kSwap, -1);
  Pte pte = format_.MkYoung(format_.Make(pfn, PageProtection(fault.vma)));
  const bool exclusive = certainly_exclusive || frame.refcount == 1;
  const bool written = exclusive && fault.access.write;
  if (written) pte = MaybeWritable(format_.MkDirty(pte), fault.vma);
  AddAnonRmap(pfn, frame, fault.vma, fault.address, exclusive);
  format_.Store(fault.table, fault.index, pte);
  if (Explanation* why = tracer_.explanation()) {
    why->Add(StepKind::kFaultDecision, "the page is back from swap and is mapped")
        .Address("address", fault.address)
        .Frame("pfn", pfn)
        .Truth("exclusive", exclusive)
        .Truth("read_from_swap", found->major)
        .Bits("before", fault.pte)
        .Bits("after", pte);
  }
  if (!fault.access.write || written) return outcome;
  fault.pte = pte;
  const FaultOutcome copied = WriteProtectFault(fault);
  return copied == FaultOutcome::kMinor ? outcome : copied;
}

void Paging::UnuseEntry(VmArea& vma, uint8_t* table, VirtAddr address, Pfn pfn) {
  const uint32_t index = format_.IndexOf(address, 1);
  const Pte pte = format_.Load(table, index);
  Frame& frame = memory_.frame(pfn);
  --vma.mm->rss[static_cast<size_t>(RssKind::kSwap)];
  ++vma.mm->rss[static_cast<size_t>(RssKind::kAnon)];
  ++frame.refcount;
  AddAnonRmap(pfn, frame, vma, address, format_.SwapExclusive(pte));
  format_.Store(table, index, format_.MkOld(format_.Make(pfn, PageProtection(vma))));
  files_.swap().Free(SwapOf(pte));
}

Errno Paging::Unuse(AddressSpace& mm, uint32_t area) {
  Errno error = Errno::kOk;
  for (VmArea* vma = mm.vmas.First(); vma != nullptr && error == Errno::kOk; vma = mm.vmas.Next(*vma)) {
    if (vma->anon_vma == nullptr) continue;
    ForEachTable(mm, vma->range(), [&](uint8_t* table, VirtAddr start, VirtAddr last) {
      for (VirtAddr address = start; address < last && error == Errno::kOk; address += layout_.page_size.bytes()) {
        const Pte pte = format_.Load(table, format_.IndexOf(address, 1));
        if (format_.None(pte) || !format_.IsSwap(pte) || SwapOf(pte).area != area) continue;
        const std::optional<SwappedPage> found = files_.SwapIn(SwapOf(pte));
        if (!found.has_value()) {
          error = Errno::kENOMEM;
          return;
        }
        UnuseEntry(*vma, table, address, found->pfn);
        Frame& frame = memory_.frame(found->pfn);
        files_.swap().TryToFree(found->pfn);
        PutPage(found->pfn, frame);
      }
    });
  }
  return error;
}

void Paging::CountSwap(const AddressSpace& mm, SwapCounts& counts) const {
  for (const VmArea* vma = mm.vmas.First(); vma != nullptr; vma = mm.vmas.Next(*vma)) {
    ForEachTable(mm, vma->range(), [&](const uint8_t* table, VirtAddr start, VirtAddr last) {
      for (VirtAddr address = start; address < last; address += layout_.page_size.bytes()) {
        const Pte pte = format_.Load(table, format_.IndexOf(address, 1));
        if (format_.None(pte) || !format_.IsSwap(pte)) continue;
        const SwapEntry entry = SwapOf(pte);
        ++counts[{entry.area, entry.offset}];
      }
    });
  }
}

void Paging::WillneedSwapped(VmArea& vma, VirtRange range) {
  const auto read = [&](SwapEntry entry) {
    bool fresh = false;
    if (const std::optional<Pfn> pfn = files_.ReadSwap(entry, &fresh); pfn.has_value()) PutPage(*pfn, memory_.frame(*pfn));
  };
  if (vma.file != nullptr && vma.shared()) {
    const PageIndex end = vma.IndexOf(range.end, layout_.page_size);
    std::vector<SwapEntry> entries;
    for (const auto& [index, entry] : vma.file->inode->pages.Swapped(vma.IndexOf(range.start, layout_.page_size), end)) {
      entries.push_back(entry);
    }
    for (const SwapEntry entry : entries) read(entry);
    return;
  }
  ForEachTable(*vma.mm, range, [&](uint8_t* table, VirtAddr start, VirtAddr last) {
    for (VirtAddr address = start; address < last; address += layout_.page_size.bytes()) {
      const Pte pte = format_.Load(table, format_.IndexOf(address, 1));
      if (!format_.None(pte) && format_.IsSwap(pte)) read(SwapOf(pte));
    }
  });
}

}  // namespace mmlab
