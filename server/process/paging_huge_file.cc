// Huge pages of shmem in page tables: who may have one, mapping, unmapping, collapsing. Linux: mm/memory.c (do_set_pmd), mm/huge_memory.c
// (__split_huge_pmd_locked, zap_huge_pmd, unmap_folio of files), mm/rmap.c (page_add_file_rmap), mm/khugepaged.c (collapse_file).
#include <algorithm>

#include "server/base/check.h"
#include "server/base/explanation.h"
#include "server/files/files.h"
#include "server/physical/contents.h"
#include "server/physical/lru_lists.h"
#include "server/physical/memory_controller.h"
#include "server/physical/physical_memory.h"
#include "server/physical/vm_stat.h"
#include "server/process/address_space.h"
#include "server/process/paging.h"
#include "server/process/paging_fault_state.h"
#include "server/process/paging_huge_map.h"

namespace mmlab {

bool Paging::HugeFits(const VmArea& vma, VirtAddr start) const {
  const PageSize page_size = layout_.page_size;
  if (!vma.anonymous() && (((vma.start.raw() >> page_size.shift()) - vma.pgoff.raw()) & (huge_pages() - 1)) != 0) return false;
  return start >= vma.start && start.raw() + format_.coverage(2) <= vma.end.raw();
}

HugeAdvice Paging::AdviceOf(const VmArea& vma) const {
  if (vma.is(kVmNoHugePage) || vma.mm->thp_disabled || vma.mm->replacement != nullptr) return HugeAdvice::kNo;
  return vma.is(kVmHugePage) ? HugeAdvice::kYes : HugeAdvice::kNone;
}

// do_set_pmd(): false when small entries have to do.
bool Paging::MapHugeFile(Fault& fault, Pfn pfn) {
  if (fault.table != nullptr || !IsCompound(memory_.frame(pfn)) || fault.mm.replacement != nullptr) return false;
  const VirtAddr start(fault.address.raw() & ~(format_.coverage(2) - 1));
  if (!HugeFits(fault.vma, start)) return false;
  SetHugeFile(fault.vma, start, HugeHead(pfn), fault.access.write);
  return true;
}

void Paging::SetHugeFile(VmArea& vma, VirtAddr start, Pfn head, bool write) {
  uint64_t entry = format_.Make(head, PageProtection(vma));
  if (write) entry = MaybeWritable(format_.MkDirty(entry), vma);
  entry = format_.MkHuge(format_.MkYoung(entry));
  vma.mm->rss[static_cast<size_t>(RssKind::kShmem)] += huge_pages();
  AddHugeFileRmap(head, vma);
  format_.Store(FindTable(*vma.mm, start, 2), format_.IndexOf(start, 2), entry);
  vm_stat_.Count(VmEvent::kThpFileMapped);
  if (Explanation* why = tracer_.explanation()) {
    why->Add(StepKind::kHugeFault, "the file's huge page is mapped by one entry")
        .Address("address", start)
        .Frame("pfn", head)
        .Number("pages", huge_pages())
        .Bits("entry", entry);
  }
}

// page_add_file_rmap() of a huge entry.
void Paging::AddHugeFileRmap(Pfn head, VmArea& vma) {
  Frame& frame = memory_.frame(head);
  ++frame.refcount;
  AddEntireMap(head, 1);
  if (EntireMapCount(head) == 1) {
    int64_t unmapped = 0;
    for (uint32_t i = 0; i < huge_pages(); ++i) unmapped += memory_.frame(head + PageCount(i)).mapcount == 0 ? 1 : 0;
    memory_.CountPage(vm_stat_, frame, NodeStat::kNrShmemPmdmapped, huge_pages());
    memory_.CountPage(vm_stat_, frame, NodeStat::kNrMapped, unmapped);
  }
  if ((vma.flags & (kVmLocked | kVmSpecial)) == kVmLocked) MlockPage(head, frame);
}

// A huge entry of a file goes; its pages come back with a fault.
void Paging::ZapHugeFile(VmArea& vma, uint8_t* table, VirtAddr address) {
  const uint32_t index = format_.IndexOf(address, 2);
  const uint64_t entry = format_.Load(table, index);
  const Pfn head = format_.HugePfn(entry);
  Frame& frame = memory_.frame(head);
  format_.Store(table, index, 0);
  if (format_.Dirty(entry)) frame.flags |= kPgDirty;
  if (format_.Young(entry) && !vma.is(kVmSeqRead)) memory_.lru().MarkAccessed(head);
  RemoveEntireMap(head, frame, vma);
  vma.mm->rss[static_cast<size_t>(RssKind::kShmem)] -= huge_pages();
  PutPage(head, frame);
}

// unmap_folio() of a huge page of a file: every entry that maps a part of it goes.
void Paging::UnmapHugeFile(Pfn head) {
  const PageIndex first(memory_.frame(head).index);
  const PageSize page_size = layout_.page_size;
  ForEachVmaOf(memory_.frame(head), [&](VmArea& vma) {
    const PageIndex from = std::max(first, vma.pgoff);
    const PageIndex to = std::min(first + PageCount(huge_pages()), vma.pgoff + page_size.WholePagesIn(vma.length()));
    if (from >= to) return;
    const VirtAddr start = vma.start + page_size.BytesOf(from - vma.pgoff);
    vma.mm->UpdateHiwaterRss();
    ZapRange(nullptr, vma, VirtRange{start, start + page_size.BytesOf(to - from)}, /*even_cows=*/false);
  });
}

bool Paging::SplitToMove(Pfn head) {
  const bool split = SplitHugePage(head, /*references=*/1);
  if (split) vm_stat_.Count(VmEvent::kThpMigrationSplit);
  return split;
}

// hpage_collapse_scan_file(): holds the pages of a range of a file against the limits.
CollapseResult Paging::ScanFile(const Inode& inode, PageIndex first, bool khugepaged, ScanSums& sums) const {
  const KhugepagedSettings& limits = huge_settings_.khugepaged;
  const PageIndex end = first + PageCount(huge_pages());
  sums = ScanSums();
  for ([[maybe_unused]] const auto& swapped : inode.pages.Swapped(first, end)) ++sums.swapped;
  if (khugepaged && sums.swapped > limits.max_ptes_swap) {
    vm_stat_.Count(VmEvent::kThpScanExceedSwapPte);
    return CollapseResult::kTooManySwapped;
  }
  uint32_t present = 0;
  for (const auto& [index, pfn] : inode.pages.Pages(first, end)) {
    ++present;
    const Frame& frame = memory_.frame(pfn);
    if (IsCompound(frame)) return CollapseResult::kMappedSmall;
    if ((frame.flags & kPgLru) == 0) return CollapseResult::kNotOnLru;
    if (frame.refcount != 1 + frame.mapcount) return CollapseResult::kPinned;
  }
  sums.none = huge_pages() - present - sums.swapped;
  if (khugepaged && huge_pages() - present > limits.max_ptes_none) {
    vm_stat_.Count(VmEvent::kThpScanExceedNonePte);
    return CollapseResult::kTooManyNone;
  }
  return present + sums.swapped == 0 ? CollapseResult::kFailed : CollapseResult::kSucceed;
}

// The first half of collapse_file(): what is swapped out comes back, and nobody maps anything of the range any more.
CollapseResult Paging::GatherFile(Inode& inode, PageIndex first) {
  const PageIndex end = first + PageCount(huge_pages());
  uint32_t most = 2 * huge_pages();  // What comes back may drive out what came before.
  for (auto swapped = inode.pages.Swapped(first, end); !swapped.empty();) {
    if (most-- == 0 || !files_.PageForWrite(inode, (*swapped.begin()).index).ok()) return CollapseResult::kFailed;
  }
  DrainLru();
  UnmapFilePages(inode, first, end, /*even_cows=*/false);
  for (const auto& [index, pfn] : inode.pages.Pages(first, end)) {
    const Frame& frame = memory_.frame(pfn);
    if (frame.refcount != 1 || IsCompound(frame)) return CollapseResult::kPinned;
  }
  return files_.TakeHoles(inode, first) ? CollapseResult::kSucceed : CollapseResult::kFailed;
}

// collapse_and_free_pmd(): takes the lowest table of that place away, if it maps nothing any more.
bool Paging::FreeEmptyLowest(AddressSpace& mm, VirtAddr address) {
  uint8_t* table = FindTable(mm, address, 2);
  const uint64_t entry = table == nullptr ? 0 : format_.Load(table, format_.IndexOf(address, 2));
  if (!format_.TablePresent(entry)) return false;
  const uint8_t* lowest = TableBytes(format_.TableOf(entry));
  for (uint32_t i = 0; i < huge_pages(); ++i) {
    if (!format_.None(format_.Load(lowest, i))) return false;
  }
  format_.Store(table, format_.IndexOf(address, 2), 0);
  FreeTable(mm, 1, format_.TableOf(entry));
  return true;
}

// retract_page_tables() of khugepaged: lowest tables that are empty now go, so that the next fault maps the huge page by one entry.
void Paging::RetractTables(const Inode& inode, PageIndex first) {
  const PageSize page_size = layout_.page_size;
  for (const auto& [link, vma] : inode.mappings) {
    if (vma->anon_vma != nullptr || first < vma->pgoff) continue;
    const VirtAddr address = vma->start + page_size.BytesOf(first - vma->pgoff);
    if (HugeFits(*vma, address)) FreeEmptyLowest(*vma->mm, address);
  }
}

// collapse_pte_mapped_thp(): small entries that map parts of the huge page go; `install`: one entry comes in their place.
CollapseResult Paging::MapCollapsed(VmArea& vma, VirtAddr address, bool install) {
  uint8_t* table = FindTable(*vma.mm, address, 2);
  if (table == nullptr) return CollapseResult::kNoTable;
  const uint64_t entry = format_.Load(table, format_.IndexOf(address, 2));
  if (format_.Huge(entry)) return CollapseResult::kAlreadyHuge;
  if (format_.TablePresent(entry)) {
    vma.mm->UpdateHiwaterRss();
    ZapRange(nullptr, vma, VirtRange{address, address + Bytes(format_.coverage(2))}, /*even_cows=*/false);
    if (!FreeEmptyLowest(*vma.mm, address)) return CollapseResult::kFailed;
  } else if (!install) {
    return CollapseResult::kMappedSmall;  // A fault maps it by one entry.
  }
  const std::optional<Pfn> head = files_.FindPage(*vma.file->inode, vma.IndexOf(address, layout_.page_size));
  if (install && head.has_value()) SetHugeFile(vma, address, *head, /*write=*/false);
  return CollapseResult::kSucceed;
}

CollapseResult Paging::CollapseFile(VmArea& vma, VirtAddr address, bool khugepaged, ScanSums& sums) {
  Inode& inode = *vma.file->inode;
  const PageIndex first = vma.IndexOf(address, layout_.page_size);
  if (const CollapseResult found = ScanFile(inode, first, khugepaged, sums); found != CollapseResult::kSucceed) {
    return found == CollapseResult::kMappedSmall ? MapCollapsed(vma, address, /*install=*/!khugepaged) : found;
  }
  const bool may_reclaim = !khugepaged || huge_settings_.khugepaged.defrag;
  const PageOrder order(format_.shift(2) - format_.shift(1));
  const Gfp gfp = HugeGfpLight() | (may_reclaim ? kGfpDirectReclaim : 0);
  const std::optional<Pfn> head = memory_.AllocPages(gfp, order);
  vm_stat_.Count(head.has_value() ? VmEvent::kThpCollapseAlloc : VmEvent::kThpCollapseAllocFailed);
  if (!head.has_value()) return CollapseResult::kAllocationFailed;
  CollapseResult result = CollapseResult::kChargeFailed;
  MemoryController* const charger = memory_.charger();
  const auto behind = inode.pages.Pages(first);
  const uint16_t memcg = behind.empty() ? 0 : memory_.frame((*behind.begin()).value).memcg;
  if (charger == nullptr || charger->ChargeAgain(*head, order, memcg, gfp)) result = GatherFile(inode, first);
  if (result != CollapseResult::kSucceed) {
    memory_.FreePages(*head, order);
    return result;
  }
  files_.CollapseInto(inode, first, *head);
  if (khugepaged) {
    RetractTables(inode, first);
    return CollapseResult::kSucceed;
  }
  // MADV_COLLAPSE wants it mapped where it was asked for, which takes a table that was there.
  const uint8_t* upper = FindTable(*vma.mm, address, 2);
  if (upper == nullptr) return CollapseResult::kNoTable;
  const bool had_table = format_.TablePresent(format_.Load(upper, format_.IndexOf(address, 2)));
  return had_table && vma.anon_vma == nullptr ? MapCollapsed(vma, address, /*install=*/true) : CollapseResult::kFailed;
}

}  // namespace mmlab
