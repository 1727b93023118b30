// From a page to the entries that map it, for reclaim. Linux: mm/rmap.c (rmap_walk, folio_referenced, try_to_unmap).
#include "server/base/check.h"
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

void Paging::UnmapEntry(VmArea& vma, uint8_t* table, uint32_t index, Pfn pfn, Frame& frame) {
  AddressSpace& mm = *vma.mm;
  mm.UpdateHiwaterRss();
  const Pte pte = format_.Load(table, index);
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
