// From a page to the entries that map it, for reclaim. Linux: mm/rmap.c (rmap_walk, folio_referenced, try_to_unmap).
#include "server/base/check.h"
#include "server/files/files.h"
#include "server/physical/lru_lists.h"
#include "server/physical/physical_memory.h"
#include "server/physical/vm_stat.h"
#include "server/process/address_space.h"
#include "server/process/anon_vma.h"
#include "server/process/paging.h"

namespace mmlab {

template <typename Visit>
void Paging::ForEachMapping(Pfn pfn, const Frame& frame, Visit visit) const {
  const PageSize page_size = layout_.page_size;
  const PageIndex index(frame.index);
  int left = frame.mapcount;
  const auto look = [&](VmArea& vma) {
    if (index < vma.pgoff || index >= vma.pgoff + page_size.WholePagesIn(vma.length())) return;
    const VirtAddr address = vma.start + page_size.BytesOf(index - vma.pgoff);
    uint8_t* table = FindTable(*vma.mm, address, 1);
    if (table == nullptr) return;
    const uint32_t at = format_.IndexOf(address, 1);
    const Pte pte = format_.Load(table, at);
    if (format_.None(pte) || !format_.Present(pte) || format_.Special(pte) || format_.PfnOf(pte) != pfn) return;
    --left;
    visit(vma, table, at);
  };
  if (frame.state == FrameState::kAnon) {
    const AnonVma* anon_vma = anon_vmas_.Find(static_cast<uint32_t>(frame.mapping));
    if (anon_vma == nullptr) return;
    for (auto it = anon_vma->vmas.begin(); it != anon_vma->vmas.end() && left > 0; ++it) look(*it->second);
    return;
  }
  const Inode* inode = files_.FindById(static_cast<uint32_t>(frame.mapping));
  if (inode == nullptr) return;
  for (auto it = inode->mappings.begin(); it != inode->mappings.end() && left > 0; ++it) look(*it->second);
}

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
  });
  return found;
}

void Paging::UnmapEntry(VmArea& vma, uint8_t* table, uint32_t index, Pfn pfn, Frame& frame) {
  AddressSpace& mm = *vma.mm;
  mm.UpdateHiwaterRss();
  const Pte pte = format_.Load(table, index);
  format_.Store(table, index, 0);
  if (format_.Dirty(pte) && frame.state != FrameState::kAnon) {
    if (Inode* inode = files_.FindById(static_cast<uint32_t>(frame.mapping)); inode != nullptr) files_.MarkDirty(*inode, pfn);
  }
  --mm.rss[static_cast<size_t>(KindOf(frame))];
  RemoveRmap(pfn, frame, vma);
  MMLAB_CHECK(frame.refcount > 1);
  --frame.refcount;
}

UnmapOutcome Paging::TryToUnmap(Pfn pfn) {
  Frame& frame = memory_.frame(pfn);
  const bool anonymous = frame.state == FrameState::kAnon;
  bool locked = false;
  bool dirty = (frame.flags & kPgDirty) != 0;
  ForEachMapping(pfn, frame, [&](VmArea& vma, const uint8_t* table, uint32_t index) {
    locked = locked || (vma.flags & (kVmLocked | kVmSpecial)) == kVmLocked;
    dirty = dirty || format_.Dirty(format_.Load(table, index));
  });
  if (locked) return UnmapOutcome::kStillUsed;
  if (anonymous && dirty) {
    // Lazily freed, and written again since: an ordinary anonymous page from now on.
    frame.flags |= kPgDirty;
    memory_.lru().ChangeFlags(pfn, kPgSwapBacked, 0);
    return UnmapOutcome::kStillUsed;
  }
  ForEachMapping(pfn, frame, [&](VmArea& vma, uint8_t* table, uint32_t index) { UnmapEntry(vma, table, index, pfn, frame); });
  return frame.mapcount == 0 ? UnmapOutcome::kUnmapped : UnmapOutcome::kStillUsed;
}

}  // namespace mmlab
