// Huge pages become small ones: their entries, and the pages themselves. Linux: mm/huge_memory.c (__split_huge_pmd_locked,
// split_huge_page_to_list, deferred_split_scan).
#include <vector>

#include "server/base/check.h"
#include "server/base/explanation.h"
#include "server/physical/lru_lists.h"
#include "server/physical/physical_memory.h"
#include "server/physical/vm_stat.h"
#include "server/process/address_space.h"
#include "server/process/anon_vma.h"
#include "server/process/paging.h"
#include "server/process/paging_huge_map.h"

namespace mmlab {

void Paging::SplitHugeAt(VmArea& vma, VirtAddr address) {
  if (vma.is(kVmHugetlb)) return;  // Its boundaries are those of its pages.
  const uint64_t size = format_.coverage(2);
  const uint64_t start = address.raw() & ~(size - 1);
  if (start == address.raw() || start < vma.start.raw() || start + size > vma.end.raw()) return;
  uint8_t* table = FindTable(*vma.mm, address, 2);
  if (table == nullptr || !format_.Huge(format_.Load(table, format_.IndexOf(address, 2)))) return;
  SplitHugeEntry(vma, table, address, "a VMA gets a boundary inside the huge page");
}

// __split_huge_pmd_locked(). The huge page stays one page, which small entries map; of a file nothing maps it any more, until a fault does.
void Paging::SplitHugeEntry(VmArea& vma, uint8_t* table, VirtAddr address, const char* reason) {
  const uint32_t index = format_.IndexOf(address, 2);
  const uint64_t entry = format_.Load(table, index);
  MMLAB_CHECK(format_.Huge(entry));
  vm_stat_.Count(VmEvent::kThpSplitPmd);
  if (!vma.anonymous()) {
    if (Explanation* why = tracer_.explanation()) {
      why->Add(StepKind::kHugeSplit, reason)
          .Address("address", VirtAddr(address.raw() & ~(format_.coverage(2) - 1)))
          .Frame("pfn", format_.HugePfn(entry));
    }
    return ZapHugeFile(vma, table, address);
  }
  const Pfn lowest = WithdrawTable(*vma.mm);
  FillSplitTable(vma, entry, TableBytes(lowest));
  format_.Store(table, index, format_.TableEntry(lowest, 2));
  if (Explanation* why = tracer_.explanation()) {
    why->Add(StepKind::kHugeSplit, reason)
        .Address("address", VirtAddr(address.raw() & ~(format_.coverage(2) - 1)))
        .Frame("pfn", format_.HugePfn(entry))
        .Frame("table", lowest);
  }
}

void Paging::FillSplitTable(const VmArea& vma, uint64_t entry, uint8_t* table) {
  const uint64_t protection = PageProtection(vma);
  if (IsHugeZero(entry)) {
    const Pte pte = format_.MkSpecial(format_.Make(memory_.zero_frame(), protection));
    for (uint32_t i = 0; i < huge_pages(); ++i) format_.Store(table, i, pte);
    return;
  }
  const Pfn head = format_.HugePfn(entry);
  Frame& frame = memory_.frame(head);
  if (format_.Dirty(entry)) frame.flags |= kPgDirty;
  const uint32_t exclusive = frame.flags & kPgAnonExclusive;
  frame.refcount += static_cast<int32_t>(huge_pages()) - 1;
  for (uint32_t i = 0; i < huge_pages(); ++i) {
    // The dirty bit goes to the page, not to its entries.
    Pte pte = MaybeWritable(format_.Make(head + PageCount(i), protection), vma);
    if (!format_.Writable(entry)) pte = format_.WrProtect(pte);
    if (!format_.Young(entry)) pte = format_.MkOld(pte);
    format_.Store(table, i, pte);
    Frame& page = memory_.frame(head + PageCount(i));
    page.flags |= exclusive;
    ++page.mapcount;
  }
  AddEntireMap(head, -1);
  if (EntireMapCount(head) == 0) memory_.CountPage(vm_stat_, frame, NodeStat::kNrAnonTransparentHugepages, -int64_t{huge_pages()});
  if ((vma.flags & (kVmLocked | kVmSpecial)) == kVmLocked) MunlockPage(head, frame);
}

bool Paging::SplitHugePage(Pfn head, int references) {
  Frame& frame = memory_.frame(head);
  MMLAB_CHECK((frame.flags & kPgHead) != 0);
  const bool of_file = frame.state == FrameState::kShmem;
  if (of_file) UnmapHugeFile(head);
  int64_t maps = of_file ? huge_pages() : 0;  // The file has a reference for each small page.
  for (uint32_t i = 0; i < huge_pages(); ++i) maps += memory_.frame(head + PageCount(i)).mapcount;
  if (maps + EntireMapCount(head) + references != frame.refcount) {
    vm_stat_.Count(VmEvent::kThpSplitPageFailed);
    return false;
  }
  if (of_file) {
    files_.NoteSplit(head);
  } else {
    SplitEntriesOf(head, frame);
  }
  ForgetDeferredSplit(head);
  vm_stat_.Count(VmEvent::kThpSplitPage);
  if (Explanation* why = tracer_.explanation()) {
    why->Add(StepKind::kHugeSplit, "the huge page becomes small pages; those that nothing maps are free").Frame("pfn", head);
  }
  SplitFrames(head, references);
  if (of_file) files_.DropBehindEnd(*files_.FindById(static_cast<uint32_t>(frame.mapping)), PageIndex(frame.index));
  return true;
}

// __split_huge_page()
void Paging::SplitFrames(Pfn head, int references) {
  Frame& frame = memory_.frame(head);
  const Frame whole = frame;  // What all parts inherit (__split_huge_page_tail()).
  const int of_cache = frame.state == FrameState::kShmem ? 1 : 0;
  frame.flags &= ~uint32_t{kPgHead};
  memory_.SplitPage(head, PageOrder(format_.shift(2) - format_.shift(1)));
  constexpr uint32_t kInherited =
      kPgReferenced | kPgSwapBacked | kPgSwapCache | kPgMlocked | kPgUptodate | kPgActive | kPgWorkingset | kPgUnevictable | kPgDirty;
  for (uint32_t i = 0; i < huge_pages(); ++i) {
    Frame& page = memory_.frame(head + PageCount(i));
    if (i > 0) {
      page.flags = (page.flags & kPgAnonExclusive) | (whole.flags & kInherited);
      page.mapping = whole.mapping;
      page.index = whole.index + i;
      page.memcg = whole.memcg;
      if ((whole.flags & kPgUnevictable) != 0) page.prev = 0;
    }
    page.refcount = page.mapcount + of_cache + 1;  // Ours, until all are in their places.
  }
  frame.refcount += references;
  if ((whole.flags & kPgLru) != 0) {
    memory_.lru().SplitCompound(head, huge_pages());
  } else {
    for (uint32_t i = 1; i < huge_pages(); ++i) memory_.lru().Add(head + PageCount(i));  // Only the first is in the caller's hands.
  }
  RemapSplitPages(head);
}

// unmap_folio(): every huge entry that maps the page is split.
void Paging::SplitEntriesOf(Pfn head, const Frame& frame) {
  if (EntireMapCount(head) == 0) return;
  ForEachHugeMapping(head, frame, [&](VmArea& vma, uint8_t* table, VirtAddr address) {
    SplitHugeEntry(vma, table, address, "the huge page itself is to be split");
  });
}

// remap_page(), and the end of __split_huge_page(): pages mapped into locked memory are locked one by one from now on, and what nothing
// maps goes.
void Paging::RemapSplitPages(Pfn head) {
  ForEachSubpageMapping(head, memory_.frame(head), [&](const VmArea& vma, const uint8_t*, uint32_t, Pfn pfn) {
    if ((vma.flags & (kVmLocked | kVmSpecial)) == kVmLocked) MlockPage(pfn, memory_.frame(pfn));
  });
  for (uint32_t i = 0; i < huge_pages(); ++i) PutPage(head + PageCount(i), memory_.frame(head + PageCount(i)));
}

// deferred_split_scan()
uint64_t Paging::ShrinkDeferredSplits(uint64_t pages) {
  std::vector<Pfn> heads;
  for (auto it = deferred_splits_.begin(); it != deferred_splits_.end() && heads.size() < pages; ++it) heads.push_back(it->second);
  uint64_t split = 0;
  for (const Pfn head : heads) split += SplitHugePage(head);
  return split;
}

}  // namespace mmlab
