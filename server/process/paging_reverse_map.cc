// From a page to the entries that map it, for reclaim. Linux: mm/rmap.c (rmap_walk, folio_referenced, try_to_unmap).
#include <bit>

#include "server/arch/layout.h"
#include "server/base/check.h"
#include "server/base/explanation.h"
#include "server/files/files.h"
#include "server/physical/lru_lists.h"
#include "server/physical/physical_memory.h"
#include "server/physical/vm_stat.h"
#include "server/process/address_space.h"
#include "server/process/paging.h"
#include "server/process/paging_rmap_walk.h"

namespace mmlab {

PageReferences Paging::TestClearReferenced(Pfn pfn) {
  if ((memory_.frame(pfn).flags & kPgHead) != 0) return TestClearHugeReferenced(pfn);
  PageReferences found;
  ForEachMapping(pfn, memory_.frame(pfn), [&](VmArea& vma, uint8_t* table, uint32_t index) {
    if ((vma.flags & (kVmLocked | kVmSpecial)) == kVmLocked) found.locked = true;
    const Pte pte = format_.Load(table, index);
    if (!format_.Young(pte)) return;
    format_.Store(table, index, format_.MkOld(pte));
    // A page that is only read once, from start to end, does not count as used.
    if (vma.is(kVmSeqRead)) return;
    ++found.referenced;
    found.executable = found.executable || vma.is(kVmExec);
    if (generations_) LookAround(vma, table, index, memory_.frame(pfn));
  });
  return found;
}

// should_defer_flush(), set_tlb_ubc_flush_pending(). x86-32 puts off what other CPUs have to be told and forgets the rest entry by entry;
// ARM64 tells all CPUs of each entry.
void Paging::NoteUnmapped(const AddressSpace& mm, bool dirty) {
  ++tlb_batch_.entries;
  if (!layout_.is_x86()) {
    ++tlb_batch_.flushes;
    return;
  }
  const uint64_t here = uint64_t{1} << memory_.current_cpu();
  if ((mm.cpu_mask & ~here) != 0) {
    tlb_batch_.cpus |= mm.cpu_mask;
    tlb_batch_.writable = tlb_batch_.writable || dirty;
  } else if ((mm.cpu_mask & here) != 0) {
    ++tlb_batch_.flushes;
    tlb_batch_.reached |= here;
  }
}

void Paging::FlushUnmapped(bool before_write) {
  if (tlb_batch_.entries == 0 || (before_write && !tlb_batch_.writable)) return;
  if (tlb_batch_.cpus != 0) {
    ++tlb_batch_.flushes;
    tlb_batch_.reached |= tlb_batch_.cpus;
    tlb_batch_.cpus = 0;
    tlb_batch_.writable = false;
  }
  if (before_write) return;
  if (Explanation* why = tracer_.explanation()) {
    const char* text = !layout_.is_x86() ? "each entry that was taken away is announced to the TLBs of all CPUs (TLBI)"
                       : tlb_batch_.flushes == 0
                           ? "no CPU has loaded the tables: no TLB has entries to forget"
                           : "TLBs forget the entries: at once for other CPUs, one by one where only this CPU has them";
    why->Add(StepKind::kTlbFlush, text)
        .Number("entries", tlb_batch_.entries)
        .Number("flushes", tlb_batch_.flushes)
        .Number("cpus", layout_.is_x86() ? std::popcount(tlb_batch_.reached) : memory_.cpus());
  }
  tlb_batch_ = TlbBatch();
}

void Paging::UnmapEntry(VmArea& vma, uint8_t* table, uint32_t index, Pfn pfn, Frame& frame) {
  AddressSpace& mm = *vma.mm;
  mm.UpdateHiwaterRss();
  const Pte pte = format_.Load(table, index);
  if (tracer_.explanation() != nullptr) [[unlikely]]
    NoteUnmapped(mm, format_.Dirty(pte));
  Pte left = 0;
  if (frame.state == FrameState::kAnon && (frame.flags & kPgSwapCache) != 0) {
    const SwapEntry entry = files_.swap().EntryOf(pfn);
    files_.swap().Duplicate(entry);
    left = format_.MakeSwap(entry.area, entry.offset);
    if ((frame.flags & kPgAnonExclusive) != 0) left = format_.MkSwapExclusive(left);
    if (format_.Dirty(pte)) frame.flags |= kPgDirty;
    ++mm.rss[static_cast<size_t>(RssKind::kSwap)];
  } else if (format_.Dirty(pte) && frame.state != FrameState::kAnon) {
    if (Inode* inode = files_.FindById(static_cast<uint32_t>(frame.mapping)); inode != nullptr) files_.MarkDirty(*inode, pfn);
  }
  format_.Store(table, index, left);
  --mm.rss[static_cast<size_t>(KindOf(frame))];
  RemoveRmap(pfn, frame, vma);
  MMLAB_CHECK(frame.refcount > 1);
  --frame.refcount;
}

UnmapOutcome Paging::TryToUnmap(Pfn pfn) {
  Frame& frame = memory_.frame(pfn);
  const bool lazily_freed = frame.state == FrameState::kAnon && (frame.flags & kPgSwapBacked) == 0;
  bool locked = false;
  bool dirty = (frame.flags & kPgDirty) != 0;
  const bool once = frame.mapcount == 1;  // Then one look is enough.
  ForEachMapping(pfn, frame, [&](VmArea& vma, uint8_t* table, uint32_t index) {
    locked = locked || (vma.flags & (kVmLocked | kVmSpecial)) == kVmLocked;
    dirty = dirty || format_.Dirty(format_.Load(table, index));
    if (once && !locked && !(lazily_freed && dirty)) UnmapEntry(vma, table, index, pfn, frame);
  });
  if (locked) return UnmapOutcome::kStillUsed;
  if (lazily_freed && dirty) {
    // Written again since: an ordinary anonymous page from now on.
    frame.flags |= kPgDirty;
    memory_.lru().ChangeFlags(pfn, kPgSwapBacked, 0);
    return UnmapOutcome::kStillUsed;
  }
  if (!once) ForEachMapping(pfn, frame, [&](VmArea& vma, uint8_t* table, uint32_t index) { UnmapEntry(vma, table, index, pfn, frame); });
  if (frame.mapcount > 0) return UnmapOutcome::kStillUsed;
  frame.flags &= ~uint32_t{kPgAnonExclusive};
  return UnmapOutcome::kUnmapped;
}

}  // namespace mmlab
