// Small pages become a huge one. Linux: mm/khugepaged.c (hpage_collapse_scan_pmd, collapse_huge_page), MADV_COLLAPSE.
#include "server/base/check.h"
#include "server/base/event.h"
#include "server/base/explanation.h"
#include "server/physical/contents.h"
#include "server/physical/lru_lists.h"
#include "server/physical/memory_controller.h"
#include "server/physical/physical_memory.h"
#include "server/physical/vm_stat.h"
#include "server/process/address_space.h"
#include "server/process/khugepaged.h"
#include "server/process/paging.h"

namespace mmlab {
namespace {

const char* Reason(CollapseResult result) {
  switch (result) {
    case CollapseResult::kSucceed:
      return "the small pages were copied into a huge page";
    case CollapseResult::kNoTable:
      return "not collapsed: nothing is mapped there";
    case CollapseResult::kAlreadyHuge:
      return "not collapsed: a huge page is mapped there already";
    case CollapseResult::kTooManyNone:
      return "not collapsed: more pages are missing than max_ptes_none allows";
    case CollapseResult::kTooManySwapped:
      return "not collapsed: more pages are swapped out than max_ptes_swap allows";
    case CollapseResult::kTooManyShared:
      return "not collapsed: more pages are shared than max_ptes_shared allows";
    case CollapseResult::kNotNormal:
      return "not collapsed: an entry maps no ordinary page";
    case CollapseResult::kNotAnonymous:
      return "not collapsed: a page of a file lies in between";
    case CollapseResult::kNotOnLru:
      return "not collapsed: a page is not on the LRU lists";
    case CollapseResult::kPinned:
      return "not collapsed: somebody else holds a page";
    case CollapseResult::kReadOnly:
      return "not collapsed: no page of the range is writable";
    case CollapseResult::kNotReferenced:
      return "not collapsed: no page of the range was used";
    case CollapseResult::kAllocationFailed:
      return "not collapsed: no block of that size is free";
    case CollapseResult::kChargeFailed:
      return "not collapsed: the memory cgroup may not have so much";
    case CollapseResult::kSwappedOut:
      return "not collapsed: a page is swapped out";
    case CollapseResult::kMappedSmall:
      return "not collapsed: the file has a huge page there already";
    case CollapseResult::kFailed:
      return "not collapsed: the file has no page there, or may not have more";
  }
  return "";
}

// SCAN_STATUS, include/trace/events/huge_memory.h.
const char* StatusName(CollapseResult result) {
  switch (result) {
    case CollapseResult::kSucceed:
      return "succeeded";
    case CollapseResult::kNoTable:
      return "pmd_null";
    case CollapseResult::kAlreadyHuge:
      return "page_pmd_mapped";
    case CollapseResult::kTooManyNone:
      return "exceed_none_pte";
    case CollapseResult::kTooManySwapped:
      return "exceed_swap_pte";
    case CollapseResult::kTooManyShared:
      return "exceed_shared_pte";
    case CollapseResult::kNotNormal:
      return "page_null";
    case CollapseResult::kNotAnonymous:
      return "page_not_anon";
    case CollapseResult::kNotOnLru:
      return "page_not_in_lru";
    case CollapseResult::kPinned:
      return "not_suitable_page_count";
    case CollapseResult::kReadOnly:
      return "no_writable_page";
    case CollapseResult::kNotReferenced:
      return "lack_referenced_page";
    case CollapseResult::kAllocationFailed:
      return "alloc_huge_page_failed";
    case CollapseResult::kSwappedOut:
      return "pte_non_present";
    case CollapseResult::kMappedSmall:
      return "pte_mapped_hugepage";
    case CollapseResult::kFailed:
      return "failed";
    case CollapseResult::kChargeFailed:
      return "ccgroup_charge_failed";
  }
  return "failed";
}

}  // namespace

bool Paging::CollapseAllowed(const VmArea& vma, bool by_settings) const {
  return HugeAllowed(vma, vma.flags, by_settings ? HugeAsk::kKhugepaged : HugeAsk::kForced);
}

// Holds the entries of a range against the limits.
CollapseResult Paging::CollapseScan(const uint8_t* table, bool khugepaged, ScanSums& sums) {
  const KhugepagedSettings& limits = huge_settings_.khugepaged;
  const auto exceeds = [khugepaged](uint32_t count, uint32_t limit) { return khugepaged && count > limit; };
  sums = ScanSums();
  for (uint32_t i = 0; i < huge_pages(); ++i) {
    const Pte pte = format_.Load(table, i);
    if (!format_.None(pte) && !format_.Present(pte)) {
      if (!exceeds(++sums.swapped, limits.max_ptes_swap)) continue;
      vm_stat_.Count(VmEvent::kThpScanExceedSwapPte);
      return CollapseResult::kTooManySwapped;
    }
    if (format_.None(pte) || format_.PfnOf(pte) == memory_.zero_frame()) {
      if (!exceeds(++sums.none, limits.max_ptes_none)) continue;
      vm_stat_.Count(VmEvent::kThpScanExceedNonePte);
      return CollapseResult::kTooManyNone;
    }
    sums.writable = sums.writable || format_.Writable(pte);
    Pfn pfn;
    const Frame* frame = NormalPage(pte, &pfn);
    if (frame == nullptr) return CollapseResult::kNotNormal;
    sums.last_pfn = pfn.raw();
    if (MapCountOf(pfn, *frame) > 1 && exceeds(++sums.shared, limits.max_ptes_shared)) {
      vm_stat_.Count(VmEvent::kThpScanExceedSharePte);
      return CollapseResult::kTooManyShared;
    }
    const Frame& head = HeadOf(pfn, *frame);
    if ((head.flags & kPgLru) == 0) return CollapseResult::kNotOnLru;
    if (frame->state != FrameState::kAnon) return CollapseResult::kNotAnonymous;
    if (!IsCompound(*frame) && head.refcount != head.mapcount + ((head.flags & kPgSwapCache) != 0 ? 1 : 0)) return CollapseResult::kPinned;
    if (format_.Young(pte) || (head.flags & kPgReferenced) != 0) ++sums.referenced;
  }
  if (!sums.writable) return CollapseResult::kReadOnly;
  if (khugepaged && (sums.referenced == 0 || (sums.swapped > 0 && sums.referenced < huge_pages() / 2)))
    return CollapseResult::kNotReferenced;
  return sums.swapped > 0 ? CollapseResult::kSwappedOut : CollapseResult::kSucceed;
}

CollapseResult Paging::Collapse(VmArea& vma, VirtAddr address, bool khugepaged) {
  ScanSums sums;
  const CollapseResult result =
      vma.anonymous() ? TryCollapse(vma, address, khugepaged, sums) : CollapseFile(vma, address, khugepaged, sums);
  if (EventSink* events = tracer_.events()) {
    events->Emit(EventKind::kMmKhugepagedScanPmd,
                 {sums.last_pfn, sums.writable, sums.referenced, sums.none, StatusName(result), sums.swapped});
  }
  if (Explanation* why = tracer_.explanation()) why->Add(StepKind::kHugeCollapse, Reason(result)).Address("address", address);
  return result;
}

CollapseResult Paging::TryCollapse(VmArea& vma, VirtAddr address, bool khugepaged, ScanSums& sums) {
  if (HugeEntryAt(*vma.mm, address) != 0) return CollapseResult::kAlreadyHuge;
  uint8_t* table = FindTable(*vma.mm, address, 1);
  if (table == nullptr) return CollapseResult::kNoTable;
  if (const CollapseResult found = CollapseScan(table, khugepaged, sums); found != CollapseResult::kSucceed) return found;
  const bool may_reclaim = !khugepaged || huge_settings_.khugepaged.defrag;
  const PageOrder order(format_.shift(2) - format_.shift(1));
  const Gfp gfp = HugeGfpLight() | (may_reclaim ? kGfpDirectReclaim : 0);
  const std::optional<Pfn> head = memory_.AllocPages(gfp, order);
  vm_stat_.Count(head.has_value() ? VmEvent::kThpCollapseAlloc : VmEvent::kThpCollapseAllocFailed);
  CollapseResult result = CollapseResult::kAllocationFailed;
  const bool charged = head.has_value() && ChargeCollapsed(*head, table, gfp);
  if (head.has_value()) result = CollapseResult::kChargeFailed;
  // Getting the block may have taken pages away.
  if (charged) result = CollapseScan(table, khugepaged, sums);
  if (EventSink* events = tracer_.events()) {
    events->Emit(EventKind::kMmCollapseHugePage, {result == CollapseResult::kSucceed, StatusName(result)});
  }
  if (result == CollapseResult::kSucceed) {
    CollapseInto(vma, address, table, *head);
  } else if (head.has_value()) {
    memory_.FreePages(*head, order);
  }
  return result;
}

// mem_cgroup_charge() for the cgroup of the address space, which its pages tell.
bool Paging::ChargeCollapsed(Pfn head, const uint8_t* table, Gfp gfp) {
  MemoryController* const charger = memory_.charger();
  if (charger == nullptr) return true;
  uint16_t memcg = 0;
  for (uint32_t i = 0; i < huge_pages() && memcg == 0; ++i) {
    const Pte pte = format_.Load(table, i);
    Pfn pfn;
    const Frame* frame = format_.None(pte) ? nullptr : NormalPage(pte, &pfn);
    if (frame != nullptr) memcg = HeadOf(pfn, *frame).memcg;
  }
  if (!charger->ChargeAgain(head, PageOrder(format_.shift(2) - format_.shift(1)), memcg, gfp)) return false;
  memory_.lru().CountOnly(memory_.frame(head).memcg, VmEvent::kThpCollapseAlloc);
  return true;
}

// __collapse_huge_page_copy() and what follows it.
void Paging::CollapseInto(VmArea& vma, VirtAddr address, uint8_t* table, Pfn head) {
  AddressSpace& mm = *vma.mm;
  PrepareHugePage(head);
  for (uint32_t i = 0; i < huge_pages(); ++i) {
    const Pte pte = format_.Load(table, i);
    format_.Store(table, i, 0);
    Pfn pfn;
    Frame* frame = format_.None(pte) ? nullptr : NormalPage(pte, &pfn);
    if (frame == nullptr) {
      ++mm.rss[static_cast<size_t>(RssKind::kAnon)];
      continue;
    }
    memory_.contents().Copy(pfn, head + PageCount(i));
    RemoveRmap(pfn, *frame, vma);
    PutPage(pfn, *frame);
  }
  uint8_t* upper = FindTable(mm, address, 2);
  const uint32_t index = format_.IndexOf(address, 2);
  mm.deposited_tables.push_back(format_.TableOf(format_.Load(upper, index)));
  last_table_.table = nullptr;
  AddNewHugeRmap(head, vma, address);
  format_.Store(upper, index, format_.MkHuge(MaybeWritable(format_.MkDirty(format_.Make(head, PageProtection(vma))), vma)));
}

}  // namespace mmlab
